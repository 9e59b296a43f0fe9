// Tables: sorting by the numbers behind the texts, CSV of the same, rows as blocks on a phone.
//
// These hundred lines stand in place of a table widget. Widgets that are well kept (Tabulator,
// DataTables, Grid.js) bring 50 to 450 kB to every page for paging and editing that nothing here
// needs, put inline styles into rows, which the pages' policy forbids, and draw the rows anew from
// data: a page without scripts, or printed, would then have no table, and a screen reader another
// one. Here the tables are the page's own markup, which scripts only reorder and hide.
"use strict";
(() => {
  const { root, made, broken } = window.epochmark;
  const original = new WeakMap();
  const orders = new Map();

  // Without its notes, and without what stands in the place of the value in another mode.
  function words(cell) {
    const copy = cell.cloneNode(true);
    for (const one of copy.querySelectorAll("small, .rel")) one.remove();
    return copy.textContent.trim();
  }
  const plain = (cell) => cell.dataset.v ?? words(cell);
  const notes = (cell) => [...cell.querySelectorAll("small:not(.rel)")].map((one) => one.textContent.trim()).join("; ");
  const headsOf = (table) => [...table.tHead.rows[0].cells];
  const rowsOf = (table) => original.get(table) ?? [];

  function equip(box, sorted) {
    const table = box.querySelector("table");
    const name = box.dataset.name;
    original.set(table, [...table.tBodies[0].rows]);
    if (table.closest(".card, .stacked")) stack(table);
    for (const head of headsOf(table)) {
      if (!head.textContent || rowsOf(table).length <= 3) continue;
      const title = words(head);
      const button = made("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => {
        const up = !(orders.get(name)?.head === title && orders.get(name).up);
        orders.set(name, { head: title, up });
        order(box);
        sorted();
      });
      head.append(button);
    }
    const csv = tool("CSV", table, () =>
      download(`${name}.csv`, new Blob([asCsv(table)], { type: "text/csv" })));
    box.append(made("div", { className: "tools" }, csv));
    // One whose colours mean something is a chart as well.
    if (table.querySelector(".h0")) {
      csv.before(tool("PNG", table, () =>
        window.epochmark.painted(table).toBlob((blob) => download(`${name}.png`, blob))));
    }
    order(box);
  }

  function tool(kind, table, click) {
    const button = made("button", { type: "button", textContent: kind });
    button.setAttribute("aria-label", `Download as ${kind}: ${table.caption.textContent}`);
    button.addEventListener("click", click);
    return button;
  }

  // Puts the rows into the order that was chosen, or back into their own; false for no such column.
  function order(box) {
    const table = box.querySelector("table");
    const wanted = orders.get(box.dataset.name);
    const heads = headsOf(table);
    const place = wanted ? heads.findIndex((head) => words(head) === wanted.head) : -1;
    const changed = heads.some((head) => head.hasAttribute("aria-sort"));
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    if (place < 0) {
      if (changed) table.tBodies[0].append(...rowsOf(table));
      return !wanted;
    }
    heads[place].setAttribute("aria-sort", wanted.up ? "ascending" : "descending");
    table.tBodies[0].append(...inOrder(rowsOf(table), place, wanted.up));
    return true;
  }

  function inOrder(rows, place, up) {
    const number = (text) => (text === "" ? NaN : Number(text));
    const keyed = rows.map((row) => [plain(row.cells[place]), row]);
    keyed.sort(([one], [other]) => {
      const [a, b] = [number(one), number(other)];
      if (Number.isNaN(a) && Number.isNaN(b)) return one.localeCompare(other) * (up ? 1 : -1);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
      return (a - b) * (up ? 1 : -1);
    });
    return keyed.map(([, row]) => row);
  }

  // On a phone each row becomes a block (report.css), whose lines are named by the heads. What is
  // not displayed as a table is none to a screen reader either, unless its parts say so.
  function stack(table) {
    const titles = headsOf(table).map(words);
    table.classList.add("stack");
    const roles = { table: [table], rowgroup: [table.tHead, ...table.tBodies], row: table.rows };
    for (const [role, parts] of Object.entries(roles)) {
      for (const part of parts) part.setAttribute("role", role);
    }
    for (const row of table.rows) {
      [...row.cells].forEach((cell, place) => {
        cell.setAttribute("role", { col: "columnheader", row: "rowheader" }[cell.scope] ?? "cell");
        cell.dataset.label = titles[place];
      });
    }
  }

  // A leading =, +, - or @ would be a formula to a spreadsheet, unless the field is a number.
  function field(text) {
    const formula = /^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text));
    const safe = formula && text !== "-" ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  // Notes, such as intervals, have a column of their own behind that of the value.
  function asCsv(table) {
    const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    const heads = headsOf(table);
    const noted = heads.map((_, place) => rows.some((row) => notes(row.cells[place])));
    const spread = (cells) => cells.flatMap(([value, note], place) => (noted[place] ? [value, note] : [value]));
    const titles = heads.map((head) => [head.dataset.csv ?? words(head), `${words(head)} (notes)`]);
    const lines = [titles, ...rows.map((row) => [...row.cells].map((cell) => [plain(cell), notes(cell)]))];
    return lines.map((cells) => spread(cells).map(field).join(",")).join("\n") + "\n";
  }

  function download(name, blob) {
    const url = URL.createObjectURL(blob);
    made("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  function cellOf(entry, numeric, first) {
    const rich = typeof entry === "object" && entry !== null;
    const text = rich ? entry.text : String(entry ?? "");
    const cell = made(first ? "th" : "td", { className: numeric ? "n" : "" });
    if (first) cell.scope = "row";
    cell.append(...(rich && entry.href ? [made("a", { href: root + entry.href }, ...broken(text))] : broken(text)));
    for (const note of (rich && entry.notes) || []) {
      if (note) cell.append(made("small", { textContent: note }));
    }
    if (rich && entry.raw !== undefined) cell.dataset.v = String(entry.raw);
    return cell;
  }

  // A table of the same kind as those of the templates; a head may have another title in CSV.
  function tableOf(id, caption, head, rows, numeric = []) {
    const heads = head.map((one, place) => {
      const cell = made("th", { scope: "col", className: numeric.includes(place) ? "n" : "", textContent: one.text ?? one });
      if (one.csv) cell.dataset.csv = one.csv;
      return cell;
    });
    const body = rows.map((row) => made("tr", {},
      ...row.map((entry, place) => cellOf(entry, numeric.includes(place), place === 0))));
    const table = made("table", {}, made("caption", { textContent: caption }),
      made("thead", {}, made("tr", {}, ...heads)), made("tbody", {}, ...body));
    const scroll = made("div", { className: "scroll", tabIndex: 0 }, table);
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", caption);
    const box = made("div", { className: "table", id }, scroll);
    box.dataset.name = id;
    return box;
  }

  Object.assign(window.epochmark, { equip, order, orders, rowsOf, tableOf, words });
})();
