"""The report in a real browser: every page from disk and from a server, in the sizes people have.

Needs Debian's `chromium`, which `.ci/run` installs; no other browser is looked for.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from harness.report.build import build
from tests.records import ENVIRONMENT, PRICE, failed_run, make_run, write_session
from tests.test_asv_pages import HEAD
from tests.test_report import SCRIPT, cell, replicated, timed

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or ""
WIDTHS = (360, 768, 1440)
PAGES = (
    "index.html",
    "tradeoffs.html",
    "compare.html",
    "history.html",
    "cost.html",
    "preflight.html",
    "environment.html",
    "method.html",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Replicated cells, a failure, an older session, and scripts wherever a text may stand."""
    folder = tmp_path_factory.mktemp("report")
    results, out = folder / "results", folder / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHMARK_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        for book in ("prices", "preflight"):
            shutil.copytree(Path(__file__).parents[1] / "results" / book, results / book)
        older = [timed("jax", 0, 0.02, started_at="2026-11-20T10:00:00Z")]
        write_session(results, *older, session="older", started_at="2026-11-20T10:00:00Z")
        failed = failed_run(
            "oom", "killed by the kernel", cell=cell("torch", precision="mixed_float16")
        )
        write_session(results, *replicated(), replace(failed, run="r9"), replicates=5)
        environment = replace(ENVIRONMENT, machine=f"m{SCRIPT}", cpu=SCRIPT)
        changes: dict[str, Any] = {
            "environment": environment, "price": replace(PRICE, instance=SCRIPT, source=SCRIPT),
            "log_tail": SCRIPT, "replay": SCRIPT, "suite_commit": SCRIPT,
            "numerics": {SCRIPT: SCRIPT}, "started_at": "2026-11-21T10:00:00Z",
        }  # fmt: skip
        write_session(
            results,
            make_run(run=f"a{SCRIPT}", **changes),
            make_run(run=f"b{SCRIPT}", cell=cell("torch"), **changes),
            failed_run("error", SCRIPT, run="c", cell=cell("tensorflow"), **changes),
            session=f"s{SCRIPT}",
            started_at="2026-11-21T10:00:00Z",
        )
        build(results, out)
    return out


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[str]:
    """The site on a port of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as driver:
        # A sandbox of its own is refused to root, which continuous integration often runs as.
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """A page that remembers what went wrong in it."""

    def __init__(self, page: Page, base: str) -> None:
        self.page, self.base = page, base
        self.troubles: list[str] = []
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on("pageerror", lambda error: self._note("error", str(error)))
        page.on("request", lambda request: self._asked(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.troubles.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.base, "blob:", "data:")):
            self.troubles.append(f"asked for {url}")

    def open(self, address: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(f"{self.base}/{address}")
        self.page.locator("body[data-ready]").wait_for()


def visit(browser: Browser, base: str, *, width: int = 1440, scheme: Any = "light") -> Visit:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
    )
    return Visit(context.new_page(), base)


def every(site: Path) -> list[str]:
    """Each kind of page: of the cells one that went well, one that failed, one with scripts."""
    cells = sorted(path.relative_to(site).as_posix() for path in site.glob("cell/*.html"))
    overviews = [path.name for path in site.glob("overview-*.html")]
    return [*PAGES, *overviews, cells[0], *(one for one in cells if "float16" in one), cells[-1]]


def numbers_in(cells: Locator) -> list[float]:
    return [float(one.get_attribute("data-v") or "nan") for one in cells.all()]


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", ["disk", "server"])
def test_every_page_at_every_width(
    browser: Browser, site: Path, server: str, place: str, scheme: str
) -> None:
    """No error, no request elsewhere, nothing too wide, no script of the results' own."""
    one = visit(browser, {"disk": site.as_uri(), "server": server}[place], scheme=scheme)
    for address in every(site):
        one.page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        one.open(address)
        for width in WIDTHS:
            one.page.set_viewport_size({"width": width, "height": 900})
            assert overflow(one.page) <= 0, (address, width)
        assert "ran" not in one.page.title(), address
        assert one.page.locator("img").count() == 0, address
    assert one.troubles == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, site: Path, scheme: str) -> None:
    one = visit(browser, site.as_uri(), width=768, scheme=scheme)
    axe = Axe()
    # It takes half a minute for the hundreds of rows of this one, which are all alike.
    short = {"preflight.html": "preflight.html#find=v5e+standard+functional"}
    for address in every(site):
        one.open(short.get(address, address))
        found = axe.run(one.page).response["violations"]
        grave = [
            (rule["id"], [node["target"] for node in rule["nodes"]][:3])
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]
        assert grave == [], address


def test_the_policy_stops_a_script_in_a_page(browser: Browser, site: Path) -> None:
    """Were a text ever not escaped, it would still not run."""
    page = site / "unsafe.html"
    text = (site / "method.html").read_text()
    page.write_text(text.replace("</main>", f"{SCRIPT}</main>"))
    one = visit(browser, site.as_uri())
    one.open(page.name)
    assert one.page.title() != "ran"
    assert any("Content Security Policy" in said for said in one.troubles)
    page.unlink()


def test_a_deep_link_shows_its_state_and_a_choice_is_in_the_address(
    browser: Browser, site: Path
) -> None:
    one = visit(browser, site.as_uri())
    one.open("index.html#metric=epoch_time_s&mode=relative")
    shown = one.page.locator("[data-when]:visible")
    assert shown.count() == 1
    assert shown.get_attribute("data-when") == "metric=epoch_time_s"
    assert "1.00 times" in shown.inner_text()
    one.page.select_option("[name=metric]", "peak_host_memory_bytes")
    assert one.page.url.endswith("#metric=peak_host_memory_bytes&mode=relative")
    one.page.fill("[name=find]", "nothing like it")
    assert one.page.locator("#matrix-peak_host_memory_bytes tbody tr:visible").count() == 0
    assert one.troubles == []


def test_the_history_page_loads_the_cell_of_its_address(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    name = "laptop--recommender-smoke-train-jax-float32-functional-cpu--256"
    one.open(f"history.html#cell={name}&metric=epoch_time_s")
    table = one.page.locator("#points tbody tr")
    table.first.wait_for()
    assert table.count() == 2
    numbers = [
        float(cell.get_attribute("data-v") or "nan")
        for cell in table.locator("td:nth-child(2)").all()
    ]
    drawn = one.page.evaluate("document.querySelector('#history .plot').data[0].y")
    assert drawn == numbers[::-1]
    assert one.troubles == []


def test_charts_draw_what_their_table_says_and_a_point_finds_its_row(
    browser: Browser, site: Path
) -> None:
    one = visit(browser, site.as_uri())
    one.open("tradeoffs.html")
    figure = one.page.locator("figure.chart:visible").first
    table = one.page.locator(f"#{figure.get_attribute('data-table')}")
    plot = figure.locator(".plot")
    drawn = plot.evaluate("one => one.data.filter(t => t.mode === 'markers').flatMap(t => t.x)")
    assert sorted(drawn) == sorted(numbers_in(table.locator("tbody td:nth-child(2)")))
    point = "{customdata: 0, text: one.data[0].text[0]}"
    plot.evaluate(f"one => one.emit('plotly_click', {{points: [{point}]}})")
    assert table.locator("tr.chosen").count() == 1
    assert one.troubles == []


def test_two_cells_have_the_verdict_of_compare(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    names = [f"{cell(backend)} @ laptop, batch 256" for backend in ("jax", "torch")]
    one.open("compare.html")
    one.page.select_option("[name=baseline]", names[0])
    one.page.select_option("[name=contender]", names[1])
    row = one.page.locator("#cells tbody tr").first
    assert "slower: " in row.inner_text()
    address = one.page.url
    one.page.goto("about:blank")
    one.page.goto(address)
    one.page.locator("#cells tbody tr").first.wait_for()
    assert one.page.locator("[name=contender]").input_value() == names[1]
    assert "slower: " in one.page.locator("#cells tbody tr").first.inner_text()
    assert one.troubles == []


def test_another_price_changes_the_costs_and_back(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    one.open("cost.html")
    cost = one.page.locator("#costs tbody tr").first.locator("td").nth(1)
    before = cost.inner_text()
    spot = one.page.locator("[name=price] option", has_text="spot").first.get_attribute("value")
    one.page.select_option("[name=price]", spot)
    one.page.wait_for_function(
        "text => document.querySelectorAll('#costs tbody tr')[0].cells[2].innerText !== text",
        arg=before,
    )
    taken = (site / "data" / f"cost-{spot}.js").read_text()
    values = json.loads(taken[taken.index(",") + 1 : taken.rindex(")")])["values"]
    assert float(cost.get_attribute("data-v") or "nan") == values[0][0]
    one.page.select_option("[name=price]", "")
    assert cost.inner_text() == before
    assert one.troubles == []


def test_a_table_sorts_by_keyboard_and_downloads_as_csv(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    one.open("method.html")
    table = one.page.locator(".table:visible").first
    table.locator("th button").nth(1).focus()
    one.page.keyboard.press("Enter")
    names = table.locator("tbody td:nth-child(2)").all_inner_texts()
    assert names == sorted(names)
    with one.page.expect_download() as waiting:
        table.get_by_role("button", name="Download as CSV").click()
    lines = Path(waiting.value.path()).read_text().splitlines()
    assert lines[0] == "figure,name in files,unit,better,definition"
    assert len(lines) == 1 + table.locator("tbody tr").count()


def csv_of(one: Visit, name: str) -> list[list[str]]:
    """What the button of a table gives."""
    with one.page.expect_download() as waiting:
        one.page.locator(f"#{name}").get_by_role("button", name="Download as CSV").click()
    with Path(waiting.value.path()).open(newline="") as file:
        return list(csv.reader(file))


def test_csv_has_names_and_notes_apart_and_units_in_its_head(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    one.open("cost.html#find=laptop")
    head, *rows = csv_of(one, "costs")
    assert head[:4] == ["cell", "cell (notes)", "epoch (s)", "epoch (notes)"]
    shown = one.page.locator("#costs tbody tr:visible")
    assert len(rows) == shown.count()
    assert rows[0][0] in {cell("jax"), cell("tensorflow"), cell("torch")}
    assert "laptop" in rows[0][1]
    assert float(rows[0][2]) == 0.44
    one.open("index.html")
    name = one.page.locator("[data-when]:visible .table").get_attribute("id")
    head, row, *_ = csv_of(one, str(name))
    interval = row[head.index("jax float32 (notes)")]
    assert re.match(r"[\d.]+ to [\d.]+ ms; ", interval)
    assert float(row[head.index("jax float32")]) == pytest.approx(0.0104)
    assert one.troubles == []


# Addresses


def group_of(one: Visit, place: int) -> str:
    option = one.page.locator("[name=group] option").nth(place)
    return str(option.get_attribute("value"))


def test_a_link_within_a_page_leaves_what_was_chosen(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    one.open("tradeoffs.html")
    one.page.select_option("[name=group]", group_of(one, 1))
    address = one.page.url
    one.page.locator("figcaption a:visible").first.click()
    assert one.page.url == address
    assert one.page.locator(".table:visible").get_attribute("id") == f"table-{group_of(one, 1)}"
    assert one.page.evaluate("document.activeElement.closest('.table').id").startswith("table-")
    one.open("preflight.html#find=v5e")
    one.page.locator(".skip").focus()
    one.page.keyboard.press("Enter")
    assert one.page.evaluate("document.activeElement.id") == "main"
    assert one.page.locator("[name=find]").input_value() == "v5e"
    assert one.page.locator(".count").inner_text().startswith("64 of ")
    one.open(f"tradeoffs.html#table-{group_of_site(site, 1)}")
    assert (
        one.page.locator(".table:visible").get_attribute("id") == f"table-{group_of_site(site, 1)}"
    )
    assert one.troubles == []


def group_of_site(site: Path, place: int) -> str:
    text = (site / "tradeoffs.html").read_text()
    return str(re.findall(r'<option value="([^"]+)"', text)[place])


@pytest.mark.parametrize(
    ("address", "wanted", "left"),
    [
        ("history.html#cell=gone", "gone", "#points"),
        ("compare.html#contrast=3", "3", "#verdicts"),
        ("compare.html#baseline=gone", "gone", "#cells"),
        ("index.html#metric=gone", "gone", "[data-when]:visible"),
        ("tradeoffs.html#chosen=gone", "gone", "tr.chosen"),
        ("method.html#sort=metrics:gone:up", "gone", "[aria-sort]"),
    ],
)
def test_what_an_address_asks_in_vain_is_told(
    browser: Browser, site: Path, address: str, wanted: str, left: str
) -> None:
    one = visit(browser, site.as_uri())
    one.open(address)
    assert f"This site has no “{wanted}” to choose" in one.page.locator("#told").inner_text()
    assert one.page.locator(left).count() == 0
    assert one.troubles == []


def test_a_choice_after_one_in_vain_takes_the_notice_away(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    one.open("history.html#cell=gone")
    one.page.select_option("[name=cell]", index=0)
    one.page.locator("#points").wait_for()
    one.page.locator("body[data-ready]").wait_for()
    assert one.page.locator("#told").inner_text() == ""


def test_a_missing_data_file_is_told(browser: Browser, site: Path) -> None:
    path = next(site.glob("data/history-*.js"))
    away = path.rename(site / "away.js")
    try:
        one = visit(browser, site.as_uri())
        one.open(f"history.html#cell={path.stem.removeprefix('history-')}")
        told = one.page.locator("#told").inner_text()
        assert told.startswith(f"The file data/{path.name} of this site is missing")
        assert one.page.locator("#points").count() == 0
    finally:
        away.rename(path)


def test_the_order_of_a_table_is_in_the_address(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    one.open("method.html")
    head = one.page.locator("#metrics th button", has_text="name in files")
    head.click()
    head.click()
    names = one.page.locator("#metrics tbody td:nth-child(2)").all_inner_texts()
    assert names == sorted(names, reverse=True)
    assert one.page.url.endswith("#sort=metrics%3Aname+in+files%3Adown")
    one.open(one.page.url.removeprefix(f"{one.base}/"))
    assert one.page.locator("#metrics tbody td:nth-child(2)").all_inner_texts() == names
    assert one.page.locator("#metrics [aria-sort=descending]").inner_text().startswith("name")


def test_a_cell_is_chosen_by_keyboard_and_is_in_the_address(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    one.open("tradeoffs.html")
    one.page.locator("[name=group]").focus()
    one.page.keyboard.press("Tab")
    assert one.page.evaluate("document.activeElement.name") == "chosen"
    one.page.keyboard.press("ArrowDown")
    one.page.keyboard.press("ArrowDown")
    chosen = one.page.locator(".table:visible tr.chosen th")
    name = chosen.inner_text()
    marked = "document.querySelector('.plot').data.map(one => one.selectedpoints ?? null)"
    points = one.page.evaluate(marked)
    assert sum(len(one) for one in points if one) == 1
    one.open(one.page.url.removeprefix(f"{one.base}/"))
    assert chosen.inner_text() == name
    assert one.page.evaluate(marked) == points
    assert one.troubles == []


def test_deep_links_of_the_other_pages(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    group = group_of_site(site, 1)
    one.open(f"tradeoffs.html#group={group}")
    assert one.page.locator(".table:visible").get_attribute("id") == f"table-{group}"
    spot = next(path.stem for path in site.glob("data/cost-*spot*.js")).removeprefix("cost-")
    one.open(f"cost.html#price={spot}&find=torch")
    assert "spot" in one.page.locator("#costs caption").inner_text()
    rows = one.page.locator("#costs tbody tr:visible")
    assert 0 < rows.count() < one.page.locator("#costs tbody tr").count()
    assert all("torch" in text for text in rows.all_inner_texts())
    contrast = next(path.stem for path in site.glob("data/contrast-*--jax--torch.js"))
    contrast = contrast.removeprefix("contrast-")
    one.open(f"compare.html#contrast={contrast}&metric=epoch_time_s")
    assert "epoch: backend: torch against jax" in one.page.locator("#verdicts caption").inner_text()
    assert "--metric epoch_time_s" in one.page.locator("#contrast pre").inner_text()
    assert one.troubles == []


# Small screens and bad input


def test_on_a_phone_the_answer_is_in_sight(browser: Browser, site: Path) -> None:
    """Of the cards the cost, which is the last column, and the verdicts of comparisons."""
    one = visit(browser, site.as_uri(), width=360)
    for address, cells in (
        ("index.html", ".card td:last-child"),
        ("compare.html", "#cells td"),
        ("compare.html", "#verdicts td"),
    ):
        one.open(address)
        boxes = [found.bounding_box() for found in one.page.locator(f"{cells}:visible").all()]
        ends = [box["x"] + box["width"] for box in boxes if box]
        assert ends
        assert max(ends) <= 360


def test_no_backend_is_broken_within_its_word(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri(), width=1440)
    one.open("index.html")
    lines = "all => all.map(one => one.getClientRects().length)"
    counts = one.page.locator(".card:visible th[scope=row] a").evaluate_all(lines)
    assert counts
    assert set(counts) == {1}


def nothing(results: Path) -> None:
    write_session(results)


def one_row(results: Path) -> None:
    write_session(results, make_run())


def failures(results: Path) -> None:
    write_session(results, failed_run("timeout", "more than 300 s", price=None))


def damaged(results: Path) -> None:
    write_session(results, make_run())
    (results / "runs/laptop/20200101T000000Z-abc.jsonl").write_text("no header\n")


def several_schemas(results: Path) -> None:
    """The committed results hold several versions."""
    chosen: dict[int, Path] = {}
    for path in sorted((Path(__file__).parents[1] / "results/runs").glob("*/*")):
        version = json.loads(path.read_text().partition("\n")[0])["schema_version"]
        smallest = chosen.get(version)
        if smallest is None or path.stat().st_size < smallest.stat().st_size:
            chosen[version] = path
    assert len(chosen) >= 3
    for path in chosen.values():
        (results / "runs" / path.parent.name).mkdir(parents=True, exist_ok=True)
        few = path.read_text().splitlines(keepends=True)[:4]
        (results / "runs" / path.parent.name / path.name).write_text("".join(few))


@pytest.mark.parametrize("make", [nothing, one_row, failures, damaged, several_schemas])
def test_a_site_of_bad_input_opens(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    """Every page that its navigation names, without an error and without a dead link."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHMARK_CACHE", "cache")
    make(tmp_path / "results")
    build(tmp_path / "results", tmp_path / "site")
    one = visit(browser, (tmp_path / "site").as_uri(), width=360)
    one.open("index.html")
    links = one.page.locator("header nav a")
    names = [str(found.get_attribute("href")) for found in links.all()]
    for name in names:
        one.open(name)
        assert overflow(one.page) <= 0, name
        assert one.page.locator("#told").inner_text() == "", name
    assert len(names) == (1 if make is nothing else 8)
    assert one.troubles == []


def test_the_heat_map_downloads_as_a_picture_of_what_it_shows(browser: Browser, site: Path) -> None:
    """The colour of its best cells, and letters on them."""
    one = visit(browser, site.as_uri())
    one.open("index.html")
    heat = one.page.locator("[data-when]:visible .table")
    colour_of = "cell => getComputedStyle(cell).backgroundColor"
    wanted = heat.locator("td.h0").first.evaluate(colour_of)
    with one.page.expect_download() as waiting:
        heat.get_by_role("button", name="Download as PNG").click()
    picture = Image.open(waiting.value.path()).convert("RGB")
    colours = {colour for _, colour in picture.getcolors(1 << 24) or []}
    assert tuple(map(int, re.findall(r"\d+", wanted)[:3])) in colours
    assert len(colours) > 50  # smoothed letters have shades of their own
    assert one.troubles == []


def test_a_chart_downloads_as_png(browser: Browser, site: Path) -> None:
    one = visit(browser, site.as_uri())
    one.open("tradeoffs.html")
    with one.page.expect_download() as waiting:
        one.page.get_by_role("button", name="Download as PNG").first.click()
    assert Path(waiting.value.path()).read_bytes().startswith(b"\x89PNG")
    assert one.troubles == []


def test_forecasts_are_found_by_words_and_a_link_keeps_them(browser: Browser, site: Path) -> None:
    shown = visit(browser, site.as_uri())
    shown.open("preflight.html#find=v5e+bert+standard+functional")
    rows = shown.page.locator("#forecasts tbody tr:visible")
    assert rows.count() == 2
    for row in rows.all():
        assert {"TPU v5e", "bert", "standard", "functional"} <= set(row.inner_text().split("\t"))
    assert "no measurements" in shown.page.locator("main").inner_text()
    assert shown.troubles == []


def test_every_page_prints_in_light_colours_and_within_the_paper(
    browser: Browser, site: Path
) -> None:
    """A4 without its margins; whoever prints may have a dark screen."""
    one = visit(browser, site.as_uri(), scheme="dark")
    for address in every(site):
        one.open(address)
        one.page.set_viewport_size({"width": 718, "height": 1000})
        one.page.emulate_media(media="print", color_scheme="dark")
        ground = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(255, 255, 255)", address
        assert overflow(one.page) <= 0, address
        controls = "nav:visible, .tools:visible, .controls:visible"
        assert one.page.locator(controls).count() == 0, address
        one.page.emulate_media(media="screen", color_scheme="dark")
        assert one.page.locator("header nav:visible").count() == 1


def test_asvs_own_pages_open_from_disk_and_ask_nobody(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With asv's own scripts, which npm fetches, and scripts wherever a text may stand."""
    monkeypatch.chdir(tmp_path)
    changes: dict[str, Any] = {
        "environment": replace(ENVIRONMENT, machine=f"m{SCRIPT}", cpu=SCRIPT),
        "suite_commit": HEAD[:12],
        "workload_version": SCRIPT,
    }
    results = tmp_path / "results"
    write_session(results, timed("jax", 0, 0.02, **changes), timed("torch", 0, 0.04, **changes))
    built = build(results, tmp_path / "site", asv=True)
    if built.notices and "npm" in built.notices[0]:
        pytest.skip(built.notices[0])
    one = visit(browser, (tmp_path / "site").as_uri())
    one.page.goto(f"{one.base}/index.html")
    one.page.get_by_role("link", name="asv", exact=True).click()
    one.page.get_by_text("recommender smoke_train_cpu: step").click()
    one.page.wait_for_function("document.querySelectorAll('#main-graph canvas').length > 0")
    assert one.page.locator("#graphdisplay-navigation").get_by_text("torch").count() == 1
    drawn = one.page.evaluate(
        "$('#main-graph').data('plot').getData().map(one => one.data.map(point => point[1]))"
    )
    assert sorted(value for line in drawn for value in line) == [0.02, 0.04]
    for place in ("#/summarylist", "#/regressions"):
        one.page.goto(f"{one.base}/asv/index.html{place}")
        one.page.get_by_text("Benchmark list").wait_for()
    assert "ran" not in one.page.title()
    one.page.get_by_role("link", name="Epochmark's report").click()
    one.page.locator("body[data-ready]").wait_for()
    assert one.page.url == f"{one.base}/index.html"
    assert one.troubles == []
