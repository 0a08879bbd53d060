"use strict";
// Plays a trace: decodes every frame once, then a step only touches the tokens whose look changes.

const trace = JSON.parse(document.getElementById("trace").textContent);
const shades = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const shade = Object.fromEntries([...shades].map((letter, index) => [letter, index / (shades.length - 1)]));
const numFrames = trace.frames.length;
const memory = Math.max(4, numFrames / 10); // steps until a change has faded
const one = (selector) => document.querySelector(selector);
const slider = one("#step"), play = one("#play"), where = one("#where"), speed = one("#speed"), activity = one("#activity");
const boxes = [...document.querySelectorAll(".text")];
let frame = 0, timer = null, colour = one("input[name=colour]:checked").value;

function decode(sample) {
  let tokens = new Int32Array(sample.given.length), since = new Int32Array(sample.given.length);
  return sample.frames.map(([changes, support, noise], index) => {
    tokens = tokens.slice();
    since = since.slice();
    for (const [position, piece] of changes) {
      tokens[position] = piece;
      if (index) since[position] = index;
    }
    return { tokens, since, support, noise };
  });
}

const samples = trace.samples.map(decode);
const spans = trace.samples.map((sample, row) => sample.given.map((given) => {
  const span = document.createElement("b");
  if (given) span.className = "given";
  boxes[row].append(span);
  return span;
}));

function depth(state, position, at) {
  if (colour === "noise") return shade[state.noise[position]];
  if (colour === "confidence") return state.tokens[position] === trace.mask ? 0 : 1 - shade[state.support[position]];
  return at && state.since[position] ? Math.max(0, 1 - (at - state.since[position]) / memory) : 0;
}

function show(piece) {
  return trace.pieces[piece].replaceAll("\n", "↵\n");
}

function draw() {
  samples.forEach((states, row) => {
    const state = states[frame];
    boxes[row].className = `text ${colour}`;
    spans[row].forEach((span, position) => {
      const piece = state.tokens[position];
      if (span.piece !== piece) {
        span.textContent = show(piece);
        span.piece = piece;
      }
      if (trace.samples[row].given[position]) return;
      const look = (piece === trace.mask ? "mask " : "") + (frame && state.since[position] === frame ? "now" : "");
      if (span.className !== look) span.className = look;
      const p = depth(state, position, frame).toFixed(2);
      if (span.p !== p) {
        span.style.setProperty("--p", p);
        span.p = p;
      }
    });
  });
  const [step, level] = trace.frames[frame], last = trace.frames[numFrames - 1][0];
  const clean = level === null ? "" : ` · log-SNR ${level.toFixed(2)}, ${(100 / (1 + Math.exp(-level))).toFixed(level > 4 ? 2 : 0)} % signal`;
  where.textContent = `step ${step} of ${last}${clean}`;
  slider.value = String(frame);
  slider.setAttribute("aria-valuetext", where.textContent);
  document.documentElement.dataset.frame = String(frame);
}

function go(to) {
  frame = Math.min(numFrames - 1, Math.max(0, to));
  draw();
}

function pause() {
  clearInterval(timer);
  timer = null;
  play.textContent = "▶";
  play.setAttribute("aria-label", "Play");
}

function start() {
  if (frame === numFrames - 1) go(0);
  play.textContent = "❚❚";
  play.setAttribute("aria-label", "Pause");
  timer = setInterval(() => {
    go(frame + 1);
    if (frame === numFrames - 1) pause();
  }, 1000 / Number(speed.value));
}

function toggle() {
  timer === null ? start() : pause();
}

function step(by) {
  pause();
  go(frame + by);
}

// How many tokens each step rewrote, over the slider.
function drawActivity() {
  const counts = trace.frames.map((_, index) => index && trace.samples.reduce((sum, sample) => sum + sample.frames[index][0].length, 0));
  const most = Math.max(1, ...counts);
  activity.setAttribute("viewBox", `0 0 ${Math.max(1, numFrames - 1)} 1`);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", counts.map((count, index) => (count ? `M${index} 1V${1 - count / most}` : "")).join(""));
  activity.append(path);
}

function describe(span, row, position) {
  const state = samples[row][frame];
  const percent = (letter) => `${Math.round(100 * shade[letter])} %`;
  if (trace.samples[row].given[position]) return "given";
  const changed = state.since[position] ? `, written at step ${trace.frames[state.since[position]][0]}` : "";
  if (state.tokens[position] === trace.mask) return `mask${changed}`;
  return `noise ${percent(state.noise[position])}, confidence ${percent(state.support[position])}${changed}`;
}

boxes.forEach((box, row) => box.addEventListener("pointerover", ({ target }) => {
  const position = spans[row].indexOf(target);
  if (position >= 0) target.title = describe(target, row, position);
}));
play.addEventListener("click", toggle);
one("#back").addEventListener("click", () => step(-1));
one("#forward").addEventListener("click", () => step(1));
slider.addEventListener("input", () => { pause(); go(Number(slider.value)); });
speed.addEventListener("change", () => { if (timer !== null) { pause(); start(); } });
for (const radio of document.querySelectorAll("input[name=colour]")) {
  radio.addEventListener("change", () => { colour = radio.value; draw(); });
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, summary")) return;
  const actions = { " ": toggle, ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => step(-numFrames), End: () => step(numFrames) };
  if (!(event.key in actions) || (event.key === " " && event.target.matches("button"))) return;
  event.preventDefault();
  actions[event.key]();
});

// Texts keep their place while they play: every box is as high as it will ever be at the start or the end.
function holdHeights() {
  for (const at of [0, numFrames - 1]) {
    go(at);
    for (const box of boxes) box.style.minHeight = `${Math.max(box.offsetHeight, parseFloat(box.style.minHeight) || 0)}px`;
  }
}

drawActivity();
holdHeights();
go(0);
document.documentElement.dataset.drawn = String(boxes.length);
