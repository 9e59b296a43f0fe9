"""The price book: money has provenance, and a wrong row is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ResultsError, UsageError
from harness.prices import COLUMNS, configured_price, find_price, read_prices
from harness.schema import Price

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
