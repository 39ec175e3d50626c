"use strict";
// Heat maps of attention: sentence, step, pieces or words are chosen for all systems of a section together.

for (const box of document.querySelectorAll(".attention")) attention(box);

function attention(box) {
  const { make, numbers } = page;
  const sentences = JSON.parse(box.querySelector("script").textContent);
  const find = (selector) => box.querySelector(selector);
  const [choice, slider, merge, play, panels] = ["select", "input[type=range]", ".merge", ".play", ".panels"].map(find);
  let shown = [], step = 0, timer = null;

  sentences.forEach((sentence, n) => choice.append(make("option", { value: n }, `${n + 1}: ${cut(sentence.text, 70)}`)));
  choice.addEventListener("change", show);
  if (merge) merge.addEventListener("change", show);
  slider.addEventListener("input", () => setStep(slider.valueAsNumber));
  find(".back").addEventListener("click", () => setStep(step - 1));
  find(".on").addEventListener("click", () => setStep(step + 1));
  play.addEventListener("click", () => timer ? stop() : start());
  box.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target === choice || event.target === slider || event.target.closest(".table-box")) return;
    event.preventDefault();
    setStep(step + by);
  });
  for (const change of ["theme", "width"]) document.addEventListener(change, redraw);
  show();

  function start() {
    if (step >= last()) setStep(0);
    timer = setInterval(() => step < last() ? setStep(step + 1) : stop(), 900);
    pressed(true);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    pressed(false);
  }
  function pressed(on) {
    play.setAttribute("aria-pressed", on);
    play.textContent = on ? "pause" : "play";
  }
  function last() {
    return Math.max(...shown.map(({ view }) => view.target.length));
  }

  // The panels of a sentence
  function show() {
    stop();
    const systems = sentences[choice.selectedIndex].panels;
    if (merge) merge.disabled = systems.every(({ views }) => views.length < 2);
    shown = systems.map(({ title, views }) => {
      const view = views[merge && merge.checked ? views.length - 1 : 0];
      const panel = { title, view, source: words(view.source), target: words(view.target) };
      panel.reads = make("p", { class: "reads" });
      panel.plot = make("div", { class: "plot", role: "img", "aria-label": `heat map of ${title}` });
      panel.row = make("div", { class: "row", hidden: "" });
      panel.map = make("div", { class: "map" }, panel.plot, panel.row);
      panel.figure = make("figure", { class: "panel" }, make("figcaption", {}, title), line("source", panel.source),
        line("output", panel.target), panel.reads, panel.map, inWords(view));
      return panel;
    });
    panels.replaceChildren(...shown.map(({ figure }) => figure));
    slider.max = last();
    redraw();
    setStep(0);
  }
  function redraw() {
    for (const panel of shown) page.whenSeen(panel.plot, () => { draw(panel); mark(panel); });
  }
  function words(symbols) {
    return symbols.map((symbol) => make("span", {}, symbol));
  }
  function line(label, spans) {
    return make("div", { class: "words", dir: "auto", role: "group", "aria-label": label }, ...spans);
  }
  function inWords(view) {
    const details = make("details", {}, make("summary", {}, "In words and numbers"));
    details.addEventListener("toggle", () => {
      const list = make("ul", {}, ...view.target.map((word, t) => make("li", {}, `${word}: ${strongest(view, t)}`)));
      details.append(list, numbers([["", ...view.source], ...view.target.map((word, t) => [word, ...view.weights[t]])]));
    }, { once: true });
    return details;
  }
  function strongest(view, t) {
    const order = view.source.map((word, s) => [view.weights[t][s], word]).sort((a, b) => b[0] - a[0]);
    return order.filter(([weight], n) => n === 0 || (n < 3 && weight >= 0.05))
      .map(([weight, word]) => `${word} ${weight.toFixed(2)}`).join(", ");
  }

  // A step: the word that is written, what is read for it. 0 is none
  function setStep(to) {
    step = Math.min(Math.max(to, 0), last());
    slider.value = step;
    const where = step ? `Word ${step} of ${last()} of the output` : "Step through the output: buttons, slider, arrow keys, or a click into a map.";
    slider.setAttribute("aria-valuetext", where);
    find(".where").textContent = where;
    shown.forEach(mark);
    find(".said").textContent = step ? shown.slice(0, 4).map(({ title, reads }) => `${title}: ${reads.textContent}`).join("; ") : "";
  }
  function mark(panel) {
    const { view, row, geometry } = panel, t = step - 1, reads = t >= 0 && t < view.target.length;
    panel.source.forEach((span, s) => span.style.setProperty("--weight", reads ? view.weights[t][s] : 0));
    panel.target.forEach((span, n) => {
      span.classList.toggle("now", n === t);
      span.classList.toggle("later", t >= 0 && n > t);
    });
    panel.reads.textContent = reads ? `${view.target[t]} reads ${strongest(view, t)}` : "";
    row.hidden = !reads || !geometry;
    if (row.hidden) return;
    const { left, top, width, high } = geometry;
    Object.assign(row.style, { left: `${left - 2}px`, top: `${top + t * high - 1}px`, width: `${width + 4}px`, height: `${high + 2}px` });
  }

  // A heat map
  function draw(panel) {
    const { view, plot, map } = panel;
    const [source, target] = [view.source, view.target].map((symbols) => symbols.map((symbol) => cut(symbol, 16)));
    const widest = (labels) => Math.max(0, ...labels.map((label) => page.textWidth(label, 12)));
    const [left, right] = [widest(target) + 16, 16];
    const wide = within((map.clientWidth - left - right) / source.length, 12, 38);
    const high = within(wide, 16, 26);
    const turned = wide < 16 || widest(source.filter((label) => label !== "</s>")) > wide - 2;
    const top = (turned ? widest(source) : 14) + 14;
    const [width, height] = [wide * source.length, high * target.length];
    panel.geometry = { left, top, width, high };
    const axis = { showgrid: false, zeroline: false, fixedrange: true, ticks: "outside", ticklen: 4, tickcolor: "rgba(0,0,0,0)", tickfont: { size: 12 } };
    const ticks = (labels) => ({ tickvals: labels.map((_, n) => n), ticktext: labels.map(escaped) });
    const heat = {
      type: "heatmap", z: view.weights, zmin: 0, zmax: 1, colorscale: "Cividis", showscale: false, xgap: 1, ygap: 1,
      customdata: view.target.map((word) => view.source.map((read) => [escaped(read), escaped(word)])),
      hovertemplate: "source: %{customdata[0]}<br>output: %{customdata[1]}<br>weight: %{z:.3f}<extra></extra>",
    };
    const layout = {
      width: left + width + right, height: top + height + 6, margin: { l: left, r: right, t: top, b: 6 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: page.colour("--line"), font: { color: page.colour("--ink"), family: page.FONT },
      hoverlabel: { bgcolor: page.colour("--band"), bordercolor: page.colour("--line"), font: { color: page.colour("--ink") }, align: "left" },
      xaxis: { ...axis, ...ticks(source), side: "top", tickangle: turned ? -90 : 0, range: [-0.5, source.length - 0.5] },
      yaxis: { ...axis, ...ticks(target), range: [target.length - 0.5, -0.5] },
    };
    const first = !plot.classList.contains("js-plotly-plot");
    Plotly.react(plot, [heat], layout, { displayModeBar: false });
    if (first) plot.on("plotly_click", ({ points }) => setStep(points[0].pointIndex[0] + 1));
  }
  function within(value, low, high) {
    return Math.min(Math.max(value, low), high);
  }
  function cut(text, length) {
    const characters = [...text];
    return characters.length > length ? `${characters.slice(0, length - 1).join("")}…` : text;
  }
  function escaped(text) {  // plotly reads mark-up in labels
    return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }
}
