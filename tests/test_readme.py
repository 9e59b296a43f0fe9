"""The README's generated parts are fresh, and its commands are run by CI."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from harness import coverage, readme, workload_figures
from harness.cells import BACKENDS
from harness.metrics import METRICS
from harness.registry import workload, workloads
from tests.pictures import SHOWN
from tests.records import failed_run, make_run, write_session
from tests.workers import GATE_ONLY

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def ci() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ci", ROOT / ".ci" / "readme_commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", readme.files(), ids=lambda path: path.parent.name)
def test_the_generated_blocks_are_what_the_results_and_metrics_say(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == readme.rewritten(text, ROOT / "results"), "stale: run `make readme`"


@pytest.mark.parametrize("name", workloads())
def test_every_workloads_readme_has_its_speed_its_spread_and_its_bounds(name: str) -> None:
    text = (ROOT / "workloads" / name / "README.md").read_text(encoding="utf-8")
    # The first of a name has every backend.
    blocks = {found.group(2): found for found in [*readme.BLOCK.finditer(text)][::-1]}
    assert set(blocks) == {"standard", "seeds", "profile"}
    for found in blocks.values():
        assert found.group(3).startswith(f"{name}:")
    speed = blocks["standard"].group(0)
    assert all(f"| {name} | {backend} | ok" in speed for backend in BACKENDS)
    assert all(title in speed for title in ("examples/s", "MFU", "peak host memory", "accepted"))
    declared = workload(name)
    factor = 100 if declared.quality_unit == "%" else 1
    for scale in ("smoke", "standard"):
        ends = (rf"{factor * end:g}(\.0)?" for end in declared.scales[scale].quality_bounds)
        accepted = rf"\| accepted \| {' to '.join(ends)} {declared.quality_unit} \|"
        assert re.search(accepted, text), f"{scale} accepts what the README does not say"


def test_the_coverage_of_a_scale_tells_how_every_cell_ended_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHMARK_CACHE", str(tmp_path / "cache"))
    series = workload("lstm_eta").version.rpartition(".")[0]
    cells = [f"lstm_eta/smoke/train/{backend}/float32/functional/cpu" for backend in BACKENDS]
    now = {"workload_version": f"{series}.99"}
    once = cells[0].replace("functional", "sequential")
    runs = [
        *(make_run(run=f"ok{place}", cell=cell, **now) for place, cell in enumerate(cells)),
        make_run(run="old", cell=once, workload_version="0.0.1"),
        failed_run("oom", "no memory", run="oom", cell=cells[1].replace("train", "infer"), **now),
    ]
    write_session(tmp_path, *runs, session="one")
    head, _, *lines = coverage.markdown(tmp_path, "smoke").splitlines()
    assert head == (
        "| scale smoke, cpu | phase | precision | sequential | functional | subclassing | "
        "custom_loop |"
    )
    assert "| lstm_eta | train | float32 | - | ok | - | - |" in lines
    infer = "tensorflow -, jax oom, torch -"
    assert f"| lstm_eta | infer | float32 | - | {infer} | - | - |" in lines
    assert not any("| train | bfloat16" in line for line in lines), "not offered"
    later = [
        failed_run("numerics", "loss", run="bad", cell=cells[2], **now),
        *(make_run(run=cell, cell=cell, protocol=GATE_ONLY, **now) for cell in (cells[0], once)),
    ]
    write_session(tmp_path, *later, session="two", started_at="2026-12-01T00:00:00Z")
    lines = coverage.markdown(tmp_path, "smoke").splitlines()
    told = "tensorflow ok, jax ok, torch numerics"
    one = "tensorflow gate, jax -, torch -"
    assert f"| lstm_eta | train | float32 | {one} | {told} | - | - |" in lines


def test_a_cell_that_never_ended_ok_has_a_row_without_figures() -> None:
    made = workload_figures.seeds("recommender:20261123T010709Z-b60813", ROOT / "results")
    assert "| tensorflow, mixed_bfloat16 | 0 | 0 | - | - | - |" in made
    assert "| torch, float32 | 4 | 1 | 58.4 % | 0.0 % | 58.4 % to 58.4 % |" in made


def test_a_stale_block_is_noticed() -> None:
    text = "<!-- begin metrics -->\nold\n<!-- end -->"
    made = readme.rewritten(text, ROOT / "results")
    assert "old" not in made
    assert all(f"`{name}`" in made for name in METRICS)


def test_the_results_table_has_the_twelve_cells_of_the_quick_plan() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = next(b.group(0) for b in readme.BLOCK.finditer(text) if b.group(2) == "results")
    rows = [line for line in block.splitlines() if re.match(r"\| (bert|lstm|recom|resnet)", line)]
    assert len(rows) == 12
    assert all(" ok " in row for row in rows)


def test_ci_runs_every_command_of_the_readme(ci: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [command.line for command in ci.commands(text)]
    assert "make bench" in found
    assert any(line.startswith("asv run") for line in found)
    assert not any(line.startswith(("git clone", "cd ", "make test")) for line in found)
    assert "readme_commands.py" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_a_comment_behind_a_command_is_cut_off(ci: ModuleType) -> None:
    (found,) = ci.commands("```sh\nmake bench  # twelve cells\n```\n")
    assert found.line == "make bench"


PAGE = ROOT / "docs" / "first-day-on-a-gpu.md"


def test_the_first_day_has_ten_steps_and_all_backends() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^(\d+)\. ", text, re.MULTILINE) == [str(n) for n in range(1, 11)]
    assert text.count("```sh\n") == 11, "step 8 has two"
    assert {"cuda-jax", "cuda-tensorflow", "cuda-torch"} <= set(re.findall(r"cuda-\w+", text))


def test_ci_runs_the_commands_of_the_first_day_and_knows_what_they_say(ci: ModuleType) -> None:
    """Those of a GPU end with a sentence; none writes over a file that is committed."""
    found = ci.commands(PAGE.read_text(encoding="utf-8"), ci.SKIPPED["docs/first-day-on-a-gpu.md"])
    says = {command.line.split("'")[0].strip(): command.says for command in found}
    driver = "no CUDA device: no NVIDIA driver"
    assert says == {
        "epochmark env list": "",
        "epochmark doctor --device gpu": "gpu: unavailable. GPU: no NVIDIA driver",
        "epochmark list --only": f"unavailable: {driver}",
        "epochmark preflight --device cuda-l4 --scale standard --only": "",
        "epochmark run --only": driver,
        "epochmark run --plan standard --only": driver,
        "epochmark show": "",
    }
    (planned,) = [command.line for command in found if "preflight" in command.line]
    assert planned.endswith("--results mine")


@pytest.mark.parametrize(
    ("line", "says", "status"),
    [
        ("echo one; echo two >&2", "one two", 0),
        ("echo one", "three", 1),
        ("exit 7", "", 7),
        ("echo one; exit 7", "one", 7),
        ("true", "", 0),
    ],
)
def test_a_command_that_does_not_say_what_its_page_tells_fails(
    ci: ModuleType, line: str, says: str, status: int
) -> None:
    assert ci.run(ci.Command(line, says)) == status


def test_every_picture_is_there_is_small_and_is_told_in_words() -> None:
    """`make pictures` makes them; whether they are beautiful, a person looks."""
    found = re.findall(r"!\[(.*?)\]\((.+?)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {path for _, path in found} == {f"docs/pictures/{name}.png" for name in SHOWN}
    for words, path in found:
        assert len(words.split()) > 5
        assert (ROOT / path).read_bytes().startswith(b"\x89PNG")
        assert (ROOT / path).stat().st_size < 150_000
