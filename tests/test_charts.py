"""Pictures carry the numbers of the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.advise import Wanted, advise
from harness.charts import BAR, bars, pareto
from harness.errors import UsageError
from harness.table import load_table
from tests.records import write_session
from tests.test_advise import DEFAULT, JAX, TORCH, runs

RESULTS = Path("results")


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")
    cells = runs(DEFAULT, 5.0), runs(JAX, 2.0), runs(TORCH, 10.0)
    write_session(RESULTS, *(run for cell in cells for run in cell))


def test_bars_are_as_long_as_their_figures() -> None:
    title, *lines = bars(load_table(RESULTS).frame, "epoch_time_s").splitlines()
    assert title == "recommender/smoke/train/cpu on laptop: epoch, lower is better"
    full = {line.split("/")[0]: line.count("█") for line in lines}
    assert full == {"tensorflow": BAR // 2, "jax": BAR // 5, "torch": BAR}
    assert [line.split("  ")[-1].split(" (")[0] for line in lines] == ["5.00 s", "2.00 s", "10.0 s"]
    assert all(" s to " in line for line in lines), "the interval stands beside the figure"


def test_bars_of_nothing_are_told() -> None:
    frame = load_table(RESULTS).frame
    with pytest.raises(UsageError, match="Unknown metric 'speed'"):
        bars(frame, "speed")
    with pytest.raises(UsageError, match="No run that is ok has infer_latency_s"):
        bars(frame, "infer_latency_s")


def test_the_front_is_drawn_with_its_names_and_is_the_same_every_time() -> None:
    found = advise(load_table(RESULTS).frame, Wanted("recommender"), {})
    for name in ("one.svg", "two.svg"):
        pareto(found, Path(name))
    picture = Path("one.svg").read_text()
    assert picture == Path("two.svg").read_text()
    assert JAX in picture
    assert TORCH not in picture, "what is beaten has a mark and no name"
    assert "cost in US dollars for 1 epoch<" in picture
    pareto(found, Path("front.png"))
    assert Path("front.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("front.gif", "Unknown picture format '.gif'. Known picture formats: .svg, .png, .pdf."),
        ("missing/front.svg", "'missing/front.svg' cannot be written: No such file or directory. "),
    ],
)
def test_a_picture_that_cannot_be_is_one_sentence(path: str, text: str) -> None:
    found = advise(load_table(RESULTS).frame, Wanted("recommender"), {})
    with pytest.raises(UsageError) as caught:
        pareto(found, Path(path))
    assert str(caught.value).startswith(text)
