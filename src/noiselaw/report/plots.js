"use strict";
// A panel as plotly draws it into a box of so many pixels: traces, axes, and the room that ticks and titles take.

const plots = (() => {
  const TICK = 11, TITLE = 12, LABEL = 10, LINE = 1.3, GAP = 8, PAD = "\u2002"; // pixels; LINE in heights of a text
  const pen = document.createElement("canvas").getContext("2d");

  /** What the page looks like now. */
  function look() {
    const style = getComputedStyle(document.body), color = (name) => style.getPropertyValue(name).trim();
    return {
      ink: color("--ink"), soft: color("--soft"), grid: color("--grid"), line: color("--line"), raised: color("--raised"),
      font: style.fontFamily, isDark: style.getPropertyValue("--is-dark").trim() === "1",
    };
  }

  /** How wide a text is drawn; the three signs of HTML come escaped. */
  function widthOf(text, size, font) {
    pen.font = `${size}px ${font}`;
    return pen.measureText(text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&")).width;
  }

  /** Where a value lies on an axis: 0 at its low end, 1 at its high end. */
  function share({ type, range: [low, high] }, value) {
    return ((type === "log" ? Math.log10(value) : value) - low) / (high - low);
  }

  /** The room around the axes. Plotly would find it by drawing ticks and titles twice. */
  function margin({ xaxis, yaxis }, box, font) {
    const title = (axis) => (axis.title.text ? GAP + LINE * TITLE : 0), ticks = yaxis.ticktext.map((text) => widthOf(text, TICK, font));
    const left = Math.min(GAP + Math.max(0, ...ticks) + title(yaxis), 0.6 * box.width);
    const last = xaxis.tickvals.length - 1, free = (1 - share(xaxis, xaxis.tickvals[last])) * (box.width - left);
    const beyond = last < 0 ? 0 : widthOf(xaxis.ticktext[last], TICK, font) / 2 - free;
    return { l: left, r: Math.max(GAP, beyond), t: GAP, b: GAP + LINE * TICK + title(xaxis) };
  }

  function axis(given, look) {
    return {
      ...given, title: { ...given.title, font: { size: TITLE, color: look.soft }, standoff: GAP }, zeroline: false, gridcolor: look.grid,
      linecolor: look.line, showline: true, tickfont: { size: TICK, color: look.soft }, tickangle: 0,
    };
  }

  function layout(panel, box, look) {
    return {
      width: box.width, height: box.height, margin: margin(panel.layout, box, look.font),
      xaxis: axis(panel.layout.xaxis, look), yaxis: axis(panel.layout.yaxis, look),
      font: { family: look.font, color: look.ink }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      showlegend: false, hovermode: "closest", dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
      hoverlabel: { bgcolor: look.raised, bordercolor: look.line, font: { color: look.ink, size: 12 }, align: "left" },
    };
  }

  /** Lines, points and labels that look alike become one trace, with gaps between lines: a thousand runs draw like ten. */
  function merged(traces) {
    const byLook = new Map();
    for (const { x, y, text, ...looks } of traces) {
      const apart = looks.fill || looks.error_x || looks.error_y, key = JSON.stringify(apart ? [looks, byLook.size] : looks);
      const texts = Array.isArray(text) ? text : x.map(() => text), found = byLook.get(key);
      if (!found) byLook.set(key, { ...looks, x: [...x], y: [...y], text: texts });
      else if (looks.mode === "lines") for (const [all, more] of [[found.x, x], [found.y, y], [found.text, texts]]) all.push(null, ...more);
      else for (const [all, more] of [[found.x, x], [found.y, y], [found.text, texts]]) all.push(...more);
    }
    return [...byLook.values()];
  }

  /** Labels that would leave the box change sides; one that would cover another is left out, for hovering still tells it. */
  function arranged(trace, panel, box, look, taken) {
    const { l, r, t, b } = margin(panel.layout, box, look.font), { xaxis, yaxis } = panel.layout;
    const text = [], textposition = [];
    trace.text.forEach((label, index) => {
      const x = l + share(xaxis, trace.x[index]) * (box.width - l - r), y = t + (1 - share(yaxis, trace.y[index])) * (box.height - t - b);
      const width = widthOf(PAD + label, LABEL, look.font), isRight = trace.textposition.endsWith("right") ? x + width <= box.width : x - width < 0;
      const start = isRight ? x : x - width, isFree = taken.every((one) => Math.abs(one.y - y) >= 0.8 * LABEL || one.start >= start + width || one.end <= start);
      if (isFree) taken.push({ start, end: start + width, y });
      text.push(!isFree ? "" : isRight ? PAD + label : label + PAD);
      textposition.push(isRight ? "middle right" : "middle left");
    });
    return { ...trace, text, textposition };
  }

  /** Colours are chosen for white paper; on dark they are a quarter lighter. */
  function lit(part) {
    const mixed = part.color && [1, 3, 5].map((at) => Math.round(0.75 * parseInt(part.color.slice(at, at + 2), 16) + 64));
    return { ...part, ...(mixed && { color: `rgb(${mixed})` }), ...(part.line && { line: lit(part.line) }) };
  }

  function onDark(trace) {
    const parts = ["line", "marker", "error_x", "error_y"].filter((name) => name in trace);
    return { ...trace, ...Object.fromEntries(parts.map((name) => [name, lit(trace[name])])), opacity: 0.5 + 0.5 * (trace.opacity ?? 1) };
  }

  /** `isShown` tells of a trace's group and layer whether they are switched on. */
  function traces(panel, box, look, isShown) {
    panel.merged ??= merged(panel.data);
    const taken = [];
    return panel.merged.map((trace) => {
      const visible = isShown(trace.meta), placed = visible && trace.mode === "text" ? arranged(trace, panel, box, look, taken) : trace;
      return { ...(look.isDark ? onDark(placed) : placed), visible };
    });
  }

  /** Draws at once, unlike the promise it gives: names hold no formulas, nothing is fetched. */
  function draw(plot, panel, box, look, isShown) {
    const settings = { displaylogo: false, displayModeBar: false, typesetMath: false };
    const drawn = Plotly.react(plot, traces(panel, box, look, isShown), layout(panel, box, look), settings);
    for (const svg of plot.querySelectorAll(".main-svg")) svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`); // paper of another width
    return drawn;
  }

  return { draw, look };
})();
