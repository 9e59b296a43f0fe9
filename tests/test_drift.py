"""What a machine does between sessions: told from them, and in every interval over several."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from harness import drift_command
from harness.cli import app
from harness.compare import compare
from harness.compare_command import side
from harness.drift import (
    Drift,
    Sessions,
    drift_of,
    known_drifts,
    read_sessions,
    sessions_of,
    write_sessions,
)
from harness.errors import ResultsError, UsageError
from harness.schema import Block
from harness.show import show
from harness.statistics import interval
from harness.table import load_table
from tests.records import CELL, ENVIRONMENT, SAMPLES, make_run, write_session

RANDOM = np.random.default_rng(7)
SHARED, OWN, NOISE = 0.06, 0.03, 0.02
TORCH = CELL.replace("/jax/", "/torch/")
START = datetime.fromisoformat("2026-11-22T10:00:00+00:00")


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


def made(figures: Sequence[tuple[float, ...]]) -> Sessions:
    """A cell whose sessions are an hour apart."""
    hours = range(len(figures))
    began = tuple(f"{START + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ}" for hour in hours)
    return Sessions("step_time_s", tuple(map(str, hours)), began, tuple(figures))


def drawn(sessions: int, cells: int, processes: int = 5) -> dict[str, Sessions]:
    """Cells whose logarithms have a part of the session, one of their own, and a process's."""
    together = RANDOM.normal(0, SHARED, sessions)
    found = {}
    for number in range(cells):
        levels = together + RANDOM.normal(0, OWN, sessions)
        logs = levels[:, None] + RANDOM.normal(0, NOISE, (sessions, processes))
        figures = tuple(map(tuple, np.exp(logs)))
        found[f"c{number}"] = made(figures)
    return found


def known(cells: dict[str, Sessions]) -> Drift:
    found = drift_of(cells)
    assert found is not None
    return found


# The estimate


def test_parts_are_told_apart_and_unbiased() -> None:
    found = [known(drawn(5, 8)) for _ in range(1000)]
    both = np.mean([drift.of().value for drift in found])
    shared = np.mean([drift.of(own=0.0).value for drift in found])
    assert both == pytest.approx(SHARED**2 + OWN**2, rel=0.05)
    assert shared == pytest.approx(SHARED**2, rel=0.06)


def test_balanced_sessions_have_the_mean_squares_of_the_textbook() -> None:
    cells = drawn(4, 6)
    levels = np.array([[np.log(one).mean() for one in part.figures] for part in cells.values()])
    rows, columns = levels.mean(axis=1, keepdims=True), levels.mean(axis=0, keepdims=True)
    found = known(cells)
    assert found.cells == pytest.approx(6)
    assert found.together.value == pytest.approx(6 * levels.mean(axis=0).var(ddof=1))
    rest = ((levels - rows - columns + levels.mean()) ** 2).sum() / (5 * 3)
    assert found.alone.value == pytest.approx(rest)
    assert found.alone.freedom == 15


def test_sessions_that_lack_cells_bias_nothing() -> None:
    found = []
    for _ in range(1000):
        cells = drawn(6, 6)
        for name, one in list(cells.items())[:4]:
            gone = int(RANDOM.integers(6))
            places = [place for place in range(6) if place != gone]
            cells[name] = one.at(places)
        found.append(known(cells).of().value)
    assert np.mean(found) == pytest.approx(SHARED**2 + OWN**2, rel=0.06)


def test_the_interval_with_drift_holds_another_session() -> None:
    """Without it the interval of a session misses the other's median mostly."""
    hits = {True: 0, False: 0}
    tries = 0
    for _ in range(300):
        between = known(drawn(5, 8)).between
        for one in drawn(2, 8).values():
            here, there = one.figures
            tries += 1
            for drift in (between, None):
                found = interval(here, drift=drift)
                assert found is not None
                hits[drift is not None] += found[0] <= median(there) <= found[1]
    assert 0.92 < hits[True] / tries < 0.98
    assert hits[False] / tries < 0.5


def test_one_cell_alone_tells_the_drift() -> None:
    found = [known(drawn(6, 1)).of().value for _ in range(1000)]
    assert np.mean(found) == pytest.approx(SHARED**2 + OWN**2, rel=0.08)


def test_sessions_that_differ_as_their_processes_do_have_none() -> None:
    figures = ((1.0, 1.2), (1.0, 1.2), (1.2, 1.0))
    found = known({"c": made(figures)})
    assert found.of() == (0.0, math.inf)
    assert found.spread == 0.0
    assert found.between == (0.0, math.inf)


def test_what_cells_have_in_common_is_not_told_of_one_cell() -> None:
    """Of one it is not known: all that its sessions differ by might be its own."""
    for count, told in ((1, False), (4, True)):
        cells = drawn(8, count)
        said = drift_command.text("laptop", cells, known(cells))
        assert ("all cells together" in said) == told


def test_no_drift_is_said_so() -> None:
    for number in range(3):
        session(number, 1.0)
    told = " ".join(doctor().output.split())
    assert "They are no further apart than their processes differ." in told
    told = " ".join(CliRunner().invoke(app, ["show"]).output.split())
    assert "(standard deviation 0 %, 3 sessions within 2.0 hours)" in told


def test_two_sessions_tell_nothing() -> None:
    assert drift_of(drawn(2, 8)) is None
    assert drift_of({}) is None


def test_cells_that_no_two_sessions_share_tell_nothing() -> None:
    cells = {name: one.at([place]) for place, (name, one) in enumerate(drawn(4, 4).items())}
    assert drift_of(cells) is None


# From the results


def session(
    number: int, level: float, *, minutes: float = 60.0, processes: int = 4, **changes: Any
) -> None:
    """A session of both cells, `number` times `minutes` after the first."""
    began = START + timedelta(minutes=number * minutes)
    name = f"{began:%Y%m%dT%H%M%S}Z-{number:07d}"
    runs = [
        make_run(
            **{
                "cell": cell,
                "run": f"{cell}-{place}",
                "replicate": place,
                "started_at": f"{began + timedelta(seconds=place):%Y-%m-%dT%H:%M:%SZ}",
                "samples": replace(SAMPLES, steady=(Block(10, 10 * level * step),) * 3),
                **changes,
            }
        )
        for place, step in enumerate((0.0100, 0.0101, 0.0099, 0.0100)[:processes])
        for cell in (CELL, TORCH)
    ]
    write_session(Path("results"), *runs, session=name)


def frame() -> pd.DataFrame:
    return load_table(Path("results")).frame


def figures(levels: Sequence[float]) -> None:
    for number, level in enumerate(levels):
        session(number, level)


def test_sessions_of_the_same_code_are_found() -> None:
    figures((1.0, 1.1, 0.95))
    found = sessions_of(frame())
    assert list(found) == [CELL, TORCH]
    assert [round(float(np.mean(one)), 6) for one in found[CELL].figures] == [0.01, 0.011, 0.0095]


def test_other_code_a_single_process_and_the_same_hour_do_not_count() -> None:
    figures((1.0, 1.1, 0.95))
    session(3, 2.0, workload_version="2.0.0")
    session(4, 3.0, processes=1)
    session(13, 4.0, minutes=10)  # ten minutes after the third
    found = sessions_of(frame())[CELL]
    assert [round(float(np.mean(one)), 6) for one in found.figures] == [0.01, 0.011, 0.0095]


def doctor() -> Any:
    return CliRunner().invoke(app, ["doctor", "--drift"], env={"EPOCHMARK_MACHINE": "laptop"})


def test_the_doctor_learns_it_from_the_results() -> None:
    figures((1.0, 1.1, 0.95, 1.02))
    answer = doctor()
    assert answer.exit_code == 0
    assert "laptop: 4 sessions within 3.0 hours, 2 cells of the same code." in answer.output
    kept = read_sessions(Path("results"), "laptop")
    assert known(kept) == known(sessions_of(frame()))
    assert known_drifts(Path("results"), frame()) == {"laptop": known(kept)}


def test_too_few_sessions_are_one_sentence_and_write_nothing() -> None:
    figures((1.0, 1.1))
    answer = doctor()
    assert isinstance(answer.exception, UsageError)
    assert str(answer.exception).startswith("The results have no 3 sessions of laptop that")
    assert not Path("results/drift").exists()


def test_a_damaged_file_says_how_to_make_it_again() -> None:
    write_sessions(Path("results"), "laptop", drawn(3, 1))
    path = Path("results/drift/laptop.json")
    fields = json.loads(path.read_text())
    fields["cells"]["c0"]["figures"][0][0] = -1.0
    path.write_text(json.dumps(fields))
    with pytest.raises(ResultsError, match=r"laptop\.json is not a file of sessions\. Delete it, "):
        read_sessions(Path("results"), "laptop")


# Where it is used


def sides(one: int, other: int) -> list[pd.DataFrame]:
    names = list(dict.fromkeys(frame()["session"]))
    return [side(Path("results"), str(names[place])).frame for place in (one, other)]


def test_two_sessions_differ_by_no_more_than_the_machine_does() -> None:
    figures((1.0, 1.1, 0.95, 1.02, 1.1))
    drifts = {"laptop": known(sessions_of(frame()))}
    (row, _) = compare(*sides(0, 1)).rows
    assert row.verdict == "slower"
    found = compare(*sides(0, 1), drifts=drifts)
    assert {row.verdict for row in found.rows} == {"no difference found"}
    assert (found.apart, found.unknown) == (True, ())
    assert found.mean is not None
    low, high = found.mean.interval(0.01)
    assert low < 1 < high
    # A regression that is larger than any drift is found nevertheless.
    session(5, 2.0)
    assert {row.verdict for row in compare(*sides(0, 5), drifts=drifts).rows} == {"slower"}


def test_one_session_has_no_drift_in_it() -> None:
    figures((1.0, 1.1, 0.95))
    drifts = {"laptop": known(sessions_of(frame()))}
    runs = sides(0, 0)[0]
    halves = [runs[runs["backend"] == backend] for backend in ("jax", "torch")]
    slower = halves[1].assign(step_time_s=1.05 * halves[1]["step_time_s"])
    alone, with_drift = compare(halves[0], slower), compare(halves[0], slower, drifts=drifts)
    assert alone.rows == with_drift.rows
    assert (alone.rows[0].verdict, with_drift.apart) == ("slower", False)


def test_the_share_of_the_peak_drifts_as_the_throughput_does() -> None:
    figures((1.0, 1.1, 0.95))
    drifts = {"laptop": known(sessions_of(frame()))}
    given = [runs.assign(mfu=0.01 / runs["step_time_s"]) for runs in sides(0, 1)]
    assert {row.verdict for row in compare(*given, metric="mfu").rows} == {"worse"}
    found = compare(*given, metric="mfu", drifts=drifts)
    assert {row.verdict for row in found.rows} == {"no difference found"}


def test_memory_does_not_drift() -> None:
    figures((1.0, 1.1, 0.95))
    drifts = {"laptop": known(sessions_of(frame()))}
    metric = "peak_host_memory_bytes"
    grown = sides(0, 1)
    for place, runs in enumerate(grown):
        noise = 1 + 0.001 * (np.arange(len(runs)) // 2)
        grown[place] = runs.assign(**{metric: (1 + 0.02 * place) * 1e9 * noise})
    found = compare(*grown, metric=metric, drifts=drifts)
    assert {row.verdict for row in found.rows} == {"worse"}


def test_compare_says_whether_the_drift_is_in_its_intervals() -> None:
    figures((1.0, 1.1, 0.95))
    names = [str(name) for name in dict.fromkeys(frame()["session"])][:2]
    command = ["compare", *names]
    told = " ".join(CliRunner().invoke(app, command).output.split())
    assert "what the machine did in between is in no interval" in told
    assert "`epochmark doctor --drift` tells it" in told
    doctor()
    told = " ".join(CliRunner().invoke(app, command).output.split())
    assert "the intervals have how far sessions of the same code are apart" in told
    assert "in no interval" not in told
    fields = json.loads(CliRunner().invoke(app, [*command, "--format", "json"]).output)
    assert (fields["apart"], fields["unknown_drift"]) == (True, [])


def test_a_row_s_interval_is_of_any_hour_where_the_drift_is_known() -> None:
    figures((1.0, 1.1, 0.95, 1.02))
    drift = known(sessions_of(frame()))
    plain = json.loads(show(frame(), output="json"))[0]
    wide = json.loads(show(frame(), {"laptop": drift}, output="json"))[0]
    assert plain["drift"] is None
    assert wide["drift"] == pytest.approx(drift.spread)
    assert wide["step_time_low_s"] < 0.9 * plain["step_time_low_s"]
    assert wide["cost_per_epoch_high_usd"] > 1.1 * plain["cost_per_epoch_high_usd"]
    assert plain["step_time_s"] == wide["step_time_s"]
    told = " ".join(show(frame(), {"laptop": drift}, output="table").split())
    assert "where another session of the row has its figure: " in told
    assert "while the session ran" not in told
    doctor()
    assert "another session" in " ".join(CliRunner().invoke(app, ["show"]).output.split())


def test_the_report_has_the_same_intervals() -> None:
    from harness.report.source import read_source

    figures((1.0, 1.1, 0.95, 1.02))
    before = read_source(Path("results")).rows
    doctor()
    after = read_source(Path("results")).rows
    for name in ("step_time", "throughput_examples_per_s"):
        low = f"{name}_low_s" if name == "step_time" else f"{name}_low"
        assert (after[low] < 0.9 * before[low]).all()
    memory = "peak_host_memory_bytes_low"
    assert after[memory].equals(before[memory])
    assert ENVIRONMENT.machine == "laptop"
