"""The JSON form of a record: a line of a results file, its validation, and the JSON Schema.

A line is strict JSON with a `digest`: the first 16 hex digits of the SHA-256 of the line's
canonical JSON without it. Knows no files; `python -m harness.schema_json` prints the schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import NewerSchemaError, ResultsError
from harness.metrics import METRICS, derive
from harness.schema import SCHEMA_VERSION, STATUSES, Run, Session

if TYPE_CHECKING:
    from pydantic import TypeAdapter

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    # Versions 2 and 3 only add fields that have a default.
    1: lambda fields: fields,
    2: lambda fields: fields,
    3: lambda fields: _without_interval_rule(fields),
    4: lambda fields: fields,  # without energy, which is then absent
    5: lambda fields: fields,  # without a watched accelerator
    6: lambda fields: _with_loss_scaling(fields),
    7: lambda fields: _with_accelerators(fields),
    8: lambda fields: fields,  # without an exchange between devices
    9: lambda fields: fields,  # without the norms of vectors' gradients
}
"""For each older schema version, what turns its line into one of the next version."""


def _without_interval_rule(fields: dict[str, Any]) -> dict[str, Any]:
    """Before version 4 the budget alone ended the timed blocks."""
    protocol = fields.get("protocol")
    if not isinstance(protocol, dict):
        return fields  # validation says what is wrong
    return fields | {"protocol": {"interval_width": 0.0} | protocol}


def _with_loss_scaling(fields: dict[str, Any]) -> dict[str, Any]:
    """Before version 7 the numerics held the loss scale and the skipped steps of all epochs."""
    numerics = fields.get("numerics")
    if not isinstance(numerics, dict) or "loss_scale_final" not in numerics:
        return fields
    kept = {**numerics}
    try:
        found = {
            "final_scale": float(kept.pop("loss_scale_final")),
            "train_skipped_steps": int(kept.pop("loss_scale_skipped_steps")),
        }
    except (KeyError, TypeError, ValueError):
        return fields  # not as Epochmark wrote it: it stays what it is, a text among the numerics
    return fields | {"numerics": kept, "loss_scaling": found}


def _with_accelerators(fields: dict[str, Any]) -> dict[str, Any]:
    """Before version 8 only the first accelerator was watched."""
    kept = {name: value for name, value in fields.items() if name != "accelerator"}
    if fields.get("kind") == "session" or len(kept) == len(fields):
        return kept
    first = fields["accelerator"]
    return kept | {"accelerators": [] if first is None else [first]}


@dataclass(frozen=True)
class Line:
    """A line's fields without its digest, as JSON too; does its digest fit them?"""

    fields: dict[str, Any]
    text: bytes
    intact: bool


class InvalidLineError(Exception):
    """A line that is JSON but not a valid record; the text says which field and why."""


def decode(line: bytes) -> Line:
    """A line's fields; ValueError for anything that is not strict JSON."""
    return _intact(line) or _decoded(line)


def _intact(line: bytes) -> Line | None:
    """The line where its digest fits, three times as fast as `_decoded`; None where that must tell.

    Whatever msgspec may do otherwise than Python shows in the digest.
    """
    tools = _tools()
    try:
        found = tools.read(line)
        if not isinstance(found, dict):
            return None
        digest = found.pop("digest", None)
        text = _as_python_writes(tools.encode(found))
    except tools.errors:
        return None
    return Line(found, text, intact=True) if _short(text) == digest else None


def _as_written(line: bytes) -> Run | None:
    """The run of a line that is what `encode` makes of it; None for any other line.

    It takes half the time of `_intact` and pydantic. A field that is unknown here is overlooked,
    but then the line is longer than what the digest is of.
    """
    tools = _tools()
    try:
        run = tools.read_run(line)
        text = _as_python_writes(tools.encode(run))
    except tools.errors:
        return None
    end = b',"digest":"%b"}' % _short(text).encode()
    whole = line.endswith(end) and len(line) == len(text) - 1 + len(end)
    ours = run.kind == "run" and run.schema_version == SCHEMA_VERSION
    return run if whole and ours else None


class _Tools(NamedTuple):
    """What msgspec decodes and encodes lines with, and what it raises."""

    read: Callable[[bytes], Any]
    read_run: Callable[[bytes], Run]
    encode: Callable[[Any], bytes]
    errors: tuple[type[Exception], ...]


@cache
def _tools() -> _Tools:
    import msgspec  # here, because a worker's environment has no use for it

    return _Tools(
        msgspec.json.Decoder().decode,
        msgspec.json.Decoder(Run).decode,
        msgspec.json.Encoder(order="sorted").encode,
        (msgspec.MsgspecError, ValueError, OverflowError, RecursionError),
    )


def _as_python_writes(text: bytes) -> bytes:
    """msgspec's JSON, which has a form of its own for small numbers, in the canonical one."""
    text = _ONE_DIGIT.sub(rb"e-0\1", text)
    if b"0.0000" in text:  # which is found sooner than the pattern
        text = _SMALL.sub(_with_exponent, text)
    return text


_ONE_DIGIT = re.compile(rb"e-(\d)(?!\d)")
_SMALL = re.compile(rb"0\.0000(\d)(\d*)")


def _with_exponent(found: re.Match[bytes]) -> bytes:
    """0.000012 as Python writes it: 1.2e-05."""
    first, rest = found.groups()
    return first + (b"." + rest if rest else b"") + b"e-05"


def _decoded(line: bytes) -> Line:
    """Any line, by Python's own reader and writer, which define the canonical form."""
    try:
        found = json.loads(line.decode(), parse_constant=_no_constant)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        digest = found.pop("digest", None)
        # The canonical form also refuses numbers beyond the range of a float.
        canonical = _canonical(found)
        text = canonical.encode(errors="replace")
        return Line(found, text, intact=digest == _digest(canonical))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _upgraded(line: Line, name: str) -> Line:
    """A line in this schema version; NewerSchemaError if the file `name` is from a later one."""
    version = line.fields.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InvalidLineError(
            f"field 'schema_version' should be a positive integer, found {version!r}"
        )
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{name} was written by a later Epochmark (schema {version}; this one reads up to "
            f"{SCHEMA_VERSION}). Upgrade Epochmark to read it."
        )
    if version == SCHEMA_VERSION:
        return line
    found = line.fields
    for step in range(version, SCHEMA_VERSION):
        found = UPGRADES[step](found)
    return Line(found, _text(found), line.intact)


def _text(found: dict[str, Any]) -> bytes:
    """Any JSON of the fields: msgspec's takes a quarter of the time, which older lines all need."""
    tools = _tools()
    try:
        return tools.encode(found)
    except tools.errors:  # a number beyond 64 bits, or half a character
        return _canonical(found).encode(errors="replace")


def session_of(line: bytes, name: str) -> tuple[Session, bool]:
    """The header that a line of the file `name` holds, and whether its digest fits.

    ValueError for what is not strict JSON, InvalidLineError for what is not a header.
    """
    found = _upgraded(decode(line), name)
    _expect_kind(found.fields, "session")
    return _validate(found, Session), found.intact


def run_of(line: bytes, session: Session, name: str) -> tuple[Run, bool]:
    """The run that a line of the file `name` holds, and whether its digest fits.

    ValueError for what is not strict JSON, InvalidLineError for what is not a run of the session.
    """
    run, intact = _as_written(line), True
    if run is None:
        found = _upgraded(decode(line), name)
        _expect_kind(found.fields, "run")
        run, intact = _validate(found, Run), found.intact
    _check(run, session)
    return run, intact


def _check(run: Run, session: Session) -> None:
    """Raises InvalidLineError for values that no type excludes."""
    if run.session != session.session:
        raise InvalidLineError(
            f"field 'session' should be {session.session!r}, found {run.session!r}"
        )
    if run.status not in STATUSES:
        raise InvalidLineError(
            f"field 'status' should be one of {', '.join(STATUSES)}, found {run.status!r}"
        )
    for name in ("warmup", "steady", "infer"):
        for place, block in enumerate(getattr(run.samples, name)):
            if block.steps < 1 or block.seconds <= 0:
                raise InvalidLineError(
                    f"field 'samples.{name}.{place}' should hold positive numbers"
                )
    for place, epoch in enumerate(run.samples.epochs):
        if epoch.train_s <= 0:
            raise InvalidLineError(f"field 'samples.epochs.{place}.train_s' should be positive")
    for place, seconds in enumerate(run.samples.infer_latency_s):
        if seconds <= 0:
            raise InvalidLineError(f"field 'samples.infer_latency_s.{place}' should be positive")
    exchange = run.samples.exchange
    if exchange is not None and (exchange.seconds <= 0 or exchange.exchange_s < 0):
        raise InvalidLineError("field 'samples.exchange' should hold positive numbers")
    if run.energy is not None and min(run.energy.epochs_j, default=0.0) < 0:
        raise InvalidLineError("field 'energy.epochs_j' should hold no negative numbers")
    for name in ("replicate", "seed", "batch_size"):
        if not -(2**63) <= getattr(run, name) < 2**63:
            raise InvalidLineError(f"field {name!r} is beyond 64 bits")


def figures_of(run: Run) -> dict[str, float]:
    """Every metric of the run, computed from its samples; InvalidLineError where one is beyond
    what tables can hold: an edited line must not end the reading of all others.
    """
    try:
        found = derive(run)
    except ArithmeticError:
        found = {"": inf}
    if not all(map(isfinite, found.values())):
        raise InvalidLineError("its samples are beyond what metrics can be computed from")
    return found


def _expect_kind(found: dict[str, Any], kind: str) -> None:
    if found.get("kind") != kind:
        raise InvalidLineError(f"field 'kind' should be {kind!r}, found {found.get('kind')!r}")


def _validate(line: Line, kind: type[Any]) -> Any:
    from pydantic import ValidationError

    try:
        # From JSON text, because only there does the strict mode take lists for tuples.
        return _adapters()[kind].validate_json(b"[%b]" % line.text)[0]
    except ValidationError as error:
        raise InvalidLineError(_first_problem(error.errors(include_url=False))) from error


def _first_problem(problems: Sequence[Any]) -> str:
    unknown = [problem for problem in problems if problem["type"] == "unexpected_keyword_argument"]
    problem = (unknown or problems)[0]
    name = ".".join(str(part) for part in problem["loc"][1:])
    if unknown:
        return f"field {name!r} is unknown"
    if problem["type"] == "missing":
        return f"field {name!r} is missing"
    message = problem["msg"].removeprefix("Input ")
    shown = repr(problem["input"])
    return f"field {name!r} {message}, found {shown if len(shown) <= 40 else shown[:37] + '...'}"


@cache
def _adapters() -> dict[type[Any], TypeAdapter[Any]]:
    # Imported here because pydantic takes longer to import than a command that reads nothing.
    # The tuples are there to hand the configuration down: a dataclass inside inherits it.
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return {
        Session: TypeAdapter(tuple[Session], config=config),
        Run: TypeAdapter(tuple[Run], config=config),
    }


def _canonical(found: Any) -> str:
    return json.dumps(
        found, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def _digest(canonical: str) -> str:
    return _short(canonical.encode(errors="replace"))


def _short(text: bytes) -> str:
    return sha256(text).hexdigest()[:16]


def encode(record: Session | Run) -> bytes:
    """The record's line. A lone surrogate, as in a worker's undecodable output, becomes `?`."""
    found = asdict(record)
    try:
        found["digest"] = _digest(_canonical(found))
    except ValueError as error:
        name = record.run if isinstance(record, Run) else record.session
        raise ResultsError(
            f"{record.kind.capitalize()} {name!r} cannot be written: field {_non_finite(found)!r} "
            "is not a finite number. Leave it out of the record."
        ) from error
    text = json.dumps(found, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode(errors="replace") + b"\n"


def _non_finite(found: Any, name: str = "") -> str:
    """The dotted name of the first number that JSON cannot hold."""
    if isinstance(found, float):
        return "" if found - found == 0 else name.lstrip(".")
    parts: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(found, dict):
        parts = iter(found.items())
    elif isinstance(found, (list, tuple)):
        parts = iter(enumerate(found))
    return next(filter(None, (_non_finite(part, f"{name}.{key}") for key, part in parts)), "")


def schema_json() -> dict[str, Any]:
    """The JSON Schema of a line of a results file, and the table of metrics."""
    from pydantic import TypeAdapter

    _, schema = TypeAdapter.json_schemas(
        [(kind.__name__, "validation", TypeAdapter[Any](kind)) for kind in (Session, Run)]
    )
    definitions: dict[str, Any] = schema["$defs"]
    for definition in definitions.values():
        definition["additionalProperties"] = False
        for field in definition["properties"].values():
            field.pop("title", None)
    for name in ("Session", "Run"):
        _add_line_fields(definitions[name], kind=name.lower())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of an Epochmark results file",
        "description": "The first line is a Session, every other line a Run.",
        "schema_version": SCHEMA_VERSION,
        "oneOf": [{"$ref": "#/$defs/Session"}, {"$ref": "#/$defs/Run"}],
        "$defs": definitions,
        "metrics": {
            metric.name: {
                "unit": metric.unit,
                "direction": metric.direction,
                "definition": metric.definition,
            }
            for metric in METRICS.values()
        },
    }


def _add_line_fields(definition: dict[str, Any], *, kind: str) -> None:
    fields = definition["properties"]
    fields["kind"] = {"const": kind}
    fields["schema_version"] = {"type": "integer", "minimum": 1, "maximum": SCHEMA_VERSION}
    fields["digest"] = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
    if "status" in fields:
        fields["status"] = {"enum": list(STATUSES)}
    definition["required"] += ["kind", "schema_version", "digest"]


def schema_text() -> str:
    """The content of results/schema.json."""
    return json.dumps(schema_json(), indent=1) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
