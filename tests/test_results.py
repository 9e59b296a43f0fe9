"""What the committed results must hold, read as a user reads them."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from scipy.stats import ttest_ind

from harness.cells import BACKENDS
from harness.compare_command import compared
from harness.drift import drift_of, read_sessions, sessions_of
from harness.registry import workloads
from harness.table import load_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
SEEDS = 5


def session_of_the_readme() -> str:
    """The session whose table the README shows: the quick plan, five seeds a cell."""
    found = re.search(r"<!-- begin results (\S+) -->", (ROOT / "README.md").read_text())
    assert found is not None
    return found.group(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path))


@pytest.mark.parametrize("folder", [RESULTS, RESULTS / "simulated", RESULTS / "styles"])
def test_every_committed_file_is_whole_and_as_it_was_written(folder: Path) -> None:
    found = load_table(folder)
    assert (found.notices, found.broken) == ((), 0)
    assert not found.frame["altered"].any()


def test_the_readmes_table_is_of_every_workload_and_backend_several_times() -> None:
    frame = load_table(RESULTS, [session_of_the_readme()]).frame
    assert set(frame["status"]) == {"ok"}
    counts = frame.groupby(["workload", "backend"], observed=True).size()
    assert dict(counts) == {(name, backend): SEEDS for name in workloads() for backend in BACKENDS}
    assert set(frame.groupby("seed").size()) == {len(workloads()) * len(BACKENDS)}


@pytest.mark.parametrize(("one", "other"), list(combinations(BACKENDS, 2)))
def test_no_backend_trains_to_another_quality(one: str, other: str) -> None:
    """Same mathematics, same data: over seeds, nothing but chance tells their quality apart.

    The bound is the comparison's own: what the seeds' spread cannot explain is a verdict.
    """
    text, _ = compared(
        RESULTS,
        f"*/{one}/*",
        f"*/{other}/*",
        metric="quality_error",
        across=["protocol"],
        only=[],
        session=session_of_the_readme(),
        output="json",
        say=print,
    )
    found = json.loads(text)
    assert len(found["cells"]) == len(workloads())
    assert {cell["verdict"] for cell in found["cells"]} == {"no difference found"}
    # A spread so wide that it explains everything would prove nothing.
    mean = found["geometric_mean"]
    assert 0.85 < mean["low"] < 1.0 < mean["high"] < 1.15


def trained_at_standard() -> list[tuple[str, str]]:
    """Workloads and sessions of whole trainings at standard, several seeds each, by the READMEs."""
    found = []
    for name in workloads():
        text = (ROOT / "workloads" / name / "README.md").read_text(encoding="utf-8")
        standard = text[text.index("## Scale `standard`") :]
        found += re.findall(r"<!-- begin seeds (\S+):(\S+) -->", standard)
    return found


def test_a_workload_was_trained_to_the_end_at_standard() -> None:
    assert "recommender" in {name for name, _ in trained_at_standard()}


@pytest.mark.parametrize(("name", "session"), trained_at_standard())
@pytest.mark.parametrize(("one", "other"), list(combinations(BACKENDS, 2)))
def test_no_backend_trains_to_another_quality_at_standard(
    name: str, session: str, one: str, other: str
) -> None:
    """Nothing but chance, as the seeds differ, tells them apart, and by less than a twentieth."""
    frame = load_table(RESULTS, [session]).frame
    errors = [frame.loc[frame["backend"] == side, "quality_error"] for side in (one, other)]
    assert min(map(len, errors)) > 1
    assert ttest_ind(*errors).pvalue > 0.01
    assert errors[0].mean() / errors[1].mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", workloads())
def test_every_workload_was_measured_at_standard_on_every_backend(name: str) -> None:
    """On real data, to the end or marked as extrapolated, in enough quiet for its README."""
    text = (ROOT / "workloads" / name / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- begin standard {name}:(\S+) -->", text)
    assert found is not None
    frame = load_table(RESULTS, [found.group(1)]).frame
    rows = frame[(frame["workload"] == name) & (frame["scale"] == "standard")]
    assert set(rows["backend"]) == set(BACKENDS)
    assert set(rows["status"]) == {"ok"}
    assert (rows["extrapolated"] == (rows["epoch_fraction"] < 1)).all()
    assert rows["data_source"].str.startswith("PyPI ").all()
    assert set(rows.loc[~rows["contended"], "backend"]) == set(BACKENDS)


def test_the_drift_of_a_machine_is_that_of_its_committed_sessions() -> None:
    runs = load_table(RESULTS).frame
    paths = sorted((RESULTS / "drift").glob("*.json"))
    assert paths
    for path in paths:
        own = sessions_of(runs[runs["machine"] == path.stem])
        assert read_sessions(RESULTS, path.stem) == own, f"stale: {path.stem}"
        assert drift_of(own) is not None
