"use strict";
// Draws every panel, those in sight first; follows light and dark, the width of the window and paper; switches noises and layers.

const page = (() => {
  const root = document.documentElement, hidden = { groups: new Set(), layers: new Set() };
  let panels = [];

  const isShown = ({ group, layer }) => !hidden.groups.has(group) && !hidden.layers.has(layer);

  /** All plots with the boxes to fill, those in sight first. Measured together: every drawing changes the page. */
  function plotsByDistance() {
    const all = [...document.querySelectorAll(".plot")].map((plot) => ({ plot, box: plot.getBoundingClientRect() }));
    const distance = ({ box }) => Math.max(box.top - window.innerHeight, -box.bottom, 0);
    return all.sort((one, other) => distance(one) - distance(other));
  }

  const drawOne = ({ plot, box }, look) => plots.draw(plot, panels[Number(plot.dataset.panel)], box, look, isShown);
  const turn = () => new Promise((resume) => setTimeout(resume));
  /** Until what was drawn can be seen; a page in the background shows nothing. */
  const seen = () => (document.hidden ? turn() : new Promise((resume) => requestAnimationFrame(() => setTimeout(resume))));

  async function draw() {
    const look = plots.look(), all = plotsByDistance();
    for (const one of all) {
      await drawOne(one, look);
      if (performance.getEntriesByName("first-figure").length) await turn();
      else await seen().then(() => performance.mark("first-figure"));
      if (isAsked) return;
    }
    performance.mark("all-figures");
    root.dataset.drawn = String(all.length);
  }

  let drawing = Promise.resolve(), isAsked = false;
  /** A drawing that is not finished gives way. */
  function redraw() {
    if (isAsked) return;
    isAsked = true;
    drawing = drawing.then(() => {
      isAsked = false;
      return draw();
    });
  }

  const switchOf = ({ dataset }) => ("layer" in dataset ? [hidden.layers, dataset.layer] : [hidden.groups, dataset.group]);

  function open() {
    panels = JSON.parse(document.getElementById("panels").textContent);
    for (const button of document.querySelectorAll("nav.switches button")) {
      const [set, name] = switchOf(button);
      if (button.getAttribute("aria-pressed") === "false") set.add(name);
    }
    redraw();
  }

  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("nav.switches button");
    if (!button) return;
    const [set, name] = switchOf(button);
    set.has(name) ? set.delete(name) : set.add(name);
    button.setAttribute("aria-pressed", String(!set.has(name)));
    redraw();
  });

  let width = root.clientWidth;
  window.addEventListener("resize", () => { // a phone that hides its bars changes the height alone
    if (root.clientWidth !== width) redraw();
    width = root.clientWidth;
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  // Paper waits for nothing: light colours and the width of a page, at once.
  window.addEventListener("beforeprint", () => {
    root.dataset.print = "";
    const look = plots.look();
    for (const one of plotsByDistance()) drawOne(one, look);
  });
  window.addEventListener("afterprint", () => {
    delete root.dataset.print;
    redraw();
  });

  open();
  return { open };
})();
