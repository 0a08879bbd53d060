"use strict";
// The planner's controls: sliders and the numbers that they stand for, the plan that follows, and the same on the command line.

function startPlanner() {
  const section = document.getElementById("planner");
  if (!section || !document.getElementById("books")) return;
  const { books, accelerators } = JSON.parse(document.getElementById("books").textContent);
  const { counted, duration, fixed, general, grouped, percent, scientific } = numerals;
  const part = (name) => document.getElementById(`plan-${name}`);
  const LOGARITHMIC = ["flops", "tokens", "days", "unique", "count"], STEP = 0.01, DEFAULT_FACTOR = 10;
  const book = () => books[Number(part("laws").value)];
  const groupNames = () => Object.keys(book().groups);

  // ---- sliders and numbers -------------------------------------------------------------------------------------------
  function number(name) {
    const text = part(name).value.trim(), value = Number(text);
    if (text === "" || Number.isNaN(value)) throw new Error(`${part(`${name}-slider`)?.getAttribute("aria-label") ?? name} “${text}”: give a number`);
    return value;
  }
  function whole(name) {
    if (!Number.isInteger(number(name))) throw new Error(`${part(`${name}-slider`).getAttribute("aria-label")} “${part(name).value}”: give a whole number`);
    return number(name);
  }
  const optional = (name) => (part(name).value.trim() === "" ? null : number(name));

  /** A text that is read as this very number. */
  const exact = (value) => (value >= 1e6 ? value.toExponential().replace("e+", "e") : String(value));
  const fromSlider = (name, position) => (name === "count" ? 2 ** position : LOGARITHMIC.includes(name) ? Number(general(10 ** position, 3)) : position);
  const toSlider = (name, value) => (name === "count" ? Math.log2(value) : LOGARITHMIC.includes(name) ? Math.log10(value) : value);

  function show(name) {
    const slider = part(`${name}-slider`), value = Number(part(name).value);
    if (value > 0) slider.value = String(toSlider(name, value));
    slider.setAttribute("aria-valuetext", part(name).value);
  }

  function write(name, value) {
    part(name).value = exact(value);
    show(name);
  }

  function limits(name, low, high) {
    Object.assign(part(`${name}-slider`), { min: String(Math.floor(Math.log10(low))), max: String(Math.ceil(Math.log10(high))), step: String(STEP) });
  }

  /** Ranges around what the book's laws hold, and a budget ten times beyond. */
  function open() {
    const laws = Object.values(book().groups), largest = Math.max(...laws.map((law) => law.largest_budget));
    const smallest = Math.min(...laws.map((law) => law.smallest_budget)), tokens = (flops) => planner.power(laws[0].tokens, flops);
    limits("flops", smallest / 10, largest * 1e5);
    limits("tokens", tokens(smallest) / 10, tokens(largest * 1e5));
    limits("unique", tokens(smallest) / 1000, tokens(largest * 1e5));
    limits("days", 0.01, 1000);
    const first = Number(general(largest * DEFAULT_FACTOR, 2));
    write("flops", first);
    write("tokens", Number(general(tokens(first), 2)));
    write("unique", Number(general(tokens(first) / 4, 2)));
    Object.assign(part("noise-slider"), { max: String(groupNames().length - 1), value: "0" });
  }

  // ---- what is asked -------------------------------------------------------------------------------------------------
  const kind = () => section.querySelector("input[name=plan-kind]:checked").value;

  function settings() {
    const gpu = part("gpu").value || null, hardware = { gpu, count: 1, mfu: 1, peak: null, price: null };
    const amount = number(kind());
    if (gpu) Object.assign(hardware, { count: whole("count"), mfu: number("mfu"), peak: optional("peak"), price: optional("price") });
    return {
      group: groupNames()[Number(part("noise-slider").value)], hardware,
      budget: kind() === "days" ? { kind: "seconds", amount: amount * planner.SECONDS_PER_DAY } : { kind: kind(), amount },
      unique: part("has-unique").checked ? number("unique") : null,
    };
  }

  const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);

  function command({ group, budget, hardware, unique }) {
    const { gpu, count, mfu, peak, price } = hardware, amount = budget.kind === "seconds" ? number("days") : budget.amount;
    const words = ["noiselaw plan", book().option, `--noise ${quoted(group)}`, `--${kind()} ${exact(amount)}`];
    if (unique !== null) words.push(`--unique-tokens ${exact(unique)}`);
    if (gpu) words.push(`--gpu ${gpu} --count ${count} --mfu ${exact(mfu)}`);
    if (gpu && peak !== null) words.push(`--peak-flops ${exact(peak)}`);
    if (gpu && price !== null) words.push(`--price-per-hour ${exact(price)}`);
    return words.filter(Boolean).join(" ");
  }

  // ---- what comes out ------------------------------------------------------------------------------------------------
  const between = (low_high, digits) => (low_high ? low_high.map((end) => fixed(end, digits)).join(" to ") : "");

  function rows(plan) {
    const { loss, bits_per_byte: bits, surface_loss_before_cooldown: surface, resources: on, published } = plan;
    const days = on && on.seconds / planner.SECONDS_PER_DAY, limit = on && on.device_memory_bytes;
    const lines = {
      "training FLOPs": scientific(plan.flops), "layers × width": `${plan.layers} × ${plan.width}`,
      heads: `${plan.heads} of ${Math.floor(plan.width / plan.heads)}`, "parameters without embedding": counted(plan.params),
      "parameters in all": counted(plan.total_params), "FLOPs per token": scientific(plan.flops_per_token), tokens: counted(plan.tokens),
      "tokens per parameter": fixed(plan.tokens_per_parameter, 1), epochs: plan.epochs === null ? "" : general(plan.epochs, 3),
      batch: `${grouped(plan.batch_sequences)} × ${grouped(plan.sequence_length)} tokens`, steps: grouped(plan.steps),
      "of them": `${grouped(plan.warmup_steps)} warm-up, ${grouped(plan.cooldown_steps)} cooldown`,
      "learning rate": general(plan.learning_rate, 3), "loss, nats per token": fixed(loss.value, 3), "95 % interval": between(loss.interval, 3),
      "before the cooldown": fixed(plan.loss_before_cooldown.value, 3), "by the surface": surface === null ? "" : fixed(surface, 3),
      "cost of repeats": plan.scarcity_penalty === 1 ? "" : `${plan.scarcity_penalty > 1 ? "+" : ""}${fixed(100 * (plan.scarcity_penalty - 1), 1)}%`,
      "bits per byte": bits === null ? "" : fixed(bits.value, 4), "beyond the largest budget": `${general(plan.extrapolation_factor, 3)} times`,
      "of the way in log FLOPs": percent(plan.extrapolation_share),
      machine: on && `${on.count} ${on.accelerator} at ${fixed(100 * on.mfu, 0)}% of peak`,
      "wall-clock": on && (days < 2 ? duration(on.seconds) : `${grouped(days, 1)} days`), cost: on && on.cost !== null && `$${grouped(on.cost)}`,
      "memory per device": on && `${fixed(on.memory_bytes.total / 1e9, 1)}${limit === null ? "" : ` of ${fixed(limit / 1e9, 0)}`} GB${on.checkpointing ? ", checkpointing" : ""}`,
      "sequences at a time": on && `${on.micro_batch_sequences} on each`,
      [`measured by ${published?.name}`]: published && `${fixed(published.loss, 3)} nats per token, ${grouped(published.steps)} steps of ${grouped(published.batch_sequences)} sequences`,
    };
    return Object.entries(lines).filter(([, text]) => text);
  }

  function element(tag, text) {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
  }

  function headline({ loss, ...plan }) {
    const range = loss.interval ? ` (${between(loss.interval, 3)})` : "";
    return `${plan.layers} layer${plan.layers === 1 ? "" : "s"} of width ${plan.width}, ${counted(plan.params)} parameters, on ${counted(plan.tokens)} tokens: loss ${fixed(loss.value, 3)}${range}`;
  }

  function answer(plan) {
    part("headline").textContent = plan ? headline(plan) : "";
    part("table").replaceChildren(...(plan ? rows(plan) : []).map(([label, text]) => {
      const row = document.createElement("tr"), head = element("th", label);
      head.scope = "row";
      row.append(head, element("td", text));
      return row;
    }));
    part("flags").replaceChildren(...(plan ? [...book().notes, ...plan.flags] : []).map((flag) => element("li", flag)));
    section.dataset.plan = plan ? JSON.stringify(plan) : "";
  }

  function refresh() {
    const group = groupNames()[Number(part("noise-slider").value)], needs = part("gpu").value !== "";
    part("noise").textContent = group;
    part("noise-slider").setAttribute("aria-valuetext", group);
    section.style.setProperty("--color", book().colors[group]);
    for (const name of ["flops", "tokens", "days"]) part(`${name}-row`).hidden = kind() !== name;
    part("unique-row").hidden = !part("has-unique").checked;
    part("machine").hidden = !needs;
    let plan = null, error = "", asked = "";
    try {
      const wanted = settings();
      asked = command(wanted);
      plan = planner.plan(book(), accelerators, wanted);
    } catch (fault) {
      error = fault.message;
    }
    Object.assign(part("error"), { textContent: error, hidden: !error });
    part("command").textContent = asked;
    answer(plan);
  }

  section.addEventListener("input", ({ target }) => {
    const name = target.id.replace(/^plan-|-slider$/g, "");
    if (target.type === "range" && name !== "noise") write(name, fromSlider(name, Number(target.value)));
    else if (target.type === "text" && part(`${name}-slider`)) show(name);
    if (target.id === "plan-laws") open();
    refresh();
  });
  write("count", 8);
  write("days", 7);
  write("mfu", Number(part("mfu-slider").getAttribute("value")));
  open();
  refresh();
}

startPlanner();
