"use strict";
// Plans as `noiselaw plan` makes them, from the laws in the page: noiselaw/laws/planner.py and what it calls, in the same
// order of float64 operations. M FLOPs per token, D tokens, C = M * D training FLOPs without head; losses in nats per token.

const planner = (() => {
  const COOLDOWN_SHARE = 0.2, MAX_WARMUP_STEPS = 2000, MAX_WARMUP_SHARE = 0.1, MAX_FLOPS = 1e35, FICTION = 1e6, SAME_RUN = 0.05;
  const NUM_TRIALS = 4001, SAME_LOSS = 1e-10, HALVINGS = 40, MOST_FOR_HEAD = Math.log(1e6), SECONDS_PER_DAY = 86400, SECONDS_PER_HOUR = 3600;
  const { grouped, fixed, general, repr, roundEven } = numerals;

  // ---- laws ----------------------------------------------------------------------------------------------------------
  const power = ([coefficient, exponent], x) => coefficient * x ** exponent;
  const inverse = ([coefficient, exponent], y) => (y / coefficient) ** (1 / exponent);

  function surfaceTerms(surface, size, tokens) {
    return [surface.A * size ** -surface.alpha, surface.B * tokens ** -surface.beta, surface.E];
  }
  const surfaceLoss = (surface, size, tokens) => surfaceTerms(surface, size, tokens).reduce((sum, term) => sum + term, 0);

  function surfaceError(surface, size, tokens) {
    const [first, second, floor] = surfaceTerms(surface, size, tokens), loss = first + second + floor;
    const gradient = [first, -first * Math.log(size), second, -second * Math.log(tokens), floor].map((part) => part / loss);
    const turned = surface.covariance.map((row) => row.reduce((sum, value, at) => sum + value * gradient[at], 0));
    return Math.sqrt(Math.max(turned.reduce((sum, value, at) => sum + value * gradient[at], 0), 0));
  }

  function interval(law, value, error) {
    if (error === null || law.scatter === null) return null;
    const half = law.quantile * Math.hypot(error, law.scatter);
    return [value * Math.exp(-half), value * Math.exp(half)];
  }

  function predict(law, flops, size) {
    const tokens = flops / size;
    let surface = null, surfaceInterval = null;
    if (law.surface) {
      surface = surfaceLoss(law.surface, size, tokens);
      surfaceInterval = interval(law, surface, law.scatter === null ? null : law.scatter * surfaceError(law.surface, size, tokens));
    }
    let value = surface, low_high = surfaceInterval;
    if (law.loss) {
      const x = Math.log(flops), [a, b, c] = law.covariance ?? [];
      value = power(law.loss, flops);
      low_high = interval(law, value, law.covariance ? Math.sqrt(Math.max(a + x * (2 * b + x * c), 0)) : null);
    }
    if (value === null) throw new Error(`group ${law.group}: neither a law of the loss nor a surface; fit one of them`);
    if (low_high && surfaceInterval) {
      low_high = [Math.min(low_high[0], surfaceInterval[0]), Math.max(low_high[1], surfaceInterval[1])];
    }
    return { value, interval: low_high, surface, beyond: flops / law.largest_budget };
  }

  // ---- scarce data: tokens seen again, size beyond what they carry ----------------------------------------------------
  const decayed = (excess, rate) => (rate > 0 ? -Math.expm1(-rate * excess) / rate : excess);

  function repeatedLoss(surface, repeats, size, tokens, unique) {
    const logN = Math.log(size), logD = Math.log(tokens), logU = Math.min(Math.log(unique), logD);
    const effectiveD = logU + Math.log1p(decayed(Math.expm1(logD - logU), repeats.inverse_tokens));
    const { E, A, alpha, B, beta } = surface, optimal = (Math.log((alpha * A) / (beta * B)) + beta * logU) / alpha;
    const logUn = Math.min(logN, optimal);
    const effectiveN = logUn + Math.log1p(decayed(Math.expm1(logN - logUn), repeats.inverse_size));
    return E + A * Math.exp(-alpha * effectiveN) + B * Math.exp(-beta * effectiveD);
  }

  function bestScarceSize(law, flops, unique) {
    if (!(unique > 0)) throw new Error(`unique_tokens ${general(unique)}: give how many training tokens there are`);
    const optimal = power(law.flops_per_token, flops);
    if (flops / optimal <= unique) return { size: optimal, penalty: 1 };
    const surface = law.surface;
    if (!surface) {
      throw new Error(`group ${law.group}: no loss surface, so repeats cannot be weighed against size; add what \`noiselaw laws surface --json\` says`);
    }
    const { A, alpha, B, beta } = surface, total = alpha + beta;
    const moved = power([((alpha * A) / (beta * B)) ** (1 / total), beta / total], flops) / optimal, own = unique / moved;
    const enough = (((alpha * A) / (beta * B)) * own ** beta) ** (1 / alpha);
    const low = Math.log10(enough), step = (Math.log10(flops / own) - low) / (NUM_TRIALS - 1);
    const sizes = Array.from({ length: NUM_TRIALS }, (_, trial) => 10 ** (low + trial * step));
    [sizes[0], sizes[NUM_TRIALS - 1]] = [enough, flops / own];
    const losses = sizes.map((size) => repeatedLoss(surface, law.repeats, size, flops / size, own)), least = Math.min(...losses);
    const size = sizes[losses.findIndex((loss) => loss <= least * (1 + SAME_LOSS))];
    return { size: size / moved, penalty: least / surfaceLoss(surface, optimal * moved, flops / (optimal * moved)) };
  }

  // ---- shapes --------------------------------------------------------------------------------------------------------
  function parameters(book, layers, width) {
    const biases = (book.mlp_bias ? 5 * width : 0) + (book.attention_sink ? 2 * width : 0);
    const matrices = 12 * layers * width ** 2, embedding = book.vocab_size * width;
    const own = matrices + layers * 4 * width + width + layers * biases;
    return { matrices, embedding, own, total: own + 2 * embedding };
  }

  const published = (layers, width) => 6 * (layers * (12 * width ** 2 + 14 * width) + width);
  const CONVENTIONS = {
    "72Ld2+12Lds": (L, d, H, s) => 72 * L * d ** 2 + 12 * L * d * s,
    "6P+12Lds": (L, d, H, s) => published(L, d) + 12 * L * d * s,
    "6P": (L, d) => published(L, d),
    "72Ld2+12Lds+9LHs": (L, d, H, s) => 72 * L * d ** 2 + 12 * L * d * s + 9 * L * H * s,
  };

  function multipleOf(width) {
    const quarter = Math.max(Math.floor(width / 4), 1);
    return Math.min(Math.max(2 ** (31 - Math.clz32(quarter)), 8), 512);
  }

  function shapeOf(book, layers, width) {
    const heads = Math.floor(width / Math.min(width <= 1024 ? 64 : 128, multipleOf(width)));
    return { layers, width, heads, size: CONVENTIONS[book.convention](layers, width, heads, book.sequence_length) };
  }

  function shapesNear(book, size) {
    let narrower = null, width = 16, layers;
    for (;;) {
      const one = shapeOf(book, 1, width).size, exact = 1 + (size - one) / (shapeOf(book, 2, width).size - one);
      layers = Math.max(1, roundEven(exact));
      if (exact <= 1 || width >= (width <= 2048 ? 64 : 128) * layers) break;
      [narrower, width] = [width, width + multipleOf(width)];
    }
    const shapes = [layers - 1, layers, layers + 1].filter((count) => count > 0).map((count) => shapeOf(book, count, width));
    return layers === 1 && narrower !== null ? [shapeOf(book, 1, narrower), ...shapes] : shapes;
  }

  function nearest(optimal, shapes) {
    const distances = shapes.map(({ size }) => Math.abs(Math.log(size / optimal)));
    const shape = shapes[distances.indexOf(Math.min(...distances))], sizes = shapes.map(({ size }) => size), flags = [];
    if (optimal < Math.min(...sizes) || optimal > Math.max(...sizes)) flags.push("the optimal size lies outside the candidates");
    if (Math.max(shape.size / optimal, optimal / shape.size) > 1.5) {
      flags.push(`the nearest candidate is ${fixed(shape.size / optimal, 2)} times the optimal size`);
    }
    return { shape, flags };
  }

  // ---- budget, batch, steps ------------------------------------------------------------------------------------------
  function draft(book, law, flops, unique) {
    const scarce = unique === null ? null : bestScarceSize(law, flops, unique);
    const optimal = scarce ? scarce.size : power(law.flops_per_token, flops);
    return { optimal, scarce, ...nearest(optimal, shapesNear(book, optimal)) };
  }

  const withHead = (book, shape) => shape.size + 6 * book.vocab_size * shape.width;

  function budgetFlops(book, law, { kind, amount }, machine, unique) {
    if (kind === "flops") return amount;
    if (kind === "tokens") return inverse(law.tokens, amount);
    if (!machine) throw new Error("a budget of time needs a machine: say which accelerators there are, and how many");
    const total = machine.speed * amount;
    let [low, high] = [Math.log(total) - MOST_FOR_HEAD, Math.log(total)];
    for (let round = 0; round < HALVINGS; round++) {
      const middle = (low + high) / 2, flops = Math.exp(middle), { shape } = draft(book, law, flops, unique);
      [low, high] = flops * withHead(book, shape) > total * shape.size ? [low, middle] : [middle, high];
    }
    return Math.exp(low);
  }

  function snapBatch(sequences, devices) {
    let best = Infinity, snapped = devices;
    for (let exponent = 0; exponent < 48; exponent++) {
      for (const batch of [2 ** exponent * devices, 3 * 2 ** exponent * devices]) {
        const distance = Math.abs(Math.log(batch / sequences));
        if (distance < best) [best, snapped] = [distance, batch];
      }
    }
    return snapped;
  }

  function roundSteps(steps, up) {
    const most = Math.max(steps / 40, 1), decade = 10 ** Math.floor(Math.log10(most)), unit = 5 * decade <= most ? 5 * decade : decade;
    return Math.max(1, unit * (up ? Math.ceil(steps / unit - 1e-9) : Math.floor(steps / unit + 1e-9)));
  }

  function pace(book, law, tokens, machine, up) {
    const wanted = power(law.batch_tokens, tokens), batch = snapBatch(wanted / book.sequence_length, machine ? machine.count : 1);
    return { wanted, batch, steps: roundSteps(tokens / (batch * book.sequence_length), up) };
  }

  // ---- machine -------------------------------------------------------------------------------------------------------
  function machineOf(known, { gpu, count, mfu, peak, price }) {
    if (gpu === null) return null;
    for (const [option, value] of [["peak_flops", peak], ["price_per_hour", price]]) {
      if (value !== null && !(Number.isFinite(value) && value > 0)) throw new Error(`${option} ${repr(value)}: give a positive number`);
    }
    const device = { ...known[gpu], peak_flops: peak ?? known[gpu].peak_flops, price_per_hour: price ?? known[gpu].price_per_hour };
    if (price !== null) device.price_source = null;
    if (count < 1) throw new Error(`count ${count}: a machine needs at least one device`);
    if (!(mfu > 0 && mfu <= 1)) throw new Error(`mfu ${repr(mfu)}: the share of the peak lies above 0 and up to 1; 0.3 to 0.5 is usual`);
    if (!(device.peak_flops > 0)) throw new Error(`${device.name}: peak of None FLOP/s; give it with --peak-flops`);
    return { device, count, mfu, speed: count * device.peak_flops * mfu };
  }

  function memoryOf(book, shape, sequences, machine, checkpointing) {
    const { total, embedding, own } = parameters(book, shape.layers, shape.width), { device, count } = machine;
    const half = device.precision === "bfloat16", tokens = sequences * book.sequence_length, block = half ? 64 : 88;
    const copies = count > 1 ? 2 * ((2 * own) / shape.layers + 2 * embedding) : half ? total : 0;
    const parts = {
      weights: (4 * total) / count, gradients: (4 * total) / count, optimizer: (8 * total) / count, gathered: (half ? 2 : 4) * copies,
      activations: tokens * shape.width * (checkpointing ? 4 * shape.layers + block : block * shape.layers),
      head: Math.min(tokens, 1024) * book.vocab_size * 12 + 4 * embedding,
    };
    const bytes = Object.values(parts).reduce((sum, part) => sum + part, 0), limit = device.memory_bytes;
    return { bytes: { ...parts, total: bytes }, sequences, checkpointing, fits: limit === null ? null : bytes <= 0.9 * limit };
  }

  function planMemory(book, shape, sequences, machine) {
    let memory = null;
    for (const checkpointing of [false, true]) {
      for (let count = sequences; count > 0; count--) {
        if (sequences % count) continue;
        memory = memoryOf(book, shape, count, machine, checkpointing);
        if (memory.fits !== false) return memory;
      }
    }
    return memory;
  }

  function resourcesOf(book, shape, batch, tokens, machine) {
    const flops = withHead(book, shape) * tokens, seconds = flops / machine.speed, { device, count } = machine;
    const memory = planMemory(book, shape, Math.ceil(batch / count), machine), price = device.price_per_hour;
    return {
      accelerator: device.name, count, mfu: machine.mfu, peak_flops: device.peak_flops, total_flops: flops, seconds,
      device_hours: (count * seconds) / SECONDS_PER_HOUR, price_per_hour: price, price_source: device.price_source,
      cost: price === null ? null : (price * count * seconds) / SECONDS_PER_HOUR, memory_bytes: memory.bytes,
      device_memory_bytes: device.memory_bytes, fits: memory.fits, micro_batch_sequences: memory.sequences,
      checkpointing: memory.checkpointing,
    };
  }

  // ---- the loss as it will be, and what to doubt -----------------------------------------------------------------------
  function forecast(book, law, prediction, penalty) {
    const value = prediction.value * penalty, { surface } = prediction, factor = book.bits_per_byte_per_nat;
    let before = prediction.interval, final = value, low_high;
    if (before) before = [before[0] * (law.knows_repeats ? penalty : 1), before[1] * penalty];
    low_high = before;
    if (book.cooldown) {
      final = value / book.cooldown.value;
      const doubt = (book.cooldown.quantile * book.cooldown.deviation) / book.cooldown.value;
      const [low, high] = (before ?? []).map((end) => Math.hypot(Math.log(end / value), doubt));
      low_high = before && [final * Math.exp(-low), final * Math.exp(high)];
    }
    return {
      loss: { value: final, interval: low_high }, loss_before_cooldown: { value, interval: before },
      surface_loss_before_cooldown: surface === null ? null : surface * penalty, scarcity_penalty: penalty,
      bits_per_byte: factor === null ? null : { value: final * factor, interval: low_high && low_high.map((end) => factor * end) },
    };
  }

  function lawFlags(book, law, plan) {
    const flags = book.is_published ? [] : law.flags.map((flag) => `laws: ${flag}`);
    if (plan.extrapolation_factor > FICTION) flags.push(`extrapolated ${general(plan.extrapolation_factor, 1)} times beyond the largest fitted budget: fiction`);
    if (plan.flops < law.smallest_budget) flags.push("the budget lies below the smallest that carries the laws");
    const times = plan.batch_tokens / (book.largest_tuned_batch ?? Infinity);
    if (times > 1) flags.push(`learning rate extrapolated: the batch is ${general(times, 2)} times the largest that was tuned`);
    if (!law.knows_learning_rate) flags.push(`no law of the learning rate for ${law.group}: the mean of the other groups' laws`);
    if (!book.cooldown) flags.push("the loss is that before the cooldown: nobody measured its gain here (2.4 % in arXiv 2512.10858)");
    return flags;
  }

  function dataFlags(book, law, plan) {
    const flags = [], { repeats } = law;
    if (plan.epochs !== null && plan.epochs > 1) {
      flags.push(`value of repeats from ${repeats.source}, measured for ${repeats.measured_for} models`);
      if ((plan.epochs - 1) * repeats.inverse_tokens > 2) flags.push(`more compute than the data can use: ${general(plan.epochs, 3)} epochs, hardly any gain in the last of them`);
      if (repeats.measured_for === "autoregressive" && law.group !== "autoregressive") {
        flags.push("diffusion models are reported to bear many more repeats (arXiv 2507.15857): the loss may lie near the lower end of its interval");
      }
    }
    const available = book.available_tokens;
    if (plan.unique_tokens === null && available !== null && plan.tokens > available) {
      flags.push(`the data holds ${grouped(available)} tokens, fewer than the plan's; prepare more, or plan with ${available} unique tokens`);
    }
    return flags;
  }

  function machineFlags(plan, { device, count }) {
    const flags = [], { resources } = plan, times = plan.batch_tokens / plan.optimal_batch_tokens;
    if (device.price_source !== null) flags.push(`cost: $${fixed(device.price_per_hour, 2)} per ${device.name} and hour (${device.price_source}); --price-per-hour takes yours`);
    if (plan.batch_tokens > 1.5 * plan.optimal_batch_tokens) flags.push(`the batch is ${general(times, 2)} times the optimum: ${count} devices need a sequence each`);
    if (resources.fits === false) {
      flags.push(`does not fit: ${fixed(resources.memory_bytes.total / 1e9, 0)} GB on each ${device.name}, with checkpointing and one sequence at a time; take more or larger devices`);
    } else if (resources.checkpointing) flags.push("fits with activation checkpointing only");
    return flags;
  }

  function publishedRun(book, law, flops, machine) {
    const run = book.published_runs.find((one) => one.group === law.group && Math.abs(Math.log(one.record.flops / flops)) < SAME_RUN);
    if (!run) return null;
    const tokens = run.record.batch_sequences * run.record.steps * book.sequence_length;
    return { ...run.record, planned_steps: pace(book, law, tokens, machine, true).steps };
  }

  /** The record of `noiselaw plan --json` for one group of a book; throws an Error with its message for what cannot be planned. */
  function plan(book, accelerators, { group, budget, hardware, unique }) {
    const law = book.groups[group], { kind, amount } = budget, length = book.sequence_length;
    if (!(Number.isFinite(amount) && amount > 0)) throw new Error(`${kind} ${general(amount)}: a plan needs a positive, finite budget`);
    const machine = machineOf(accelerators, hardware);
    if (unique !== null && kind === "tokens") throw new Error("tokens and unique_tokens: where data is scarce the plan says how often to see it; give FLOPs");
    const asked = budgetFlops(book, law, budget, machine, unique);
    if (asked > MAX_FLOPS) throw new Error(`${kind} ${general(amount)}: ${general(asked, 2)} FLOPs are beyond any computer; check the number`);
    const { optimal, scarce, shape, flags } = draft(book, law, asked, unique), penalty = scarce ? scarce.penalty : 1;
    const { wanted, batch, steps } = pace(book, law, kind === "tokens" ? amount : asked / shape.size, machine, kind !== "seconds");
    const tokens = batch * length * steps, flops = shape.size * tokens, prediction = predict(law, flops, shape.size);
    const counts = parameters(book, shape.layers, shape.width), { smallest_budget: smallest, largest_budget: largest } = law;
    const made = {
      noise: group, flops, layers: shape.layers, width: shape.width, heads: shape.heads, params: counts.own, total_params: counts.total,
      flops_per_token: shape.size, optimal_flops_per_token: optimal, convention: book.convention, vocab_size: book.vocab_size, tokens,
      tokens_per_parameter: tokens / counts.own, unique_tokens: unique, epochs: unique === null ? null : tokens / unique,
      sequence_length: length, batch_sequences: batch, batch_tokens: batch * length, optimal_batch_tokens: wanted, steps,
      warmup_steps: Math.min(book.warmup_steps ?? MAX_WARMUP_STEPS, roundEven(MAX_WARMUP_SHARE * steps)),
      cooldown_steps: roundEven(COOLDOWN_SHARE * steps), learning_rate: power(law.learning_rate, batch * length),
      ...forecast(book, law, prediction, penalty), extrapolation_factor: prediction.beyond,
      extrapolation_share: flops > largest ? Math.log(flops / largest) / Math.log(flops / smallest) : 0,
      resources: machine && resourcesOf(book, shape, batch, tokens, machine),
      published: penalty === 1 ? publishedRun(book, law, flops, machine) : null,
    };
    made.flags = [...flags, ...lawFlags(book, law, made), ...dataFlags(book, law, made), ...(machine ? machineFlags(made, machine) : [])];
    return made;
  }

  return { plan, power, SECONDS_PER_DAY };
})();
