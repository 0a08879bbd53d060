"""The first screenful in words: what was studied, what came out, how sure that is, what it took."""

import statistics

from noiselaw.report import phrases
from noiselaw.report.comparison import Lead, Verdict, leads, verdicts
from noiselaw.report.markup import Child, element
from noiselaw.report.results import Results
from noiselaw.report.tables import sureness


def subject(results: Results) -> str:
    """Groups, sizes, budgets and data in one line."""
    facts, curves = results.facts, results.curves
    parts = [f"{len(results.groups)} groups: {', '.join(results.groups)}"] if results.groups else []
    sizes = curves["params"].drop_nulls().unique().sort()
    if len(sizes) > 1:
        parts.append(
            f"{curves['run'].n_unique()} runs, {phrases.count(sizes[0])} to {phrases.count(sizes[-1])} parameters"
        )
    if facts.budgets:
        low, high = min(facts.budgets), max(facts.budgets)
        parts.append(f"{len(facts.budgets)} budgets from {phrases.scientific(low)} to {phrases.scientific(high)} FLOPs")
    return " · ".join(parts) or "Nothing has been trained yet."


def answer(results: Results) -> list[Child]:
    """The findings, one sentence each."""
    judged = verdicts(results)
    compared = [verdict for verdict in judged if verdict.margin is not None]
    lines: list[Child] = [lead_sentence(lead) for lead in leads(compared)]
    baseline = _baseline_sentence(judged)
    prediction = _prediction_sentence(results)
    cost = _cost_sentence(results)
    return [*lines, *(line for line in (baseline, prediction, cost) if line is not None)]


def lead_sentence(lead: Lead) -> Child:
    """Who leads where, by how much and how surely."""
    first, last = lead.verdicts[0], lead.verdicts[-1]
    low, high = phrases.scientific(first.flops), phrases.scientific(last.flops)
    where = f"at {low} FLOPs" if low == high else f"from {low} to {high} FLOPs"
    name = element("strong", lead.leader)
    margins = [verdict.margin for verdict in lead.verdicts if verdict.margin is not None]
    by = phrases.span(min(margins), max(margins), 3)
    if lead.is_sure:
        weakest = min(lead.verdicts, key=lambda verdict: verdict.confidence or 0.0)
        return [name, f" leads the noises {where}, by {by} nats per token ({_at_least(sureness(weakest))} sure)."]
    known = [verdict.confidence for verdict in lead.verdicts if verdict.confidence is not None]
    sure = f" (at most {phrases.percent(max(known))} sure)" if known else ""
    runners_up = {verdict.noises[1][0] for verdict in lead.verdicts}
    second = element("strong", runners_up.pop()) if len(runners_up) == 1 else "the second-best"
    return [
        "Too close to call ",
        where,
        ": ",
        name,
        " is ahead of ",
        second,
        f" by {by} nats per token{sure}.",
    ]


def _at_least(sure: str) -> str:
    return sure if sure.startswith(">") else f"at least {sure}"


def _baseline_sentence(judged: tuple[Verdict, ...]) -> Child:
    gaps = [verdict.noises[0][1].loss - verdict.baseline.loss for verdict in judged if verdict.baseline is not None]
    if not gaps:
        return None
    low, high = min(gaps), max(gaps)
    if low < 0 < high:
        by = f"between {-low:.3f} above and {high:.3f} nats per token below"
    else:
        by = f"{phrases.span(min(abs(low), abs(high)), max(abs(low), abs(high)), 3)} nats per token "
        by += "below" if high > 0 else "above"
    return f"The autoregressive baseline is {by} the best noise."


def _prediction_sentence(results: Results) -> Child:
    runs = [run for group in results.confirmation.groups.values() for run in group]
    if not runs:
        return "A prediction is written down and waits for its confirming runs." if results.predictions.groups else None
    errors = [run.error_percent for run in runs]
    factors = [plan.extrapolation_factor for plan in results.predictions.groups.values() if plan.extrapolation_factor]
    beyond = f" at {phrases.plain(round(max(factors), 1))}× the largest budget they were fitted on" if factors else ""
    inside = sum(run.interval[0] <= run.measured_loss <= run.interval[1] for run in runs if run.interval is not None)
    return [
        "The laws predicted the loss", beyond, " before the runs started: predicted − measured is ",
        element("strong", phrases.signed_span(errors)), f" ({_runs(len(runs))}, {inside} inside the 95 % interval).",
    ]  # fmt: skip


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _cost_sentence(results: Results) -> Child:
    elapsed = results.facts.elapsed_seconds.total
    shares = results.throughput["share_of_matmul_peak"].drop_nulls().to_list()
    parts = [] if elapsed is None else [f"It took {phrases.duration(elapsed)}"]
    if shares:
        opening = "training" if parts else "Training"
        parts.append(
            f"{opening} ran at {phrases.percent(statistics.mean(shares))} of the machine’s measured matmul peak"
        )
    return "; ".join(parts) + "." if parts else None


def facts(results: Results) -> list[tuple[str, str]]:
    """Machine, data and time, as far as known."""
    machine, data, elapsed = results.facts.machine, results.facts.data, results.facts.elapsed_seconds
    cores = None if machine.num_cores is None else f"{machine.num_cores} cores"
    torch = None if machine.torch is None else f"torch {machine.torch}"
    threads = "" if machine.num_threads is None else f" with the {machine.num_threads} threads of a run"
    threads = " with the one thread of a run" if machine.num_threads == 1 else threads
    rate = machine.matmul_flops_per_second
    stages = [
        f"{name} {phrases.duration(seconds)}"
        for name in ("data", "grid", "confirmation")
        if (seconds := getattr(elapsed, name)) is not None
    ]
    text = [] if data.train_tokens is None else [f"{phrases.count(data.train_tokens)} training tokens"]
    text += [] if data.vocab_size is None else [f"vocabulary {data.vocab_size:,}"]
    text += [] if data.bytes_per_token is None else [f"{data.bytes_per_token:.3g} bytes per token"]
    known = [
        ("Data", ", ".join(filter(None, [data.source, *text]))),
        ("Machine", ", ".join(filter(None, [machine.device, cores, torch]))),
        ("Matmul peak", "" if rate is None else f"{rate / 1e9:.3g} GFLOP/s{threads}"),
        ("Time", ", ".join(stages)),
        ("FLOPs counted", results.facts.flops_convention or results.laws.convention or ""),
    ]
    return [(name, value) for name, value in known if value]


def footer(results: Results | None) -> str:
    """For one study, or for several."""
    known = None if results is None else results.facts.created
    created = "" if known is None else f"Study of {phrases.moment(known)}. "
    return f"{created}Written by noiselaw from the files of the study folder; figures as PNG and SVG in figures/."
