// Charts: drawn when they are seen first, in the colours of the page, from numbers made before.
"use strict";
(() => {
  const { made } = window.epochmark;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function layoutOf(layout) {
    const axis = (one = {}) => ({
      gridcolor: css("--grid"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true,
      ...one, title: { text: one.title ?? "" },
    });
    return {
      paper_bgcolor: css("--ground"), plot_bgcolor: css("--ground"), font: { color: css("--text"), size: 13 },
      margin: { t: 30, r: 10, b: 50, l: 60 }, legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, hovermode: "closest",
      ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    };
  }

  // The row of its table that is chosen is drawn larger, the others step back.
  function marked(trace, chosen) {
    if (!trace.customdata || chosen === "") return trace;
    const places = trace.customdata.flatMap((row, place) => (row === Number(chosen) ? [place] : []));
    return { ...trace, selectedpoints: places,
      selected: { marker: { size: 18 } }, unselected: { marker: { opacity: 0.35 } } };
  }

  function plot(figure, spec, choose) {
    const place = figure.querySelector(".plot");
    const traces = structuredClone(spec.traces).map((trace) => marked(trace, figure.dataset.chosen ?? ""));
    Plotly.react(place, traces, layoutOf(spec.layout), { responsive: true, displayModeBar: false });
    if (figure.dataset.drawn) return;
    figure.dataset.drawn = "1";
    place.on("plotly_click", (event) => choose?.(figure, event.points[0].customdata));
    const png = made("button", { type: "button", textContent: "PNG" });
    png.setAttribute("aria-label", `Download as PNG: ${place.getAttribute("aria-label")}`);
    png.addEventListener("click", () =>
      Plotly.downloadImage(place, { format: "png", filename: figure.id, width: 1200, height: 700 }));
    figure.append(made("div", { className: "tools" }, png));
  }

  function draw(choose) {
    for (const figure of document.querySelectorAll("figure.chart")) {
      const spec = figure.querySelector("script[type='application/json']");
      if (spec && figure.offsetParent !== null) plot(figure, JSON.parse(spec.textContent), choose);
    }
  }

  Object.assign(window.epochmark, { draw, plot });
})();
