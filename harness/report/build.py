"""Writes the site: renders every page, copies the scripts beside them. Nothing is ever deleted.

A cell's page keeps its name, so that links to a published report stay good.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.errors import ResultsError, UsageError
from harness.report.pages import FIRST, NAVIGATION, DataFile, Page, pages
from harness.report.source import Source, read_source
from harness.report.summaries import badges, markdown
from harness.store import spelled

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Built:
    """The site's first page, and what was left out of the results it was made from."""

    index: Path
    files: int
    bytes: int
    notices: tuple[str, ...]
    broken: int


def build(results: Path, out: Path, *, summary: Path | None = None) -> Built:
    """Make the site in a folder, and a Markdown summary beside it if one is wanted.

    Without any readable result the site says so, and the error is raised after it is written.
    """
    writer = _Writer(out)
    try:
        source = read_source(results)
    except ResultsError as error:
        writer.page(_nothing(str(error)))
        writer.static()
        raise
    if source.runs.empty:
        writer.page(_nothing("The results hold no runs."))
    else:
        for page in pages(source):
            writer.take(page)
        writer.badges(source)
    writer.static()
    if summary is not None:
        _write(summary, markdown(source))
    return Built(out / FIRST, writer.files, writer.bytes, source.notices, source.broken)


def _nothing(reason: str) -> Page:
    return Page(FIRST, "nothing.html", "No results", {"reason": reason})


class _Writer:
    """Puts files into the site's folder and counts them."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.files = 0
        self.bytes = 0
        self._templates = _environment()

    def take(self, made: Page | DataFile) -> None:
        if isinstance(made, Page):
            self.page(made)
        else:
            self._put(made.path, _script(made))

    def page(self, page: Page) -> None:
        root = "../" * page.path.count("/")
        here = page.path if page.path in dict(NAVIGATION) else ""
        self._put(
            page.path,
            self._templates.get_template(page.template).render(
                title=page.title,
                root=root,
                here=here,
                navigation=NAVIGATION,
                suite_version=version("epochmark"),
                **page.context,
            ),
        )

    def badges(self, source: Source) -> None:
        template = self._templates.get_template("badge.svg")
        for badge in badges(source):
            self._put(f"badges/{badge.id}.svg", template.render(badge=badge))

    def static(self) -> None:
        """Style, scripts, and Plotly's, with its licence in its first lines."""
        from plotly.offline import get_plotlyjs

        for path in sorted(STATIC.iterdir()):
            self._put(f"static/{path.name}", path.read_text(encoding="utf-8"))
        self._put("static/plotly.js", get_plotlyjs())

    def _put(self, name: str, text: str) -> None:
        _write(self.out / name, text)
        self.files += 1
        self.bytes += len(text.encode())


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{spelled(path)!r} cannot be written: {error.strerror}. Name another place."
        ) from error


def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"allow_nan": False, "sort_keys": False}
    return found


def _script(made: DataFile) -> str:
    """A script that hands its data to the page: from disk, a browser fetches no other kind."""
    text = json.dumps(_finite(made.content), allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")  # nothing in it can look like a tag
    return f"epochmark.take({json.dumps(made.key)},{text});\n"


def _finite(value: Any) -> Any:
    """Strict JSON knows no NaN: what is absent is null."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
