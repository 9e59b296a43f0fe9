"""The price book: money has provenance, and a wrong row is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.catalogues import CATALOGUES, import_prices
from harness.errors import ResultsError, UsageError
from harness.prices import (
    COLUMNS,
    configured_price,
    covers,
    find_price,
    read_prices,
    read_snapshot,
)
from harness.schema import Price
from tests.records import PRICE

RESULTS = Path(__file__).parents[1] / "results"
ROW = {
    "id": "aws:m:here:spot",
    "accelerator": "T4",
    "count": "2",
    "vcpu": "",
    "memory_gib": "",
    "provider": "aws",
    "instance": "m",
    "region": "here",
    "kind": "spot",
    "usd_per_hour": "0.5",
    "currency": "USD",
    "source": "a list",
    "source_licence": "MIT",
    "as_of": "2026-08-03",
    "note": "",
}


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def snapshot(name: str, *rows: dict[str, str]) -> Path:
    """A price book with one more snapshot."""
    folder = Path("results/prices")
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join(COLUMNS), *(",".join((ROW | row).values()) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n")
    return Path("results")


def test_the_committed_price_book_is_valid() -> None:
    prices = read_prices(RESULTS)
    assert len(prices) >= 30
    assert prices["gcp:c3-standard-8:us-central1:on-demand"] == Price(
        id="gcp:c3-standard-8:us-central1:on-demand",
        usd_per_hour=0.403216,
        accelerator="CPU 8 vCPU",
        provider="gcp",
        instance="c3-standard-8",
        region="us-central1",
        kind="on-demand",
        as_of="2026-08-03",
        source="cloudpilot-ai/karpenter-provider-gcp",
        snapshot="2026-08.csv",
    )
    assert prices["aws:p5.48xlarge:us-east-1:on-demand"].accelerator == "8x H100 80GB"
    assert prices["azure:F8s_v2:eastus:spot"].as_of == "2026-09-06"
    assert prices["gcp:v6e-1:us-central1:spot"].as_of == "undated"
    june = read_prices(RESULTS, "2026-06-29")["gcp:c3-standard-8:us-central1:spot"]
    assert (june.usd_per_hour, june.as_of) == (0.0896, "2026-06-29")


def test_the_newest_snapshot_wins() -> None:
    other = {"id": "aws:m:there:spot", "region": "there"}
    snapshot("2026-08.csv", {}, other)
    results = snapshot("2026-11.csv", {"usd_per_hour": "0.75"})
    prices = read_prices(results)
    assert (prices["aws:m:here:spot"].usd_per_hour, prices["aws:m:here:spot"].snapshot) == (
        0.75,
        "2026-11.csv",
    )
    assert prices["aws:m:there:spot"].snapshot == "2026-08.csv"


def test_a_day_is_newer_than_the_file_of_its_month() -> None:
    results = snapshot("2026-08-30.csv", {"usd_per_hour": "0.9"})
    snapshot("2026-08.csv", {})
    assert read_prices(results)["aws:m:here:spot"].usd_per_hour == 0.9


@pytest.mark.parametrize(
    ("accelerator", "device", "covered"),
    [
        ("CPU 8 vCPU", "cpu", True), ("CPU 8 vCPU", "cpu-x2", True), ("CPU 8 vCPU", "gpu", False),
        ("CPU", "tpu", False), ("1x T4", "cpu", True), ("1x T4", "gpu", True),
        ("1x T4", "gpu-x2", False), ("8x H100 80GB", "gpu-x8", True),
    ],
)  # fmt: skip
def test_a_price_is_of_a_machine_with_enough_accelerators(
    accelerator: str, device: str, covered: bool
) -> None:
    assert covers(replace(PRICE, accelerator=accelerator), device) == covered


def test_an_unknown_price() -> None:
    with pytest.raises(UsageError) as caught:
        find_price("x", snapshot("2026-08.csv", {}))
    assert str(caught.value) == "Unknown price 'x'. `epochmark prices` lists the known ids."


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"usd_per_hour": "-1"}, "usd_per_hour is '-1'; expected a positive number"),
        ({"usd_per_hour": "inf"}, "usd_per_hour is 'inf'; expected a positive number"),
        ({"usd_per_hour": "free"}, "usd_per_hour is 'free'; expected a positive number"),
        ({"kind": "reserved"}, "kind is 'reserved'; expected on-demand or spot"),
        ({"currency": "EUR"}, "currency is 'EUR'; expected USD"),
        (
            {"as_of": "20260803"},
            "as_of is '20260803'; expected a date such as 2026-08-03, or undated",
        ),
        ({"as_of": ""}, "as_of is ''; expected a date such as 2026-08-03, or undated"),
        ({"vcpu": "2.5"}, "vcpu is '2.5'; expected a whole number or nothing"),
        ({"source": ""}, "source is ''; expected a text"),
        ({"region": "there"}, "id is 'aws:m:here:spot'; expected aws:m:there:spot"),
        (
            {"usd_per_hour": "700"},
            "usd_per_hour is '700'; expected at most 200, that is 100 for each accelerator",
        ),
    ],
)
def test_a_wrong_row_is_named(row: dict[str, str], problem: str) -> None:
    with pytest.raises(ResultsError) as caught:
        read_prices(snapshot("2026-08.csv", {"id": "aws:n:here:spot", "instance": "n"}, row))
    assert str(caught.value) == f"results/prices/2026-08.csv, line 3: {problem}. Correct the row."


def test_a_row_that_is_twice_or_of_the_wrong_length_is_named() -> None:
    with pytest.raises(
        ResultsError, match="line 3: id is 'aws:m:here:spot'; expected an id of its own"
    ):
        read_prices(snapshot("2026-08.csv", {}, {}))
    with pytest.raises(ResultsError, match=r"line 2: row is .*; expected 15 fields"):
        read_prices(snapshot("2026-08.csv", {"note": "one,two"}))


def test_spot_above_on_demand_is_named() -> None:
    full = {"id": "aws:m:here:on-demand", "kind": "on-demand", "usd_per_hour": "0.4"}
    with pytest.raises(ResultsError) as caught:
        read_prices(snapshot("2026-08.csv", {}, full))
    assert str(caught.value) == (
        "results/prices/2026-08.csv: the spot price 'aws:m:here:spot' is 0.5, above the 0.4 on "
        "demand. Correct the row."
    )
    assert len(read_prices(snapshot("2026-08.csv", {}, full | {"usd_per_hour": "0.5"}))) == 2


def test_one_snapshot_of_several() -> None:
    snapshot("2026-08.csv", {})
    results = snapshot("2026-11.csv", {"usd_per_hour": "0.75"})
    for name in ("2026-08", "2026-08.csv"):
        assert read_prices(results, name)["aws:m:here:spot"].usd_per_hour == 0.5
    with pytest.raises(UsageError) as caught:
        read_prices(results, "2027")
    assert str(caught.value) == (
        "Unknown price snapshot '2027'. Known price snapshots: 2026-08, 2026-11."
    )


KARPENTER = {
    "prices": {"here": {"on_demand": {"m": 2.0, "other": 1.0}, "spot": {"m": 0.6500000001}}}
}
SKYPILOT = """InstanceType,AcceleratorName,AcceleratorCount,Price,SpotPrice,Region,AvailabilityZone
m,,,2.0,0.7,here,a
m,,,2.0,0.65,here,b
g,,,1.0,0.40,here,b
,T4,1,0.3,0.1,here,a
,tpu-v5e-1,1,1.2,,here,a
"""


def book() -> Path:
    gcp = {"id": "gcp:m:here:spot", "provider": "gcp", "note": "old"}
    gcp |= {"accelerator": "CPU", "count": "0"}
    gpu = {"id": "gcp:g:here:spot", "provider": "gcp", "instance": "g"}
    tpu = gpu | {"id": "gcp:v5e-1:here:on-demand", "instance": "v5e-1", "kind": "on-demand"}
    return snapshot("2026-08.csv", {}, gcp, gpu, tpu | {"accelerator": "TPU v5e"})


@pytest.mark.parametrize(
    ("catalogue", "content", "found"),
    [
        ("karpenter-gcp", json.dumps(KARPENTER), {"gcp:m:here:spot": "0.650000"}),
        # The cheapest zone; a GPU's row is no whole machine, nor is that of the machine without
        # it; a TPU's is.
        (
            "skypilot-gcp",
            SKYPILOT,
            {"gcp:m:here:spot": "0.650000", "gcp:v5e-1:here:on-demand": "1.200000"},
        ),
        ("skypilot-aws", SKYPILOT, {"aws:m:here:spot": "0.650000"}),
    ],
)
def test_a_catalogue_gives_new_rates_for_what_the_book_has(
    catalogue: str, content: str, found: dict[str, str]
) -> None:
    results = book()
    Path("list").write_text(content)
    target, count = import_prices(Path("list"), catalogue, "2026-09-01", results)
    assert (target.name, count) == ("2026-09-01.csv", len(found))
    rows = {row["id"]: row for row in read_snapshot(target)}
    assert {name: row["usd_per_hour"] for name, row in rows.items()} == found
    for row in rows.values():
        assert (row["as_of"], row["note"]) == ("2026-09-01", "")
        assert row["source"] == CATALOGUES[catalogue].source
    assert {read_prices(results)[name].snapshot for name in found} == {"2026-09-01.csv"}


def test_catalogues_of_one_day_share_a_snapshot_and_nothing_is_written_twice() -> None:
    results = book()
    Path("list").write_text(SKYPILOT)
    import_prices(Path("list"), "skypilot-gcp", "2026-09-01", results)
    target, _ = import_prices(Path("list"), "skypilot-aws", "2026-09-01", results)
    assert len(read_snapshot(target)) == 3
    before = target.read_bytes()
    with pytest.raises(UsageError, match="already has 2 of these prices, 'gcp:m:here:spot' the"):
        import_prices(Path("list"), "skypilot-gcp", "2026-09-01", results)
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("catalogue", "as_of", "content", "text"),
    [
        ("ebay", "2026-09-01", "", "Unknown catalogue 'ebay'. Known catalogues: karpenter-gcp, "),
        ("karpenter-gcp", "soon", "", "--as-of is 'soon'; expected a date such as 2026-08-03."),
        ("karpenter-gcp", "2026-09-01", "{", "list is not a catalogue of that kind (from cloud"),
        ("skypilot-gcp", "2026-09-01", "a,b\n1,2\n", "list is not a catalogue of that kind"),
        ("karpenter-gcp", "2026-09-01", '{"prices": {}}', "list has none of the instances and"),
        (
            "karpenter-gcp",
            "2026-09-01",
            '{"prices": {"here": {"spot": {"m": 700}}}}',
            "Nothing was imported. results/prices/2026-09-01.new, line 2: usd_per_hour is '700",
        ),
    ],
)
def test_a_wrong_import_is_one_sentence_and_leaves_nothing(
    catalogue: str, as_of: str, content: str, text: str
) -> None:
    results = book()
    Path("list").write_text(content)
    with pytest.raises(UsageError) as caught:
        import_prices(Path("list"), catalogue, as_of, results)
    assert str(caught.value).startswith(text)
    assert [path.name for path in (results / "prices").iterdir()] == ["2026-08.csv"]


def test_a_wrong_header_is_named() -> None:
    results = snapshot("2026-08.csv")
    (results / "prices" / "2026-08.csv").write_text("id,price\n")
    with pytest.raises(ResultsError, match=r"2026-08.csv, line 1: the columns should be id,accel"):
        read_prices(results)


def test_the_configured_price_is_the_nearest_files() -> None:
    inner = Path("a/b")
    inner.mkdir(parents=True)
    Path("pyproject.toml").write_text('[tool.epochmark]\nprice = "outer"\n')
    assert configured_price(inner) == "outer"
    Path("a/pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert configured_price(inner) is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            "[tool.epochmark]\nprice = 3\n",
            "The price in [tool.epochmark] of pyproject.toml is 3, not a text. "
            "`epochmark prices` lists the known ids.",
        ),
        ("[tool", "pyproject.toml cannot be read: "),
    ],
)
def test_a_wrong_setting_is_told(content: str, text: str) -> None:
    Path("pyproject.toml").write_text(content)
    with pytest.raises(UsageError) as caught:
        configured_price(Path())
    assert str(caught.value).startswith(text)
