"use strict";
// Colours, tables and figures of the page. What comes from data goes in as text, never as HTML.

const page = (() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // An element: its attributes, then children or texts
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // Light and dark: "theme" is sent to the document when colours have changed
  const button = document.getElementById("theme");
  function setTheme(theme) {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "light" : "dark";
    document.dispatchEvent(new Event("theme"));
  }
  button.addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) =>
    setTheme(event.matches ? "dark" : "light"));

  // What is drawn when it comes near the window
  const waiting = new Map();
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) drawNow(entry.target);
  }, { rootMargin: "300px" });
  function whenSeen(element, draw) {
    near.unobserve(element);
    waiting.set(element, draw);
    near.observe(element);
  }
  function drawNow(element) {
    const draw = waiting.get(element);
    waiting.delete(element);
    near.unobserve(element);
    if (draw) draw();
  }

  // Print: light, all drawn, as wide as paper; "width" is sent to the document when widths have changed
  let themeBefore;
  const allDrawn = () => {
    document.dispatchEvent(new Event("width"));
    [...waiting.keys()].forEach(drawNow);
  };
  addEventListener("beforeprint", () => {
    themeBefore = root.dataset.theme;
    root.classList.add("printing");
    setTheme("light");
    allDrawn();
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    setTheme(themeBefore);
    allDrawn();
  });
  let width = innerWidth, timer;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (innerWidth === width) return;
      width = innerWidth;
      document.dispatchEvent(new Event("width"));
    }, 100);
  });

  // Tables: ascending, descending, as it was; cells without a number last
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
  function compare(column, numbers, sign) {
    const value = (row) => parseFloat(row.cells[column].dataset.value);
    return (one, other) => {
      if (!numbers) return sign * one.cells[column].textContent.localeCompare(
        other.cells[column].textContent, undefined, { numeric: true });
      const [a, b] = [value(one), value(other)];
      return isNaN(a) - isNaN(b) || sign * (a - b) || 0;
    };
  }
  function sortable(table) {
    const body = table.tBodies[0], first = [...body.rows], heads = [...table.tHead.rows[0].cells];
    for (const head of heads) head.querySelector("button").addEventListener("click", () => {
      const order = NEXT[head.getAttribute("aria-sort")];
      heads.forEach((each) => each.setAttribute("aria-sort", each === head ? order : "none"));
      const rule = compare(head.cellIndex, head.classList.contains("number"), order === "descending" ? -1 : 1);
      body.append(...(order === "none" ? first : [...first].sort(rule)));
    });
  }
  document.querySelectorAll("table.sortable").forEach(sortable);

  // Figures
  function merged(base, own) {
    const both = { ...base };
    for (const [key, value] of Object.entries(own || {})) {
      const plain = value && typeof value === "object" && !Array.isArray(value);
      both[key] = plain ? merged(typeof base[key] === "object" ? base[key] : {}, value) : value;
    }
    return both;
  }
  const FONT = getComputedStyle(document.body).fontFamily;
  const measure = document.createElement("canvas").getContext("2d");
  function textWidth(text, size) {
    measure.font = `${size}px ${FONT}`;
    return measure.measureText(text).width;
  }
  function legendRows(figure, width) {
    const names = figure.data.filter((trace) => trace.name && trace.showlegend !== false).map((trace) => trace.name);
    if (names.length < 2 && !(figure.layout || {}).showlegend) return 0;
    const widest = Math.max(0, ...names.map((name) => textWidth(name, 13))) + 56;
    return Math.ceil(names.length / Math.max(1, Math.floor((width - 66) / widest)));
  }
  function layoutOf(figure, width) {
    const own = figure.layout || {}, rows = legendRows(figure, width);
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: data.colours, hovermode: "closest",
      font: { color: colour("--ink"), family: FONT, size: 13 }, margin: { l: 52, r: 14, t: own.title ? 48 : 18, b: 44 },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, xanchor: "left", maxheight: 20 * rows + 40 },
      hoverlabel: { bgcolor: colour("--band"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink") },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    };
    const axes = Object.keys(own).filter((key) => /^[xy]axis\d*$/.test(key));
    for (const name of new Set(["xaxis", "yaxis", ...axes])) base[name] = axis;
    return { ...merged(base, own), width, height: (own.height || 380) + 20 * Math.max(0, rows - 1), autosize: false };
  }
  const buttons = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const config = { displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches && "hover", modeBarButtons: buttons };
  function drawFigure(plot) {
    const figure = data.figures[plot.id];
    return Plotly.react(plot, figure.data, layoutOf(figure, plot.parentElement.clientWidth), config);
  }

  // The numbers of a figure as a table
  function rowsOf(traces) {
    if (traces[0].z) return [["", ...traces[0].x], ...traces[0].z.map((row, n) => [traces[0].y[n], ...row])];
    const positions = [...new Set(traces.flatMap((trace) => trace.x || []))];
    const valueAt = (trace, x) => trace.y[trace.x.indexOf(x)] ?? "";
    if (positions.every((x) => typeof x === "number")) positions.sort((a, b) => a - b);
    const named = traces.filter((trace) => Array.isArray(trace.x) && Array.isArray(trace.y));
    return [["", ...named.map((trace) => trace.name || "")], ...positions.map((x) => [x, ...named.map((trace) => valueAt(trace, x))])];
  }
  const shown = (value) => typeof value === "number" ? String(+value.toPrecision(5)) : String(value ?? "");
  function numbers([header, ...rows]) {
    const cell = (tag) => (value) => make(tag, typeof value === "number" ? { class: "number" } : {}, shown(value));
    const line = (values) => make("tr", {}, make("th", { scope: "row" }, shown(values[0])), ...values.slice(1).map(cell("td")));
    const head = make("thead", {}, make("tr", {}, ...header.map((value) => make("th", { scope: "col", class: "plain" }, shown(value)))));
    return make("div", { class: "table-box", tabindex: 0, role: "region", "aria-label": "numbers" },
      make("table", {}, head, make("tbody", {}, ...rows.map(line))));
  }

  for (const id of Object.keys(data.figures)) {
    const plot = document.getElementById(id);
    whenSeen(plot, () => drawFigure(plot));
    const details = plot.parentElement.querySelector("details");
    details.addEventListener("toggle", () => details.append(numbers(rowsOf(data.figures[id].data))), { once: true });
  }
  for (const change of ["theme", "width"]) document.addEventListener(change, () => {
    for (const id of Object.keys(data.figures)) {
      const plot = document.getElementById(id);
      whenSeen(plot, () => drawFigure(plot));
    }
  });
  setTheme(root.dataset.theme);
  return { colour, make, whenSeen, textWidth, numbers, FONT };
})();
