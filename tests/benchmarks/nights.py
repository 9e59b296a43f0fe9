"""Three years of made-up nights, from the committed rows: what a long history looks like.

`python -m tests.benchmarks.nights FOLDER [ROWS]` writes a results folder: eighteen cells with five
processes each a night: their figures move by the night and by the process, packages are replaced
every two months, now and then a process fails or is disturbed, and some cells have a lasting step.
"""

from __future__ import annotations

import json
import pickle
import random
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.schema import SCHEMA_VERSION
from harness.schema_json import encode
from harness.store import read_file, results_files

ROOT = Path(__file__).parents[2]
CELLS, REPLICATES = 18, 5
START = datetime(2024, 1, 1, 2, 17, tzinfo=UTC)
STEP = 1.08

Fields = dict[str, Any]


def templates() -> tuple[Fields, list[Fields]]:
    """A session's header and the newest committed run of each of the chosen cells."""
    header: Fields = {}
    runs: dict[str, Fields] = {}
    for path in results_files(ROOT / "results"):
        found = read_file(path)
        header = json.loads(encode(replace(found.session, schema_version=SCHEMA_VERSION)))
        for run in found.runs:
            _, scale, _, _, precision, style, _ = run.cell.split("/")
            plain = (scale, precision, style) == ("smoke", "float32", "functional")
            if plain and run.status == "ok":
                runs[run.cell] = json.loads(encode(replace(run, schema_version=SCHEMA_VERSION)))
    chosen = sorted(runs.values(), key=lambda run: ("/infer/" in run["cell"], run["cell"]))
    return header, chosen[:CELLS]


def write_nights(results: Path, rows: int) -> None:
    """So many rows in whole nights, at least.

    Raises:
        FileExistsError: If the folder has runs already, which would be counted with these.
    """
    (results / "runs").mkdir(parents=True)
    header, cells = templates()
    draw = random.Random(0)
    for night in range(-(-rows // (len(cells) * REPLICATES))):
        started = START + timedelta(days=night)
        stamp = f"{started:%Y%m%dT%H%M%SZ}"
        commit = sha256(str(night // 3).encode()).hexdigest()[:12]
        session = {
            "session": f"{stamp}-{commit[:6]}",
            "started_at": f"{started:%Y-%m-%dT%H:%M:%SZ}",
            "suite_commit": commit,
        }
        drift = draw.gauss(1.0, 0.01)
        lines = [_line(header | session | {"plan": "nightly", "replicates": REPLICATES})]
        for number in range(len(cells) * REPLICATES):
            place = number % len(cells)
            step = STEP if night > 300 + 40 * place and place % 4 == 0 else 1.0
            factor = drift * step * draw.lognormvariate(0.0, 0.02)
            run = _changed(cells[place], factor, draw)
            run |= session | {
                "run": f"{session['session']}-{number:04}",
                "replicate": number // len(cells),
                "started_at": f"{started + timedelta(seconds=40 * number):%Y-%m-%dT%H:%M:%SZ}",
            }
            run["environment"]["packages"]["keras"] = f"3.{night // 60}.0"
            lines.append(_line(run))
        path = results / "runs" / header["environment"]["machine"] / f"{stamp}-{commit[:7]}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(lines))


def _changed(template: Fields, factor: float, draw: random.Random) -> Fields:
    run: Fields = pickle.loads(pickle.dumps(template))  # several times as fast as deepcopy
    if draw.random() < 0.005:
        return run | {"status": "error", "reason": "made up", "samples": {}, "metrics": {}}
    samples = run["samples"]
    for block in (*samples["warmup"], *samples["steady"], *samples["infer"]):
        block["seconds"] *= factor * draw.lognormvariate(0.0, 0.01)
    for epoch in samples["epochs"]:
        epoch["train_s"] *= factor
    samples["infer_latency_s"] = [value * factor for value in samples["infer_latency_s"]]
    run["contention"]["contended"] = draw.random() < 0.01
    return run


def _line(fields: Fields) -> bytes:
    fields.pop("digest", None)
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = sha256(canonical.encode()).hexdigest()[:16]
    return json.dumps(fields | {"digest": digest}, separators=(",", ":")).encode() + b"\n"


if __name__ == "__main__":
    write_nights(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
