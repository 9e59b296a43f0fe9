// Filters with their state in the address, sorting, CSV, charts. It computes no statistic: every
// number and verdict was made before, and what comes from results is only ever set as text.
"use strict";
(() => {
  const root = document.body.dataset.root;
  const waiting = new Map();
  const known = new Map();
  window.epochmark = {
    take(key, content) {
      known.set(key, content);
      for (const done of waiting.get(key) || []) done(content);
      waiting.delete(key);
    },
  };

  // A page from disk may not fetch; a script of data may be loaded from anywhere the page may be.
  function load(key) {
    if (known.has(key)) return Promise.resolve(known.get(key));
    return new Promise((done) => {
      const first = !waiting.has(key);
      waiting.set(key, [...(waiting.get(key) || []), done]);
      if (!first) return;
      const script = document.createElement("script");
      script.src = `${root}data/${encodeURIComponent(key)}.js`;
      document.head.append(script);
    });
  }

  function made(name, properties = {}, ...children) {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  }

  // State: every named control, in the address behind the hash.
  const controls = [...document.querySelectorAll(".controls select, .controls input")];
  const initial = new Map(controls.map((one) => [one, one.value]));

  function readAddress() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const control of controls) {
      const wanted = state.get(control.name);
      control.value = wanted ?? initial.get(control) ?? "";
      if (control.tagName === "SELECT" && control.selectedIndex < 0 && control.options.length) {
        control.selectedIndex = 0;
      }
    }
  }

  function writeAddress() {
    const state = new URLSearchParams();
    for (const control of controls) {
      if (control.value !== "" && control.value !== initial.get(control)) {
        state.set(control.name, control.value);
      }
    }
    history.replaceState(null, "", state.size ? `#${state}` : location.pathname + location.search);
  }

  const value = (name) => controls.find((one) => one.name === name)?.value ?? "";
  const control = (name) => controls.find((one) => one.name === name);

  function show() {
    for (const part of document.querySelectorAll("[data-when]")) {
      const [name, wanted] = part.dataset.when.split("=");
      part.hidden = value(name) !== wanted;
    }
    const mode = value("mode");
    if (mode) document.querySelector("main").dataset.mode = mode;
    filter();
    draw();
    delete document.body.dataset.ready;
    Promise.all(pages.map((page) => page())).then(() => { document.body.dataset.ready = "yes"; });
  }

  function filter() {
    const words = value("find").toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of document.querySelectorAll("table[data-filter] tbody tr")) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  }

  // Tables: sorting by the numbers behind the texts, CSV of the same.
  const plain = (cell) => cell.dataset.v ?? cell.textContent.trim();

  function equip(box) {
    const table = box.querySelector("table");
    const name = box.dataset.name;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      if (!head.textContent || table.tBodies[0].rows.length <= 3) return;
      const button = made("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => sort(table, heads, place));
      head.append(button);
    });
    const csv = made("button", { type: "button", textContent: "CSV" });
    csv.setAttribute("aria-label", `Download as CSV: ${table.caption.textContent}`);
    csv.addEventListener("click", () => download(`${name}.csv`, asCsv(table)));
    box.append(made("div", { className: "tools" }, csv));
  }

  function sort(table, heads, place) {
    const up = heads[place].getAttribute("aria-sort") !== "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[place].setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = [...table.tBodies[0].rows].map((row) => [plain(row.cells[place]), row]);
    const number = (text) => (text === "" ? NaN : Number(text));
    keyed.sort(([one], [other]) => {
      const [a, b] = [number(one), number(other)];
      if (Number.isNaN(a) && Number.isNaN(b)) return one.localeCompare(other) * (up ? 1 : -1);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
      return (a - b) * (up ? 1 : -1);
    });
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  }

  // A leading =, +, - or @ would be a formula to a spreadsheet, unless the field is a number.
  function field(text) {
    const harmless = /^[=+\-@\t\r]/.test(text) && !(text !== "" && Number.isFinite(Number(text)));
    const safe = harmless && text !== "-" ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  function asCsv(table) {
    const lines = [...table.rows].filter((row) => !row.hidden);
    return lines.map((row) => [...row.cells].map((one) => field(plain(one))).join(",")).join("\n") + "\n";
  }

  function download(name, text) {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    made("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  function tableOf(id, caption, head, rows, numeric = []) {
    const cell = (entry, place) => {
      const text = typeof entry === "object" && entry !== null ? entry.text : String(entry ?? "");
      const tag = made(place === 0 ? "th" : "td", numeric.includes(place) ? { className: "n" } : {});
      if (place === 0) tag.scope = "row";
      tag.append(entry?.href ? made("a", { href: root + entry.href, textContent: text }) : text);
      if (entry?.note) tag.append(made("small", { textContent: entry.note }));
      if (entry?.raw !== undefined) tag.dataset.v = String(entry.raw);
      return tag;
    };
    const heads = head.map((text, place) =>
      made("th", { scope: "col", className: numeric.includes(place) ? "n" : "", textContent: text }));
    const body = rows.map((row) => made("tr", {}, ...row.map(cell)));
    const table = made("table", {}, made("caption", { textContent: caption }),
      made("thead", {}, made("tr", {}, ...heads)), made("tbody", {}, ...body));
    const scroll = made("div", { className: "scroll", tabIndex: 0 }, table);
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", caption);
    const box = made("div", { className: "table", id }, scroll);
    box.dataset.name = id;
    equip(box);
    return box;
  }

  // Charts: drawn when they are seen first, in the colours of the page.
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function layoutOf(layout) {
    const text = css("--text");
    const axis = (one = {}) => ({
      gridcolor: css("--grid"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true,
      ...one, title: { text: one.title ?? "" },
    });
    return {
      paper_bgcolor: css("--ground"), plot_bgcolor: css("--ground"), font: { color: text, size: 13 },
      margin: { t: 30, r: 10, b: 50, l: 60 }, legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, hovermode: "closest",
      ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    };
  }

  function plot(figure, spec) {
    const place = figure.querySelector(".plot");
    const name = figure.id;
    const configuration = {
      responsive: true, displayModeBar: false,
    };
    Plotly.react(place, structuredClone(spec.traces), layoutOf(spec.layout), configuration);
    if (!figure.dataset.drawn) {
      figure.dataset.drawn = "1";
      place.on("plotly_click", (event) => choose(figure, event.points[0]));
      const png = made("button", { type: "button", textContent: "PNG" });
      png.setAttribute("aria-label", `Download as PNG: ${place.getAttribute("aria-label")}`);
      png.addEventListener("click", () =>
        Plotly.downloadImage(place, { format: "png", filename: name, width: 1200, height: 700 }));
      figure.append(made("div", { className: "tools" }, png));
    }
  }

  function draw() {
    for (const figure of document.querySelectorAll("figure.chart")) {
      const spec = figure.querySelector("script[type='application/json']");
      if (spec && figure.offsetParent !== null) plot(figure, JSON.parse(spec.textContent));
    }
  }

  function choose(figure, point) {
    const place = point.customdata;
    const table = document.getElementById(figure.dataset.table)?.querySelector("table");
    if (place === undefined || !table) return;
    const names = [...table.tBodies[0].rows];
    names.forEach((row) => row.classList.remove("chosen"));
    const row = names.find((one) => one.cells[0].textContent.trim() === unescaped(point.text));
    row?.classList.add("chosen");
    row?.scrollIntoView({ block: "center" });
    row?.querySelector("a")?.focus({ preventScroll: true });
  }

  const unescaped = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

  // Pages that load what they show.
  const pages = [];

  function offer(select, options) {
    const wanted = new URLSearchParams(location.hash.slice(1)).get(select.name) ?? select.value;
    const same = select.options.length === options.length
      && options.every(([id], place) => select.options[place].value === id);
    if (same) return;
    select.replaceChildren(...options.map(([id, text]) => made("option", { value: id, textContent: text })));
    select.value = options.some(([id]) => id === wanted) ? wanted : options[0]?.[0] ?? "";
  }

  const historyBox = document.getElementById("history");
  if (historyBox) {
    pages.push(async () => {
      const cell = value("cell");
      const data = await load(`history-${cell}`);
      if (cell !== value("cell")) return;
      offer(control("metric"), data.figures.map((one) => [one.metric, one.title]));
      const found = data.figures.find((one) => one.metric === value("metric")) ?? data.figures[0];
      const figure = made("figure", { className: "chart", id: `history-${found.metric}` });
      const caption = `${found.title} by session`;
      const drawing = made("div", { className: "plot" });
      drawing.setAttribute("role", "img");
      drawing.setAttribute("aria-label", caption);
      figure.append(made("figcaption", { textContent: `${caption}; a dashed line is a step.` }), drawing);
      const text = (place) => found.texts[place] ?? String(found.values[place]);
      const rows = found.values.map((raw, place) => [
        found.sessions[place], found.dates[place], { text: text(place), raw },
        found.steps.find((step) => step.at === place)?.text ?? "",
      ]).reverse();
      historyBox.replaceChildren(made("h2", { textContent: data.title }), figure,
        tableOf("points", caption, ["session", "started (UTC)", found.title, "step"], rows, [2]));
      plot(figure, {
        traces: [{ type: "scatter", mode: "lines+markers", name: "median of the session", x: found.dates,
          y: found.values, marker: { color: "#0072B2", size: found.values.length > 100 ? 4 : 7 }, line: { width: 1 } }],
        layout: { yaxis: { title: found.title, rangemode: "tozero" }, xaxis: { type: "date" },
          shapes: found.steps.map((step) => ({ type: "line", yref: "paper", y0: 0, y1: 1,
            x0: found.dates[step.at], x1: found.dates[step.at], line: { dash: "dash", color: "#D55E00" } })) },
      });
    });
  }

  const pairBox = document.getElementById("pair");
  if (pairBox) {
    pages.push(async () => {
      const data = await load("cells");
      const options = data.cells.map((one) => [one.name, one.name]);
      const fresh = !control("baseline").options.length;
      offer(control("baseline"), options);
      offer(control("contender"), options);
      if (fresh && !new URLSearchParams(location.hash.slice(1)).has("contender") && options.length > 1) {
        const first = Object.keys(data.verdicts)[0]?.split("|").map(Number) ?? [0, 1];
        if (!new URLSearchParams(location.hash.slice(1)).has("baseline")) {
          control("baseline").selectedIndex = first[0];
        }
        control("contender").selectedIndex = first[1];
      }
      const sides = ["baseline", "contender"].map((name) => control(name).selectedIndex);
      if (sides.some((place) => place < 0)) return;
      const [one, other] = sides.map((place) => data.cells[place]);
      const verdicts = data.verdicts[sides.join("|")] ?? [];
      const rows = data.metrics.map((metric, place) => {
        const found = verdicts.find(([at]) => at === place);
        const shown = (cell) => ({ text: cell.texts[place], note: cell.spans[place] });
        return found
          ? [metric.title, found[3], found[4], { text: found[1], note: `session ${found[2]}, whose medians these are` }]
          : [metric.title, shown(one), shown(other), "no verdict"];
      }).filter((row) => row[1].text !== "-" || row[2].text !== "-");
      const table = tableOf("cells", "Two cells; medians with the 95 % interval of each",
        ["figure", "baseline", "contender", "contender to baseline"], rows, [1, 2]);
      const ids = [one, other].map((cell) => cell.name.split(" @ ")[0]);
      pairBox.replaceChildren(table,
        made("p", { textContent: `The newest session of these cells has ${one.n} and ${other.n} processes. A verdict stands where one session measured both several times; there the medians are that session's.` }),
        made("pre", { tabIndex: 0, textContent: `epochmark compare${verdicts.length ? ` --session ${verdicts[0][2]}` : ""} '${ids[0]}' '${ids[1]}'` }));
    });
  }

  const contrastBox = document.getElementById("contrast");
  if (contrastBox) {
    pages.push(async () => {
      const place = value("contrast");
      const data = await load(`contrast-${place}`);
      if (place !== value("contrast")) return;
      offer(control("metric"), data.metrics.map((one) => [one.name, one.title]));
      const found = data.metrics.find((one) => one.name === value("metric")) ?? data.metrics[0];
      const refused = data.refused.map((one) => made("p", { className: "notice", textContent: `${one.title}: ${one.reason}` }));
      const told = found ? [
        tableOf("verdicts", `${found.title}: ${data.title}`,
          ["cell", "baseline", "contender", "ratio", found.level, "verdict", "finds"], found.rows, [1, 2, 3, 4, 6]),
        made("p", { textContent: `${found.mean} ${found.left_out ? `${found.left_out} runs are left out: not ok, disturbed, changed by hand, or without this figure.` : ""}` }),
      ] : [];
      contrastBox.replaceChildren(...told, ...refused,
        made("pre", { tabIndex: 0, textContent: `${data.command}${found && found.name !== "step_time_s" ? ` --metric ${found.name}` : ""}` }));
    });
  }

  const costBox = document.getElementById("cost");
  if (costBox) {
    const table = costBox.querySelector("table");
    const columns = Number(costBox.dataset.columns);
    const rows = [...table.tBodies[0].rows];
    const own = rows.map((row) => [...row.cells].slice(2, 2 + columns).map((cell) => [[...cell.childNodes], cell.dataset.v]));
    pages.push(async () => {
      const price = value("price");
      const data = price ? await load(`cost-${price}`) : null;
      if (price !== value("price")) return;
      rows.forEach((row, line) => own[line].forEach(([nodes, raw], place) => {
        const cell = row.cells[2 + place];
        cell.replaceChildren(...(data ? [data.texts[line][place]] : nodes));
        cell.dataset.v = data ? data.values[line][place] ?? "" : raw ?? "";
      }));
      table.caption.textContent = data ? `Costs of each cell at ${data.title}` : "Costs of each cell, at the price recorded with each run";
    });
  }

  for (const box of document.querySelectorAll(".table")) equip(box);
  readAddress();
  show();
  for (const form of document.querySelectorAll(".controls")) {
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => { writeAddress(); show(); });
  }
  addEventListener("hashchange", () => { readAddress(); show(); });
  dark.addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
})();
