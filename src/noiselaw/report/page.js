"use strict";
// Draws every panel with the colours of the page, those in sight first; follows light and dark; switches noises and layers.

const page = (() => {
  const dark = window.matchMedia("screen and (prefers-color-scheme: dark)"), touch = window.matchMedia("(pointer: coarse)").matches;
  const hidden = { groups: new Set(), layers: new Set() };
  let panels = [];

  function theme() {
    const style = getComputedStyle(document.documentElement), color = (name) => style.getPropertyValue(name).trim();
    return { ink: color("--ink"), soft: color("--soft"), grid: color("--grid"), line: color("--line"), raised: color("--raised") };
  }

  function axisOf(axis, colors) {
    return {
      ...axis, title: { ...axis.title, font: { size: 12, color: colors.soft }, standoff: 8 }, automargin: true, zeroline: false,
      gridcolor: colors.grid, linecolor: colors.line, showline: true, tickfont: { size: 11, color: colors.soft }, tickangle: 0,
    };
  }

  function layoutOf(panel, colors) {
    return {
      xaxis: axisOf(panel.layout.xaxis, colors), yaxis: axisOf(panel.layout.yaxis, colors),
      font: { family: getComputedStyle(document.body).fontFamily, color: colors.ink }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 8, t: 8, b: 8 }, showlegend: false, hovermode: "closest", dragmode: touch ? false : "zoom",
      hoverlabel: { bgcolor: colors.raised, bordercolor: colors.line, font: { color: colors.ink, size: 12 }, align: "left" },
    };
  }

  /** Lines, points and labels that look alike become one trace, with gaps between lines: a thousand runs draw like ten. */
  function merged(traces) {
    const byLook = new Map();
    for (const { x, y, text, ...look } of traces) {
      const apart = look.fill || look.error_x || look.error_y, key = JSON.stringify(apart ? [look, byLook.size] : look);
      const texts = Array.isArray(text) ? text : x.map(() => text), found = byLook.get(key);
      if (!found) byLook.set(key, { ...look, x: [...x], y: [...y], text: texts });
      else if (look.mode === "lines") for (const [all, more] of [[found.x, x], [found.y, y], [found.text, texts]]) all.push(null, ...more);
      else for (const [all, more] of [[found.x, x], [found.y, y], [found.text, texts]]) all.push(...more);
    }
    return [...byLook.values()];
  }

  function tracesOf(panel) {
    return panel.merged.map((trace) => ({
      ...trace, opacity: dark.matches ? 0.5 + 0.5 * (trace.opacity ?? 1) : trace.opacity ?? 1,
      visible: !hidden.groups.has(trace.meta.group) && !hidden.layers.has(trace.meta.layer),
    }));
  }

  function drawOne(plot, colors) {
    const panel = panels[Number(plot.dataset.panel)];
    panel.merged ??= merged(panel.data);
    // Names may hold dollars: they are no formulas.
    const settings = { displaylogo: false, displayModeBar: false, responsive: true, typesetMath: false };
    return Plotly.react(plot, tracesOf(panel), layoutOf(panel, colors), settings);
  }

  /** How far below (or above) the screen a plot lies: those in sight are drawn first. */
  function distance(plot) {
    const { top, bottom } = plot.getBoundingClientRect();
    return Math.max(top - window.innerHeight, -bottom, 0);
  }

  async function draw() {
    if (typeof libraryReady !== "undefined") await libraryReady;
    const colors = theme(), plots = [...document.querySelectorAll(".plot")].map((plot) => [distance(plot), plot]);
    for (const [, plot] of plots.sort(([near], [far]) => near - far)) {
      await drawOne(plot, colors);
      if (!performance.getEntriesByName("first-figure").length) performance.mark("first-figure");
      await new Promise((resume) => setTimeout(resume));
    }
    performance.mark("all-figures");
    document.documentElement.dataset.drawn = String(plots.length);
  }

  let drawing = Promise.resolve();
  const redraw = () => { drawing = drawing.then(draw); };

  function open() {
    panels = JSON.parse(document.getElementById("panels").textContent);
    for (const button of document.querySelectorAll("nav.switches button")) {
      const [set, name] = "layer" in button.dataset ? [hidden.layers, button.dataset.layer] : [hidden.groups, button.dataset.group];
      if (button.getAttribute("aria-pressed") === "false") set.add(name);
    }
    redraw();
  }

  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("nav.switches button");
    if (!button) return;
    const [set, name] = "layer" in button.dataset ? [hidden.layers, button.dataset.layer] : [hidden.groups, button.dataset.group];
    set.has(name) ? set.delete(name) : set.add(name);
    button.setAttribute("aria-pressed", String(!set.has(name)));
    redraw();
  });

  for (const query of [dark, window.matchMedia("print")]) query.addEventListener("change", redraw);
  open();
  return { open, hidden };
})();
