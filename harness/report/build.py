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

from harness.errors import DataError, ResultsError, UsageError
from harness.metrics import METRICS
from harness.report.asvpages import publish
from harness.report.pages import ASV, FIRST, NAVIGATION, AsvPages, DataFile, Page, pages
from harness.report.parts import axis_title
from harness.report.source import Source, read_source
from harness.report.summaries import badges, markdown
from harness.store import spelled

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Built:
    """The site's first page, and what was left out of the results it was made from.

    `files` and `bytes` are without asv's own pages.
    """

    index: Path
    files: int
    bytes: int
    notices: tuple[str, ...]
    broken: int


def build(results: Path, out: Path, *, summary: Path | None = None, asv: bool = False) -> Built:
    """Make the site in a folder, and a Markdown summary beside it if one is wanted.

    With `asv` its own pages too, in a folder of that name; where they cannot be made, the site says
    why. Without any readable result the site says so, and the error is raised after it is written.
    """
    writer = _Writer(out)
    try:
        source = read_source(results)
    except ResultsError as error:
        writer.nothing(str(error))
        writer.static()
        raise
    notices = list(source.notices)
    if source.runs.empty:
        writer.nothing("The results hold no runs.")
    else:
        made = _asv(source, out) if asv else AsvPages(NOT_ASKED)
        notices += [made.note] if asv and made.note else []
        writer.navigation += ((ASV, "asv"),) if made.there else ()
        for page in pages(source, made):
            writer.take(page)
        writer.badges(source)
    writer.static()
    if summary is not None:
        _write(summary, markdown(source))
    return Built(out / FIRST, writer.files, writer.bytes, tuple(notices), source.broken)


NOT_ASKED = "asv's own pages are not here: epochmark report --asv makes them."


def _asv(source: Source, out: Path) -> AsvPages:
    try:
        left = publish(source.runs, (out / ASV).parent)
    except DataError as error:
        return AsvPages(f"asv's own pages are not here: {error}.")
    were = "run, which is" if left == 1 else "runs, which are"
    note = f"asv's own pages leave out {left:,} {were} of no commit of this branch."
    return AsvPages(note if left else "", there=True)


class _Writer:
    """Puts files into the site's folder and counts them."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.files = 0
        self.bytes = 0
        self.navigation: tuple[tuple[str, str], ...] = NAVIGATION
        self._templates = _environment()

    def take(self, made: Page | DataFile) -> None:
        if isinstance(made, Page):
            self.page(made)
        else:
            self._put(made.path, _script(made))

    def nothing(self, reason: str) -> None:
        """The only page there is to say: no link to others, which would be missing or stale."""
        self.navigation = ((FIRST, "Overview"),)
        self.page(Page(FIRST, "nothing.html", "No results", {"reason": reason}))

    def page(self, page: Page) -> None:
        root = "../" * page.path.count("/")
        here = page.path if page.path in dict(self.navigation) else ""
        self._put(
            page.path,
            self._templates.get_template(page.template).render(
                title=page.title,
                root=root,
                here=here,
                navigation=self.navigation,
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
    # A column of numbers says its unit in CSV, where the numbers stand without one.
    found.globals["units"] = {one.title: axis_title(one.name) for one in METRICS.values()}
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
