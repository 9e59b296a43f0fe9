"""Money, against cases worked by hand."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from harness.break_even import AGAINST, BREAK_EVEN, with_break_even
from harness.cost import Cost, break_even, cost_usd
from harness.errors import UsageError
from harness.metrics import METRICS, PRICED, derive
from harness.reprice import Wish, repriced, wish
from harness.schema import Block, Epoch, Samples
from harness.show import show
from harness.summary import summary
from harness.table import load_table
from tests.records import CELL, PRICE, make_run, write_session


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")


def test_money_is_exact_where_binary_fractions_are_not() -> None:
    assert cost_usd(3600, 0.1) == Decimal("0.1")
    assert cost_usd(1800, 0.403216) == Decimal("0.201608")
    # 0.1 h and 0.2 h at a dollar make 0.3 dollars, which floats miss.
    assert cost_usd(360, 1.0) + cost_usd(720, 1.0) == Decimal("0.3")
    assert 0.1 + 0.2 != 0.3


def cost(fixed: str, epoch: str) -> Cost:
    return Cost(Decimal(fixed), Decimal(epoch))


@pytest.mark.parametrize(
    ("one", "other", "epochs"),
    [
        # 0.30 more to start, 0.10 saved an epoch: even after 3.
        (cost("0.50", "0.10"), cost("0.20", "0.20"), 3),
        # 0.31 more: after 4, since there is no part of an epoch.
        (cost("0.51", "0.10"), cost("0.20", "0.20"), 4),
        (cost("0.10", "0.10"), cost("0.20", "0.20"), 0),
        (cost("0.50", "0.20"), cost("0.20", "0.10"), None),
        (cost("0.50", "0.20"), cost("0.20", "0.20"), None),
        (cost("0.20", "0.20"), cost("0.20", "0.20"), 0),
    ],
)
def test_break_even(one: Cost, other: Cost, epochs: int | None) -> None:
    assert break_even(one, other) == epochs
    if epochs:
        assert one.of(epochs) <= other.of(epochs)
        assert one.of(epochs - 1) > other.of(epochs - 1)


def test_every_cost_of_a_run_by_hand() -> None:
    """At 3.60 USD an hour a second costs a thousandth of a dollar."""
    run = make_run(
        price=replace(PRICE, usd_per_hour=3.6),
        batch_size=50,
        stages={"start": 4.0},
        quality_target=0.5,
        samples=Samples(
            first_step_s=1.5,
            steady=(Block(10, 5.0),),
            epochs=(
                Epoch(20, 12.0, 1.0, 0.5, {"HR@10": 0.4}),
                Epoch(20, 10.0, 1.0, 0.4, {"HR@10": 0.6}),
            ),
        ),
    )
    found = derive(run)
    assert {name: found[name] for name in PRICED if name in found} == {
        "cost_per_epoch_usd": 0.010,  # 10 s
        "cost_per_million_examples_usd": 10.0,  # 10 s for 1,000 examples: 10,000 s
        "fixed_cost_usd": 0.005,  # 4 s, and 1.5 s less a step of 0.5 s
        "cost_to_quality_usd": 0.024,  # 13 s and 11 s
    }


def test_inference_by_hand() -> None:
    """50 examples in 0.1 s: a thousand take 2 s."""
    samples = Samples(first_step_s=1.1, infer=(Block(10, 1.0),), infer_latency_s=(0.01,))
    run = make_run(
        cell=CELL.replace("train", "infer"),
        price=replace(PRICE, usd_per_hour=3.6),
        batch_size=50,
        samples=samples,
    )
    assert derive(run)["cost_per_thousand_inferences_usd"] == 0.002
    assert "cost_per_epoch_usd" not in derive(run)


def test_every_metric_in_dollars_says_what_it_pays_for() -> None:
    assert {name for name, metric in METRICS.items() if metric.unit == "USD"} == set(PRICED)


def rows(*pairs: tuple[str, float, float]) -> pd.DataFrame:
    """A row per backend with its start-up time and the seconds of an epoch."""
    runs = [
        make_run(
            run=backend,
            cell=CELL.replace("jax", backend),
            stages={"start": start},
            samples=Samples(
                first_step_s=0.1, steady=(Block(1, 0.1),), epochs=(Epoch(1, epoch, 0.0, 0.5, {}),)
            ),
        )
        for backend, start, epoch in pairs
    ]
    write_session(Path("results"), *runs)
    return load_table(Path("results")).frame


def test_break_even_is_held_against_the_cheapest_start() -> None:
    frame = rows(("torch", 2.0, 3.0), ("jax", 7.0, 1.0), ("tensorflow", 4.0, 3.5))
    found = with_break_even(summary(frame)).set_index("backend")
    assert set(found[AGAINST]) == {CELL.replace("jax", "torch")}
    assert found.loc["jax", BREAK_EVEN] == 3  # 5 s more, 2 s saved each: 2.5
    assert found[BREAK_EVEN].isna().to_dict() == {"tensorflow": True, "jax": False, "torch": True}
    lines = show(frame, output="table", view="costs").splitlines()
    said = {line.split()[1]: line for line in lines if line.startswith("recommender")}
    assert " never" in said["tensorflow"]
    assert " 3 epochs" in said["jax"]
    assert " never" not in said["torch"]
    assert " epochs" not in said["torch"]


def test_a_disturbed_row_breaks_even_with_none() -> None:
    frame = rows(("torch", 2.0, 3.0), ("jax", 7.0, 1.0), ("tensorflow", 4.0, 3.5))
    found = with_break_even(
        summary(frame).assign(contended=lambda one: one["backend"] == "torch")
    ).set_index("backend")
    assert found.loc["torch", AGAINST] == ""
    assert found.loc["jax", AGAINST] == CELL.replace("jax", "tensorflow")


def test_the_interval_of_a_cost_is_that_of_its_time() -> None:
    runs = [
        make_run(
            run=f"r{number}",
            replicate=number,
            samples=Samples(epochs=(Epoch(1, seconds, 0.0, 0.5, {}),)),
        )
        for number, seconds in enumerate((1.0, 1.1, 0.9))
    ]
    write_session(Path("results"), *runs)
    (_, row), *_ = summary(load_table(Path("results")).frame).iterrows()
    rate = PRICE.usd_per_hour / 3600
    for end in ("low", "high"):
        expected = row[f"epoch_time_{end}_s"] * rate
        assert row[f"cost_per_epoch_{end}_usd"] == pytest.approx(expected)
    assert (
        row["cost_per_epoch_low_usd"] < row["cost_per_epoch_usd"] < row["cost_per_epoch_high_usd"]
    )


# Priced again


BOOK = {
    price.id: price
    for price in (
        PRICE,
        replace(PRICE, id=PRICE.id.replace("on-demand", "spot"), kind="spot", usd_per_hour=0.1),
        replace(
            PRICE,
            id=PRICE.id.replace("us-central1", "us-east4"),
            region="us-east4",
            usd_per_hour=0.5,
        ),
        replace(PRICE, id="aws:m:here:spot", provider="aws", instance="m", usd_per_hour=3.6),
    )
}


@pytest.mark.parametrize(
    ("wish", "rate", "kind"),
    [
        (Wish(), 0.403216, "on-demand"),
        (Wish(kind="spot"), 0.1, "spot"),
        (Wish(region="us-east4"), 0.5, "on-demand"),
        (Wish(price="aws:m:here:spot"), 3.6, "on-demand"),
    ],
)
def test_old_runs_at_other_prices(wish: Wish, rate: float, kind: str) -> None:
    frame = rows(("torch", 2.0, 3.0), ("jax", 7.0, 1.0))
    before = frame.copy()
    found, notices = repriced(frame, BOOK, wish)
    assert notices == []
    for _, row in found.iterrows():
        assert row["cost_per_epoch_usd"] == float(cost_usd(row["epoch_time_s"], rate))
        start = row["startup_time_s"] + row["compile_time_s"]
        assert row["fixed_cost_usd"] == float(cost_usd(start, rate))
        assert (row["price_usd_per_hour"], row["price_kind"]) == (rate, kind)
    pd.testing.assert_frame_equal(frame, before)
    assert f"{rate:.10g} USD/h" in " ".join(show(found, output="table", view="costs").split())


def test_the_same_price_gives_the_same_costs() -> None:
    frame = rows(("torch", 2.0, 3.0), ("jax", 7.0, 1.0))
    found, _ = repriced(frame, BOOK, Wish())
    for name in PRICED:
        pd.testing.assert_series_equal(found[name], frame[name], check_exact=True)


def test_a_price_that_is_not_in_the_book_is_told_with_those_that_are() -> None:
    frame = rows(("torch", 2.0, 3.0))
    with pytest.raises(UsageError) as caught:
        repriced(frame, BOOK, Wish(region="mars"))
    assert str(caught.value) == (
        "There is no price 'gcp:c3-standard-8:mars:on-demand'. Of gcp c3-standard-8 there are: "
        "us-central1 on-demand, us-central1 spot, us-east4 on-demand."
    )


def test_an_unknown_price_and_one_that_was_edited_are_told() -> None:
    frame = rows(("torch", 2.0, 3.0))
    with pytest.raises(UsageError, match="Unknown price 'nope'"):
        repriced(frame, BOOK, Wish(price="nope"))
    edited = frame.assign(price="odd")
    with pytest.raises(UsageError, match="There is no price 'odd', nor another of that instance"):
        repriced(edited, BOOK, Wish(kind="spot"))


def test_runs_without_a_price_keep_their_rows_and_are_told() -> None:
    write_session(
        Path("results"),
        make_run(run="r1"),
        make_run(run="r2", cell=CELL.replace("jax", "torch"), price=None),
    )
    found, notices = repriced(load_table(Path("results")).frame, BOOK, Wish(kind="spot"))
    assert notices == ["Some runs were measured without a price: name one with --price ID."]
    assert found["cost_per_epoch_usd"].isna().tolist() == [False, True]
    named, notices = repriced(load_table(Path("results")).frame, BOOK, Wish(price=PRICE.id))
    assert notices == []
    assert named["cost_per_epoch_usd"].notna().all()


def test_a_price_and_a_part_of_one_contradict() -> None:
    with pytest.raises(UsageError, match="--price names one price; leave out --region"):
        wish("a", "b", None)


def test_a_gpus_cells_have_no_cost_at_the_price_of_a_processor() -> None:
    write_session(Path("results"), make_run(), make_run(run="g", cell=CELL.replace("/cpu", "/gpu")))
    frame = load_table(Path("results")).frame
    again, notices = repriced(frame, {PRICE.id: PRICE}, wish(None, None, None))
    assert again.set_index("device")["cost_per_epoch_usd"].isna().to_dict() == {
        "cpu": False, "gpu": True
    }  # fmt: skip
    assert notices == [f"gpu cells have no cost: {PRICE.id} has {PRICE.accelerator}."]


@pytest.mark.parametrize("column", ["price", "protocol", "workload_version"])
def test_what_was_priced_or_measured_otherwise_breaks_even_with_none(column: str) -> None:
    frame = rows(("torch", 2.0, 3.0), ("jax", 7.0, 1.0))
    table = summary(frame)
    table[column] = table[column].astype(str) + table["backend"].astype(str)
    assert with_break_even(table)[BREAK_EVEN].isna().all()
