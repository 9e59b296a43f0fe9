"""Who may do what, read from the source: one file reads a clock, one writes results, and so on.

Each rule is checked on small made-up code as well, so that a rule which sees nothing would show.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("harness", "workloads", "suites")
BACKENDS = ("tensorflow", "jax", "torch")
# Beside backends and models, what runs inside a worker.
ASK_KERAS = (
    "harness/stages.py", "harness/weights.py", "harness/peak_child.py", "harness/device_child.py",
)  # fmt: skip
FRAMEWORKS = {"keras", "tensorflow", "torch", "jax", "jaxlib"}
FILES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
}
WORKLOADS = sorted(path.parent.name for path in (ROOT / "workloads").glob("*/__init__.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that the code imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports here are absolute"
            assert node.module is not None
            yield from (f"{node.module}.{name.name}" for name in node.names)


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported, but for those only type checkers see."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.stmt):
            yield node
        waiting += list(ast.iter_child_nodes(node))


def imported_at_once(tree: ast.Module) -> set[str]:
    """Top-level packages imported with the module."""
    direct = [node for node in at_import(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {name.split(".")[0] for node in direct for name in imports(node)}


def packages(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imports(tree)}


def test_the_files_are_there() -> None:
    """Rules over no files would all hold."""
    assert {"harness/runner.py", "workloads/bert/model.py", "suites/__init__.py"} <= FILES.keys()
    assert WORKLOADS == ["bert", "lstm_eta", "recommender", "resnet50"]


# The line of dependency


@pytest.mark.parametrize("file", FILES)
def test_dependency_runs_from_suites_to_workloads_to_harness(file: str) -> None:
    layer = file.split("/")[0]
    above = set(LAYERS[LAYERS.index(layer) + 1 :]) | {"tests", "results"}
    assert not packages(FILES[file]) & above


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("workloads/")])
def test_a_workload_knows_no_other(file: str) -> None:
    own = f"workloads.{file.split('/')[1]}"
    others = [name for name in imports(FILES[file]) if name.startswith("workloads.")]
    assert [name for name in others if not f"{name}.".startswith(f"{own}.")] == []


def test_results_hold_data_only() -> None:
    assert list((ROOT / "results").rglob("*.py")) == []


def words(source: str) -> set[str]:
    """The words in identifiers and strings; not those in comments."""
    found: set[str] = set()
    # From Python 3.12 on, the text in an f-string is a token of its own.
    kinds = {tokenize.NAME, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            text = "".join(c if c.isalnum() or c == "_" else " " for c in token.string)
            found |= set(text.split())
    return found


def test_the_search_for_words_finds_names_and_parts_of_strings() -> None:
    assert {"bert", "lstm_eta"} <= words("x = bert\ny = 'a/lstm_eta/b'  # resnet50\n")
    assert "resnet50" not in words("x = 1  # resnet50\n")


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("harness/")])
def test_the_harness_knows_no_workload_by_name(file: str) -> None:
    assert not words((ROOT / file).read_text(encoding="utf-8")) & set(WORKLOADS)


# Frameworks


def test_the_search_for_imports_sees_nested_ones_and_leaves_out_functions() -> None:
    tree = ast.parse(
        "import numpy\nif True:\n    import keras\ntry:\n    import jax.numpy\nexcept E:\n"
        "    from torch import nn\nclass A:\n    import jaxlib\n"
        "if TYPE_CHECKING:\n    import pandas\ndef f():\n    import tensorflow\n"
    )
    assert imported_at_once(tree) == {"numpy", "keras", "jax", "torch", "jaxlib"}
    assert packages(tree) == {"numpy", "keras", "jax", "torch", "jaxlib", "pandas", "tensorflow"}


def may_import_a_framework(file: str) -> bool:
    """The backends themselves, and the networks."""
    if file.startswith("harness/backends/"):
        return not file.endswith("/__init__.py")
    return file.startswith("workloads/") and file.endswith("/model.py")


@pytest.mark.parametrize("file", FILES)
def test_only_backends_and_models_import_a_framework_with_the_module(file: str) -> None:
    found = imported_at_once(FILES[file]) & FRAMEWORKS
    assert bool(found) == may_import_a_framework(file), found


@pytest.mark.parametrize("file", FILES)
def test_a_backends_framework_is_imported_by_its_own_file_alone(file: str) -> None:
    """Everything else knows Keras at most; and Keras only where a worker runs it."""
    found = packages(FILES[file]) & FRAMEWORKS
    if file.startswith("harness/backends/") and Path(file).stem in BACKENDS:
        assert found == {Path(file).stem} | (set() if "/ahead/" in file else {"keras"})
    elif file == "harness/backends/pipelines.py":
        # tf.data makes batches under every backend; the module alone does not import it.
        assert found == {"keras", "tensorflow"}
        assert imported_at_once(FILES[file]) & FRAMEWORKS == {"keras"}
    elif may_import_a_framework(file) or file in ASK_KERAS:
        assert found == {"keras"}
    else:
        assert not found


def test_asv_is_imported_by_no_layer() -> None:
    assert [file for file, tree in FILES.items() if packages(tree) & {"asv", "asv_runner"}] == []


# The clock

CLOCK_MODULES = {"time", "timeit"}
CLOCK_CALLS = {"now", "utcnow", "today", "perf_counter", "monotonic", "process_time", "time_ns"}


def clock_uses(tree: ast.AST) -> set[str]:
    """Imports of the clock modules, and calls like `datetime.now()`; `clock.now` is our own."""
    found = packages(tree) & CLOCK_MODULES
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCK_CALLS:
            found.add(ast.unparse(node))
    return found - {"clock.now"}


def test_the_search_for_clocks_sees_the_usual_ones() -> None:
    tree = ast.parse(
        "import time\nfrom datetime import datetime\na = datetime.now()\nb = pd.Timestamp.now()\n"
        "c = datetime.date.today()\nd = datetime.fromisoformat(x)\n"
    )
    assert clock_uses(tree) == {
        "time", "datetime.now", "pd.Timestamp.now", "datetime.date.today",
    }  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_only_the_clock_reads_a_clock(file: str) -> None:
    assert bool(clock_uses(FILES[file])) == (file == "harness/clock.py")


# The environment

WRITES_ENVIRONMENT = {"putenv", "unsetenv", "execve", "execle", "spawnve", "posix_spawn"}
READS = ("os.environ.get", "os.getenv")


def environment_uses(tree: ast.AST) -> list[str]:
    """Whatever does more to the environment than read one variable, and made child environments."""
    read = {
        id(node.value)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in READS)
        or (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load))
    }
    found = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            (ast.unparse(node) == "os.environ" and id(node) not in read)
            or node.attr in WRITES_ENVIRONMENT
        )
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and "subprocess." in ast.unparse(node.func):
            found += [
                f"line {node.lineno}: env={ast.unparse(keyword.value)}"
                for keyword in node.keywords
                if keyword.arg == "env"
                and not ast.unparse(keyword.value).startswith(
                    ("worker_environment(", "with_settings(")
                )
            ]
    return found


@pytest.mark.parametrize(
    "code",
    [
        "os.environ['A'] = 'b'",
        "del os.environ['A']",
        "os.environ.update(a)",
        "os.environ.setdefault('A', 'b')",
        "environment = dict(os.environ)",
        "environment = {**os.environ}",
        "os.putenv('A', 'b')",
        "subprocess.run(['x'], env={'A': 'b'})",
    ],
)
def test_the_search_for_environments_sees(code: str) -> None:
    assert len(environment_uses(ast.parse(code))) == 1


def test_reading_a_variable_is_free() -> None:
    code = "a = os.environ.get('A')\nb = os.environ['A']\nsubprocess.run(['x'])"
    assert environment_uses(ast.parse(code)) == []


@pytest.mark.parametrize("file", [file for file in FILES if file != "harness/environment.py"])
def test_only_one_file_makes_or_changes_an_environment(file: str) -> None:
    assert environment_uses(FILES[file]) == []


# What is written to the disk

WRITERS = {
    "harness/catalogues.py": "a snapshot of prices, into the results folder",
    "harness/data.py": "prepared arrays, into the cache folder",
    "harness/derived.py": "figures that take long to find, into the cache folder",
    "harness/downloads.py": "unpacked downloads, into a temporary folder",
    "harness/export.py": "the table, to the file that the user names",
    "harness/cellbook.py": "what a machine showed of its cells, into the results folder",
    "harness/peak.py": "a machine's measured peaks, into the results folder",
    "harness/night.py": "Markdown, to the folder that the user names",
    "harness/preflight.py": "orders, into its planning processes",
    "harness/preflight_child.py": "answers, into its parent's pipe",
    "harness/probes.py": "the kernel's switch that resets the peak of memory",
    "harness/readme.py": "the generated blocks of README.md, for developers",
    "harness/report/asvpages.py": "asv's results and pages of the report, beside its others",
    "harness/report/build.py": "the report, to the folder that the user names",
    "harness/reference.py": "a workload's reference.json, for developers",
    "harness/store.py": "results files, and the other JSON files of the results folder",
    "harness/stages.py": "a training checkpoint, through harness/checkpoint.py",
    "harness/table.py": "the tables' cache, into the cache folder",
    "harness/trackers/wandb.py": "a run's files, into the folder that the user names",
    "harness/worker.py": "events, into the parent's pipe",
    "harness/checkpoint.py": "a training's state, to the file that its parent names",
    "harness/child.py": "the job, into the worker's standard input",
}
WRITING = {
    "write", "write_text", "write_bytes", "writelines", "touch", "savez", "save", "dump",
    "to_parquet", "write_table", "symlink_to", "hardlink_to", "copyfile", "write_json",
}  # fmt: skip


def writes(tree: ast.AST) -> list[str]:
    """Calls that put something into a file."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in WRITING or set(open_mode(node)) & set("wax+"):
                found.append(ast.unparse(node.func))
    return found


def open_mode(call: ast.Call) -> str:
    """The mode of an `open`, or nothing; `Path.open` takes it first, the others after the file."""
    function = ast.unparse(call.func)
    if not function.endswith("open"):
        return ""
    place = 1 if function in ("open", "os.fdopen", "tarfile.open") else 0
    modes = [*call.args[place : place + 1], *(k.value for k in call.keywords if k.arg == "mode")]
    constants = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
    return str(constants[0]) if constants else ""


@pytest.mark.parametrize(
    "code",
    [
        "open('x', 'w')",
        "path.open('ab', buffering=0)",
        "path.open(mode='x')",
        "os.fdopen(1, 'wb')",
        "path.write_text('')",
        "os.write(1, b'')",
        "write_json(path, {})",
    ],
)
def test_the_search_for_writes_sees(code: str) -> None:
    assert len(writes(ast.parse(code))) == 1


def test_reading_a_file_is_free() -> None:
    assert writes(ast.parse("open('x')\npath.open('rb')\npath.open(encoding='utf-8')")) == []


def test_every_file_that_writes_is_known_with_what_it_writes() -> None:
    found = {file for file, tree in FILES.items() if writes(tree)}
    assert found - WRITERS.keys() == set(), "one file writes results; say what this one writes"
    assert WRITERS.keys() - found == set(), "no longer true"


def test_only_the_store_names_results_files() -> None:
    """Their suffix stands nowhere else, and only these open the store's writer."""
    named = {
        file
        for file, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ".jsonl" in node.value
    }
    assert named == {"harness/store.py"}
    users = {file for file, tree in FILES.items() if "harness.store.SessionWriter" in imports(tree)}
    assert users == {"harness/runner.py", "harness/asv.py"}
