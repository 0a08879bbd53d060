"use strict";
// Keeps the page of a running study up to date: asks now and then whether anything changed, and puts the new parts in place.

(() => {
  const EVERY_MS = 3000;
  let version = document.getElementById("live").dataset.version;

  const say = (text) => { document.getElementById("live").textContent = text; };

  /** Everything but the planner, which keeps its settings unless the laws themselves changed. */
  function replace(fresh) {
    const laws = (tree) => tree.getElementById("books")?.textContent, same = laws(document) === laws(fresh);
    const planner = document.getElementById("planner");
    if (same && planner) fresh.getElementById("planner").replaceWith(planner);
    for (const button of document.querySelectorAll("nav.switches button")) {
      const twin = [...fresh.querySelectorAll("nav.switches button")].find((one) => one.textContent === button.textContent);
      twin?.setAttribute("aria-pressed", button.getAttribute("aria-pressed"));
    }
    const scroll = window.scrollY, focused = document.activeElement?.id;
    for (const part of ["header.top", "main", "footer"]) document.querySelector(part).replaceWith(fresh.querySelector(part));
    for (const id of ["panels", "books"]) {
      const [old, made] = [document.getElementById(id), fresh.getElementById(id)];
      if (old && made) old.textContent = made.textContent;
      else if (made) document.body.insertBefore(document.importNode(made, true), document.getElementById("panels"));
    }
    document.title = fresh.title;
    window.scrollTo(0, scroll);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    if (!same || !planner) startPlanner();
    page.open();
  }

  async function look() {
    try {
      const answer = await fetch(`/news?than=${encodeURIComponent(version)}`, { cache: "no-store" });
      if (answer.status === 200) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        version = fresh.getElementById("live").dataset.version;
        replace(fresh);
      }
      if (answer.status === 503) say(await answer.text());
      else say(`live, ${answer.status === 200 ? "changed" : "looked"} at ${new Date().toLocaleTimeString()}`);
    } catch {
      say("the server has stopped; what you see is its last state");
    }
    setTimeout(look, EVERY_MS);
  }

  setTimeout(look, EVERY_MS);
})();
