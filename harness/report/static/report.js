// The state of a page: every named control, the order of its tables, what is chosen; all of it in
// the address behind the hash. It computes no statistic: every number and verdict was made before.
"use strict";
(() => {
  const { load, made, tell, equip, order, orders, rowsOf, tableOf, words, draw, plot } = window.epochmark;
  const pages = [];

  // The control by which a point of a picture is chosen without a mouse.
  const chooser = document.querySelector(".controls [name=group]") && made("select", { name: "chosen" });
  if (chooser) {
    document.querySelector(".controls label").after(made("label", {}, "Cell ", chooser));
  }

  const controls = [...document.querySelectorAll(".controls select, .controls input")];
  const control = (name) => controls.find((one) => one.name === name);
  const value = (name) => control(name)?.value ?? "";
  // A browser may fill in what a reader chose before a reload; this is what the page itself says.
  const own = (one) => one.tagName !== "SELECT" ? one.defaultValue
    : ([...one.options].find((option) => option.defaultSelected) ?? one.options[0])?.value ?? "";
  const initial = new Map(controls.map((one) => [one, own(one)]));
  const late = new Set(controls.filter((one) => one.tagName === "SELECT" && !one.options.length));

  // What the address asks of controls whose choices are not loaded yet; and what it asked in vain.
  let asked = new URLSearchParams();
  const complaints = new Map();

  function complain(name, wanted, title) {
    complaints.set(name, `This site has no “${wanted}” to choose as “${title}”. The address may be of an older site or mistyped: choose what is here.`);
  }
  const titleOf = (one) => one.labels[0]?.firstChild.textContent.trim() ?? one.name;

  // A hash without "=" is the name of a place in the page, and no state.
  const named = () => (location.hash.includes("=") ? "" : decodeURIComponent(location.hash.slice(1)));

  function readAddress() {
    asked = new URLSearchParams(named() ? "" : location.hash.slice(1));
    complaints.clear();
    for (const one of controls) {
      if (late.has(one)) continue;
      const wanted = asked.get(one.name);
      one.value = wanted ?? initial.get(one);
      if (one.tagName === "SELECT" && one.selectedIndex < 0) complain(one.name, wanted, titleOf(one));
    }
    orders.clear();
    for (const text of asked.getAll("sort")) {
      const [first, last] = [text.indexOf(":"), text.lastIndexOf(":")];
      orders.set(text.slice(0, first), { head: text.slice(first + 1, last), up: text.slice(last) !== ":down" });
    }
    for (const box of document.querySelectorAll(".table")) arrange(box);
    const part = document.getElementById(named())?.closest("[data-when]");
    if (part) {
      const [name, wanted] = part.dataset.when.split("=");
      control(name).value = wanted;
    }
  }

  function arrange(box) {
    const name = box.dataset.name;
    if (!order(box)) complain(`sort ${name}`, orders.get(name).head, "column to sort by");
  }

  function writeAddress() {
    const state = new URLSearchParams();
    for (const one of controls) {
      if (one.value !== "" && one.value !== initial.get(one)) state.set(one.name, one.value);
    }
    for (const [name, { head, up }] of orders) state.append("sort", `${name}:${head}:${up ? "up" : "down"}`);
    history.replaceState(null, "", state.size ? `#${state}` : location.pathname + location.search);
  }

  // Fills a control whose choices depend on others; an unknown choice is told, not replaced.
  function offer(select, options, usual = 0) {
    const wanted = asked.get(select.name) ?? select.value;
    const same = select.options.length === options.length
      && options.every(([id, text], place) => select.options[place].value === id && select.options[place].text === text);
    if (!same) {
      select.replaceChildren(...options.map(([id, text]) => made("option", { value: id, textContent: text })));
    }
    const place = options.findIndex(([id]) => id === wanted);
    const vain = place < 0 && asked.has(select.name);
    if (vain) complain(select.name, wanted, titleOf(select));
    else complaints.delete(select.name);
    asked.delete(select.name);
    select.selectedIndex = place >= 0 ? place : vain ? -1 : Math.min(usual, options.length - 1);
  }

  function show() {
    for (const part of document.querySelectorAll("[data-when]")) {
      const [name, wanted] = part.dataset.when.split("=");
      part.hidden = value(name) !== wanted;
    }
    document.querySelector("main").dataset.mode = value("mode");
    mark();
    filter();
    draw(choose);
    delete document.body.dataset.ready;
    return Promise.allSettled(pages.map((page) => page())).then((ends) => {
      const failures = ends.flatMap((end) => (end.status === "rejected" ? [end.reason.message] : []));
      tell([...complaints.values(), ...failures]);
      document.body.dataset.ready = "yes";
    });
  }

  function changed(name) {
    asked.delete(name);
    complaints.delete(name);
    writeAddress();
    show().then(writeAddress);
  }

  const count = control("find") && made("output", { className: "count" });
  if (count) control("find").closest("label").append(count);

  function filter() {
    if (!count) return;
    const text = value("find").toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...document.querySelectorAll("table[data-filter] tbody tr")];
    for (const row of rows) {
      const inside = row.textContent.toLowerCase();
      row.hidden = !text.every((word) => inside.includes(word));
    }
    const seen = rows.filter((row) => !row.closest("[data-when][hidden]"));
    count.textContent = text.length ? `${seen.filter((row) => !row.hidden).length} of ${seen.length} rows` : "";
  }

  // Choosing a cell, in the picture or by the control: its row and its points are marked.
  const nameOf = (row) => row.querySelector("a")?.getAttribute("href").replace(/^.*\/|\.html$/g, "") ?? words(row.cells[0]);

  function mark() {
    if (!chooser) return;
    const part = document.querySelector("section[data-when]:not([hidden])");
    const rows = part ? rowsOf(part.querySelector("table")) : [];
    offer(chooser, [["", "none chosen"], ...rows.map((row) => [nameOf(row), words(row.cells[0])])]);
    const chosen = chooser.selectedIndex - 1;
    rows.forEach((row, place) => row.classList.toggle("chosen", place === chosen));
    for (const figure of part?.querySelectorAll("figure.chart") ?? []) {
      figure.dataset.chosen = chosen < 0 ? "" : String(chosen);
    }
  }

  function choose(figure, place) {
    const table = document.getElementById(figure.dataset.table)?.querySelector("table");
    const row = table && rowsOf(table)[place];
    if (!row || !chooser) return;
    chooser.value = nameOf(row);
    changed(chooser.name);
    row.scrollIntoView({ block: "center" });
    row.querySelector("a")?.focus({ preventScroll: true });
  }

  // Pages that load what they show: each empties its box before it fails.
  function page(id, fill) {
    const box = document.getElementById(id);
    if (!box) return;
    pages.push(async () => {
      try {
        const parts = await fill();
        if (!parts) return;
        box.replaceChildren(...parts);
        for (const table of box.querySelectorAll(".table")) {
          equip(table, writeAddress);
          arrange(table);
        }
      } catch (error) {
        box.replaceChildren();
        throw error;
      }
    });
  }

  const commandOf = (text) => made("pre", { tabIndex: 0, className: "command", textContent: text });

  function trend(found) {
    const figure = made("figure", { className: "chart", id: `history-${found.metric}` });
    const caption = `${found.title} by session`;
    const drawing = made("div", { className: "plot" });
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", caption);
    figure.append(made("figcaption", { textContent: `${caption}; bars are 95 % intervals over the processes of a session, a dashed line is a step.` }), drawing);
    const text = (place) => found.texts[place] ?? String(found.values[place]);
    const rows = found.values.map((raw, place) => [
      found.sessions[place], { text: text(place), raw, notes: [found.spans[place]] },
      found.steps.find((step) => step.at === place)?.text ?? "",
      String(found.processes[place]), found.dates[place],
    ]).reverse();
    const head = ["session", { text: found.title, csv: found.axis }, "change", "processes", "started (UTC)"];
    return [figure, tableOf("points", caption, head, rows, [1, 3])];
  }

  function drawTrend(figure, found) {
    const beyond = (ends) => found.values.map((level, place) => Math.abs((ends[place] ?? level) - level));
    plot(figure, {
      traces: [{ type: "scatter", mode: "lines+markers", name: "median of the session", x: found.dates,
        y: found.values, marker: { color: "#0072B2", size: found.values.length > 100 ? 4 : 7 }, line: { width: 1 },
        error_y: { type: "data", symmetric: false, array: beyond(found.high), arrayminus: beyond(found.low),
          thickness: 1, width: 2, visible: found.low.some((end) => end !== null) } }],
      layout: { yaxis: { title: found.axis, rangemode: "tozero" }, xaxis: { type: "date" },
        shapes: found.steps.map((step) => ({ type: "line", yref: "paper", y0: 0, y1: 1,
          x0: found.dates[step.at], x1: found.dates[step.at], line: { dash: "dash", color: "#D55E00" } })) },
    });
  }

  page("history", async () => {
    const cell = value("cell");
    if (!cell) return [];
    const data = await load(`history-${cell}`);
    if (cell !== value("cell")) return null;
    offer(control("metric"), data.figures.map((one) => [one.metric, one.title]));
    const found = data.figures.find((one) => one.metric === value("metric"));
    if (!found) return [];
    const [figure, table] = trend(found);
    document.getElementById("history").replaceChildren(figure);
    drawTrend(figure, found);
    return [made("h2", { textContent: data.title }), figure, table];
  });

  page("pair", async () => {
    const data = await load("cells");
    const options = data.cells.map((one) => [one.name, one.name]);
    offer(control("baseline"), options, data.first[0]);
    offer(control("contender"), options, data.first[1]);
    const places = ["baseline", "contender"].map((name) => control(name).selectedIndex);
    if (places.some((place) => place < 0)) return [];
    const [one, other] = places.map((place) => data.cells[place]);
    const file = one.group && one.group === other.group ? await load(`pairs-${one.group}`) : { pairs: {} };
    if (places[0] !== control("baseline").selectedIndex || places[1] !== control("contender").selectedIndex) return null;
    const forth = file.pairs[places.join("|")];
    const [session, ...found] = forth ?? file.pairs[places.toReversed().join("|")] ?? [""];
    const shown = (cell, place) => ({ text: cell.texts[place], notes: [cell.spans[place], ...cell.marks] });
    const rows = data.metrics.map((metric, place) => {
      const known = found.find(([at]) => at === place);
      if (!known) return [metric.title, "no verdict", shown(one, place), shown(other, place)];
      const [, word, turned, ...medians] = known;
      const ends = medians.length ? (forth ? medians : medians.toReversed()) : [shown(one, place), shown(other, place)];
      return [metric.title, forth ? word : turned, ...ends];
    }).filter((row) => [row[2], row[3]].some((entry) => (entry.text ?? entry) !== "-"));
    const table = tableOf("cells", "Two cells",
      ["figure", "contender to baseline", "baseline", "contender"], rows, [2, 3]);
    if (!session) {
      return [table, made("p", { textContent: `No session has both cells several times, so there is no verdict. The figures are the medians of the newest session of each (${one.n} and ${other.n} processes), with their 95 % intervals.` })];
    }
    const judged = found.map(([at]) => data.metrics[at].name);
    const ranked = ["step_time_s", "infer_latency_s"].find((name) => judged.includes(name)) ?? judged[0];
    const metric = ranked === "step_time_s" ? "" : ` --metric ${ranked}`;
    const [precision, against] = [one, other].map((cell) => cell.id.split("/")[4]);
    const across = precision === against ? "" : " --across precision";
    return [table,
      made("p", { textContent: `The verdicts are those of these two cells alone in session ${session}, and where they stand the medians are that session's.` }),
      commandOf(`${file.sessions[session]}${metric}${across} ${one.id} ${other.id}`)];
  });

  page("contrast", async () => {
    const id = value("contrast");
    if (!id) return [];
    const data = await load(`contrast-${id}`);
    if (id !== value("contrast")) return null;
    offer(control("metric"), data.metrics.map((one) => [one.name, one.title]));
    const found = data.metrics.find((one) => one.name === value("metric"));
    const refused = data.refused.map((one) => made("p", { className: "notice", textContent: `${one.reason} That holds for: ${one.titles}.` }));
    if (!found) return [...refused, commandOf(data.command)];
    const across = found.across ? [made("p", { className: "notice bad", textContent: `Compared nevertheless, across ${found.across}s: what differs here may come from how it was measured.` })] : [];
    return [...refused, ...across,
      tableOf("verdicts", `${found.title}: ${data.title}`,
        ["cell", "verdict", "ratio", found.level, "baseline", "contender", "finds"], found.rows, [2, 3, 4, 5, 6]),
      made("p", { textContent: `${found.mean} ${found.left_out ? `${found.left_out} runs are left out: not ok, disturbed, changed by hand, or without this figure.` : ""}` }),
      commandOf(found.command)];
  });

  const costBox = document.getElementById("cost");
  if (costBox) {
    const table = costBox.querySelector("table");
    const columns = Number(costBox.dataset.columns);
    const left = Number(costBox.dataset.left ?? 2);
    const rows = [...table.tBodies[0].rows];
    const recorded = table.caption.textContent;
    const before = rows.map((row) => [...row.cells].slice(left, left + columns).map((cell) => [[...cell.childNodes], cell.dataset.v]));
    const fill = (data) => {
      rows.forEach((row, line) => before[line].forEach(([nodes, raw], place) => {
        const cell = row.cells[left + place];
        cell.replaceChildren(...(data ? [data.texts[line][place]] : nodes));
        cell.dataset.v = data ? data.values[line][place] ?? "" : raw ?? "";
      }));
      table.caption.textContent = data ? `Costs of each cell at ${data.title}` : recorded;
      arrange(costBox.querySelector(".table"));
    };
    pages.push(async () => {
      const price = value("price");
      fill(null);
      const data = price ? await load(`cost-${price}`) : null;
      if (data && price === value("price")) fill(data);
    });
  }

  for (const box of document.querySelectorAll(".table")) equip(box, writeAddress);
  readAddress();
  show();
  for (const form of document.querySelectorAll(".controls")) {
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => changed(event.target.name));
  }
  // A link to a place in the page goes there and leaves the state in the address alone.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    const there = link && document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (!there || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const focus = there.matches("[tabindex]") ? there : there.querySelector("[tabindex]") ?? there;
    if (focus === there && !there.hasAttribute("tabindex")) there.tabIndex = -1;
    there.scrollIntoView();
    focus.focus({ preventScroll: true });
  });
  addEventListener("hashchange", () => {
    if (named()) return;
    readAddress();
    show();
  });
  const again = () => draw(choose);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  matchMedia("print").addEventListener("change", again);
})();
