"""`noiselaw train SPEC --dry-run` and `noiselaw plan ... --dry-run`: what a run takes on devices that are not there."""

import json
import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from noiselaw.cli.overrides import read_with_overrides
from noiselaw.data.manifest import MANIFEST_NAME, read_manifest
from noiselaw.laws.hardware import DEFAULT_MFU, USABLE_MEMORY, Machine, machine
from noiselaw.laws.lawbook import published_book
from noiselaw.report import phrases
from noiselaw.specs import ParallelSpec, RunSpec
from noiselaw.train.forecast import Cluster, Forecast, forecast

MEMORY_GB = (80.0, 141.0)
"""Devices that are asked about where nobody says otherwise: an H100, an H200."""
NODE_GB_PER_SECOND, NETWORK_GB_PER_SECOND = 450.0, 50.0
"""Nominal, each way and device: fourth-generation NVLink; a network card of 400 Gbit/s for every device."""
DEVICES_PER_NODE = 8


@dataclass(frozen=True, slots=True)
class DryRunArguments:
    """Say what a run takes on devices that are not there: memory, communication, time, and which layouts fit.

    Builds the sharded model and runs one step on fake tensors, as one of --ranks processes that only pretend to be
    there. No data, weights or GPU needed. Settings of the spec as --key value, as in training.
    """

    spec: Annotated[Path, tyro.conf.Positional]
    """YAML or JSON file with the settings of the run, or a run's folder."""
    ranks: int = 1
    """Devices, a process each."""
    gpu: str = "h100"
    """Kind of accelerator, for its peak: as in `noiselaw plan`."""
    peak_flops: float | None = None
    """FLOP/s of one device, in place of the built-in number."""
    device_memory: tuple[float, ...] = MEMORY_GB
    """GB of the devices that the run may have to fit."""
    utilization: float = DEFAULT_MFU
    """Share of the peak that executed FLOPs reach, recomputation included."""
    devices_per_node: int = DEVICES_PER_NODE
    node_bandwidth: float = NODE_GB_PER_SECOND
    """GB/s that a device receives from its own node."""
    network_bandwidth: float = NETWORK_GB_PER_SECOND
    """GB/s that a device receives from other nodes."""
    vocab_size: int | None = None
    """Entries of the vocabulary; by default that of the prepared data, or of the published laws where there is none."""
    search: bool = True
    """Try other layouts, too."""
    json: bool = False
    """Print JSON."""


def dry_run_spec(arguments: list[str]) -> None:
    """Read the command line of `noiselaw train ... --dry-run`, print what the run takes."""
    parsed, overrides = tyro.cli(DryRunArguments, prog="noiselaw train", args=arguments, return_unknown_args=True)
    path = parsed.spec / "spec.json" if parsed.spec.is_dir() else parsed.spec
    spec = read_with_overrides(RunSpec, path, overrides, tuple(field.name for field in fields(DryRunArguments)))
    on = machine(parsed.gpu, parsed.ranks, parsed.utilization, peak_flops=parsed.peak_flops)
    cluster = replace(
        planned_cluster(on),
        devices_per_node=parsed.devices_per_node,
        node_bandwidth=parsed.node_bandwidth * 1e9,
        network_bandwidth=parsed.network_bandwidth * 1e9,
    )
    limits = tuple(size * 1e9 for size in parsed.device_memory)
    vocab_size = parsed.vocab_size or _vocab_size(spec)
    show_dry_run(spec, vocab_size, cluster, limits, search=parsed.search, as_json=parsed.json)


def planned_cluster(on: Machine) -> Cluster:
    """`on` in nodes as they are usual, the machine's share of its peak taken for that of executed FLOPs."""
    assert on.accelerator.peak_flops is not None  # a machine without is refused
    return Cluster(
        num_ranks=on.count,
        devices_per_node=DEVICES_PER_NODE,
        peak_flops=on.accelerator.peak_flops,
        utilization=on.mfu,
        node_bandwidth=NODE_GB_PER_SECOND * 1e9,
        network_bandwidth=NETWORK_GB_PER_SECOND * 1e9,
    )


def show_dry_run(
    spec: RunSpec, vocab_size: int, cluster: Cluster, limits: tuple[float, ...], *, search: bool, as_json: bool
) -> None:
    """Dry-run `spec` and print it as a table or JSON. Raises RanksError where so many devices cannot share the run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about tensors that are not there
        found = forecast(spec, vocab_size, cluster, limits, search=search)
    if as_json:
        print(json.dumps(found.record(), indent=1))
        return
    console = Console(highlight=False, soft_wrap=True)
    for part in (_heading(found), *_tables(found), *_verdicts(found)):
        console.print(part)


def _vocab_size(spec: RunSpec) -> int:
    """That of the prepared data where it is there, else the published laws'."""
    folder = spec.data.paths[0]  # a mixture has one vocabulary
    if (folder / MANIFEST_NAME).exists():
        return read_manifest(folder).vocab_size
    return published_book().vocab_size


def _heading(found: Forecast) -> str:
    spec, cluster, record = found.spec, found.cluster, found.record()
    passes = -(-record["device_sequences"] // record["micro_batch_sequences"])
    return (
        f"{spec.name}: {spec.model.num_layers} × {spec.model.width}, {record['parameters']['total']:,} parameters, "
        f"vocabulary {found.vocab_size:,}, {spec.precision}\n"
        f"{cluster.num_ranks} devices, {layout_name(spec.runtime.parallel, cluster.num_ranks)}, "
        f"{record['micro_batch_sequences']} × {spec.data.sequence_length:,} tokens at a time, "
        f"{passes} time{'s' * (passes > 1)} a step\n"
    )


def layout_name(parallel: ParallelSpec, num_ranks: int) -> str:
    """In words: what ranks share, what is computed again."""
    shards = num_ranks // (parallel.replicas * parallel.tensor)
    parts = [f"FSDP over {shards}"] if shards > 1 else []
    parts += [f"{parallel.replicas} replicas (HSDP)"] if parallel.replicas > 1 else []
    parts += [f"tensor parallel over {parallel.tensor}"] if parallel.tensor > 1 else []
    return ", ".join([*parts, f"recompute {parallel.recompute}"])


def _tables(found: Forecast) -> list[Table]:
    record = found.record()
    parameters, memory = record["parameters"], record["memory_bytes"]
    within, across = found.bytes_received
    hidden, shown = found.step_seconds
    hours = record["hours"]
    rows = {
        "parameters": [(name, f"{number:,}") for name, number in parameters.items()],
        f"memory of a device at its fullest ({record['peak_phase']} pass)": [
            (name, f"{size / 1e9:.2f} GB") for name, size in memory.items()
        ],
        "communication of a step": [
            *((name, f"{size / 1e9:.1f} GB") for name, size in record["communication_bytes"].items()),
            ("received within the node", f"{within / 1e9:.1f} GB"),
            ("received from other nodes", f"{across / 1e9:.1f} GB"),
        ],
        "time": [
            ("FLOPs of a step on a device", phrases.scientific(found.cost.flops)),
            ("of them computed once", phrases.percent(found.model_flops / found.cost.flops)),
            (f"at {found.cluster.utilization:.0%} of peak", f"{found.compute_seconds:.2f} s"),
            ("communication alone", f"{found.communication_seconds:.2f} s"),
            ("a step", f"{hidden:.2f} s overlapped, {shown:.2f} s if not"),
            (
                f"{found.spec.schedule.num_steps:,} steps",
                f"{hours['overlapped']:,.1f} h overlapped, {hours['not_overlapped']:,.1f} h if not",
            ),
        ],
    }
    tables = []
    for title, lines in rows.items():
        table = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 2), title=title, title_justify="left", show_header=False
        )
        table.add_column(width=30)
        table.add_column(justify="right")
        for name, value in lines:
            table.add_row(name.replace("_", "-"), value)
        tables.append(table)
    return tables


def _verdicts(found: Forecast) -> list[str]:
    """Which device and which layout, a line each."""
    lines = []
    for limit in found.memory_limits:
        usable = USABLE_MEMORY * limit
        verdict = "fits" if found.fits(limit) else "does not fit"
        size = f"{limit / 1e9:g} GB ({usable / 1e9:.1f} usable)"
        lines.append(f"as it is ({found.cost.peak_bytes / 1e9:.1f} GB): {verdict} {size}")
        if not found.layouts:
            continue
        fits, does_not = [], []
        for tried in found.layouts:
            name, count = layout_name(tried.parallel, found.cluster.num_ranks), tried.largest(usable)
            if count is None:
                smallest = min(tried.bytes_by_sequences.values())
                does_not.append(f"  {name}: {smallest / 1e9:.1f} GB at the least")
            else:
                at_a_time = f"up to {count} sequence{'s' * (count > 1)} at a time"
                fits.append(f"  {name}: {at_a_time}, {tried.bytes_by_sequences[count] / 1e9:.1f} GB")
        lines += [f"fits {size}:" if fits else f"nothing fits {size}", *fits]
        lines += ["does not:", *does_not] if does_not else []
    return lines
