"""Every configuration as frozen, checked data: the project's data dictionary.

A run is one `RunSpec`. Values that say what a run *is* (model, noise, data, optimiser, seed) enter its fingerprint;
values that say where and how it executes (`runtime`, paths, names) never do. Unknown keys are refused with the
nearest valid name. No torch here: `--help`, planning and reading stay instant.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from noiselaw.accounting import ModelShape
from noiselaw.dataspec import DataSpec
from noiselaw.specbase import PlainName, Spec
from noiselaw.specfaults import describe_fault
from noiselaw.words import nearest_name

NOISE_SHIFTS: dict[str, float] = {
    "masked": -math.inf,
    "low-uniform": -2.0,
    "balanced": 0.0,
    "high-uniform": 2.0,
    "uniform": math.inf,
}
"""The paper's named points on the path from masked (shift -inf) to uniform (shift +inf) noise (spec section 2)."""

AUTOREGRESSIVE = "autoregressive"

Float32Products = Literal["auto", "torch", "onednn"]
HeadKernel = Literal["auto", "torch", "native"]
Recompute = Literal["none", "selective", "full"]


class ModelSpec(Spec):
    """The transformer's shape; the vocabulary comes from the data."""

    num_layers: int = Field(gt=0)
    width: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    attention_sink: bool = True
    """One learned key and value per head that every query can attend to ("attention bias" in the paper)."""
    attention_soft_cap: float | None = Field(default=None, gt=0)
    """Attention scores become cap * tanh(score / cap); None leaves them as they are."""
    mlp_bias: bool = True
    rope_base: float = Field(default=10000.0, gt=0)
    norm_epsilon: float = Field(default=1e-6, gt=0)
    residual_scale: float = Field(default=4.0, gt=0)
    """Each residual branch is multiplied by residual_scale / num_layers."""
    head_scale: float = Field(default=512.0, gt=0)
    """Logits are multiplied by head_scale / width."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.num_heads or (self.width // self.num_heads) % 2:
            raise ValueError(
                f"width {self.width} must be an even multiple of num_heads {self.num_heads} (rotary pairs)"
            )
        return self

    def shape(self, vocab_size: int) -> ModelShape:
        return ModelShape(self.num_layers, self.width, self.num_heads, vocab_size, self.attention_sink, self.mlp_bias)


class NoiseSpec(Spec):
    """Hybrid noise: the share of uniform noise at log-SNR l is u(l) = sigmoid(scale * l + shift)."""

    shift: float
    """b: -.inf is masked noise, .inf uniform; a name such as masked, balanced or uniform may stand for all three."""
    scale: float = 1.0
    """a: the process is a Markov chain only for -1 <= a <= 1."""
    reference: Literal["uniform", "unigram"] = "uniform"
    """What a swapped token is drawn from: all tokens alike, or the token frequencies of the training data."""

    @field_validator("shift")
    @classmethod
    def _shift_is_a_number(cls, shift: float) -> float:
        if math.isnan(shift):
            raise ValueError("shift is NaN; give a number, -inf (masked) or +inf (uniform)")
        return shift

    @field_validator("scale")
    @classmethod
    def _scale_is_a_markov_chains(cls, scale: float) -> float:
        if not -1.0 <= scale <= 1.0:
            raise ValueError(f"scale {scale} is outside [-1, 1]: such noise is no Markov chain; move it inside")
        return scale

    @property
    def name(self) -> str:
        """The paper's name where there is one."""
        base = next((name for name, shift in NOISE_SHIFTS.items() if shift == self.shift), f"shift{self.shift:g}")
        scale = "" if self.scale == 1.0 or math.isinf(self.shift) else f"-scale{self.scale:g}"
        return base + scale + ("" if self.reference == "uniform" else f"-{self.reference}")


def _noise_from_name(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in NOISE_SHIFTS:
        raise ValueError(
            f"unknown noise {value!r}{nearest_name(value, NOISE_SHIFTS)}; known: {', '.join(NOISE_SHIFTS)}"
        )
    return {"shift": NOISE_SHIFTS[value]}


class DiffusionSpec(Spec):
    """Train a discrete diffusion model: noise, training objective and how sequences are corrupted (spec section 4)."""

    kind: Literal["diffusion"] = "diffusion"
    noise: Annotated[NoiseSpec, BeforeValidator(_noise_from_name)]
    min_log_snr: float = -9.0
    max_log_snr: float = 9.0
    weighting: Literal["snr_density", "elbo"] = "snr_density"
    """snr_density: bound terms weighted by p(log-SNR), the paper's; elbo: the bound itself."""
    stratified: bool = True
    """Spread the sequences' noise levels evenly over the batch: same expectation, lower variance."""
    independent_probability: float = Field(default=0.2, ge=0, le=1)
    """Share of sequences whose tokens draw their noise level independently."""
    prompt_probability: float = Field(default=0.2, ge=0, le=1)
    """Share of sequences with a noise-free prefix."""
    max_empty_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Up to this fraction of empty tokens is spliced in at random positions."""

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Self:
        if not self.min_log_snr < self.max_log_snr:
            raise ValueError(f"min_log_snr {self.min_log_snr} must be below max_log_snr {self.max_log_snr}")
        return self

    @property
    def name(self) -> str:
        return self.noise.name


class AutoregressiveSpec(Spec):
    """Train the same transformer with causal attention on next-token cross-entropy."""

    kind: Literal["autoregressive"] = AUTOREGRESSIVE

    @property
    def name(self) -> str:
        return AUTOREGRESSIVE


class OptimizerSpec(Spec):
    """LaProp or AdamW with the paper's width and depth scaling (spec section 5)."""

    kind: Literal["laprop", "adamw"] = "laprop"
    learning_rate: float = Field(default=0.5, gt=0)
    """eta: matrices in blocks learn at eta / width, everything else at eta * auxiliary_factor."""
    auxiliary_factor: float = Field(default=0.02, gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    """The optimiser sees epsilon / (width * num_layers)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Matrices in blocks decay by weight_decay * width (times their learning rate)."""
    norm_weight_decay: float = Field(default=0.0, ge=0)
    bias_weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Global gradient norm above which the gradient is scaled down; None never clips."""


class InitSpec(Spec):
    """Initialisation (spec section 5): normal draws with these standard deviations, or the weights of a trained model.

    The path of a model may stand for the whole group.
    """

    weights: Path | None = None
    """Model to start from: a run folder, an export or a GIDD checkpoint. It enters the fingerprint by its content."""
    matrix_scale: float = Field(default=0.4, gt=0)
    """Matrices in blocks: matrix_scale / sqrt(width)."""
    embedding_std: float = Field(default=0.02, gt=0)
    head_std: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _draws_or_weights(self) -> Self:
        if self.weights is not None and self != InitSpec.model_construct(weights=self.weights):
            raise ValueError("weights are given, so that standard deviations have no effect; leave one of them out")
        return self


def _init_from_weights(value: Any) -> Any:
    return {"weights": value} if isinstance(value, str | Path) else value


class ScheduleSpec(Spec):
    """Linear warm-up, constant, cooldown eta * (1 - sqrt(progress)) over the last steps."""

    num_steps: int = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    cooldown_steps: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.warmup_steps + self.cooldown_steps > self.num_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} + cooldown_steps {self.cooldown_steps} exceed "
                f"num_steps {self.num_steps}; shorten them or train longer"
            )
        return self


class ValidationSpec(Spec):
    """How the held-out bound is estimated: fixed tokens, fixed stratified noise levels."""

    num_sequences: int = Field(default=64, gt=1)
    """Two at least: the standard error comes from their differences."""
    draws: int = Field(default=1, gt=0)
    """Noise levels per sequence."""
    num_points: int = Field(default=16, gt=0)
    """Validations per run, at steps spaced evenly in log(step) over `decades`; the last step is always one."""
    decades: float = Field(default=1.5, gt=0)


class ParallelSpec(Spec):
    """How the processes that torchrun starts share one run, and what its blocks keep for the backward pass."""

    tensor: int = Field(default=1, gt=0)
    """Processes that share every matrix (tensor parallel), neighbours on one machine; it must divide num_heads."""
    replicas: int = Field(default=1, gt=0)
    """Groups, say one a node, that hold the whole model each, their processes equal shards of it (HSDP, FSDP)."""
    recompute: Recompute = "none"
    """What the backward pass computes again (activation checkpointing). full: all but each block's input, for a third
    more of the blocks' work; selective: all but matrix products and attention."""


class RuntimeSpec(Spec):
    """Where and how a run executes. None of it enters the fingerprint."""

    device: str = "auto"
    """auto: cuda where there is one, else cpu."""
    num_threads: int | None = Field(default=None, gt=0)
    """CPU threads; None leaves torch's choice."""
    float32_products: Float32Products = "auto"
    """Who makes float32 matrix products on a CPU: torch's own library, oneDNN (often twice as fast), or whichever is
    fastest among those whose measured error is that of float32."""
    compile: bool = False
    """Compile each transformer block."""
    parallel: ParallelSpec = ParallelSpec()
    micro_batch_sequences: int | None = Field(default=None, gt=0)
    """Sequences per forward pass; None takes all of the process's share of the batch. Gradients accumulate."""
    head_chunk_tokens: int | None = Field(default=None, gt=0)
    """Tokens whose logits are alive at one time; None takes as many as fit 256 MiB (1 GiB on a GPU)."""
    head_kernel: HeadKernel = "auto"
    """Who computes what lies between the head's matrix products: native, compiled for this machine on first use; torch,
    its operators, several times slower; auto, native where the machine can."""
    prefetch_batches: int | None = Field(default=None, ge=0)
    """Batches a thread reads ahead of the step; 0 reads each when it is needed. None: 2 for a GPU, 0 for a CPU, whose
    cores the thread would share."""
    checkpoint_every_seconds: float = Field(default=60.0, ge=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    tensorboard: bool = False


class RunSpec(Spec):
    """One training run: everything needed to repeat it."""

    name: PlainName = "run"
    seed: int = Field(default=0, ge=0)
    data: DataSpec
    model: ModelSpec
    objective: DiffusionSpec | AutoregressiveSpec = Field(discriminator="kind")
    batch_sequences: int = Field(gt=0)
    """Sequences per optimiser step."""
    init: Annotated[InitSpec, BeforeValidator(_init_from_weights)] = InitSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products: bfloat16 means autocast over float32 master weights, gathered in bfloat16 where
    several processes share the model."""
    validation: ValidationSpec = ValidationSpec()
    runtime: RuntimeSpec = RuntimeSpec()

    @property
    def tokens_per_step(self) -> int:
        return self.batch_sequences * self.data.sequence_length

    @property
    def num_tokens(self) -> int:
        return self.tokens_per_step * self.schedule.num_steps

    def fingerprint(self, data_fingerprint: str, weights_fingerprint: str | None = None) -> str:
        """Hash of what the run is: 16 hex digits over every value but `name`, `runtime` and paths.

        Data and initial weights enter by their content (`data_fingerprint`, from the manifest, and
        `weights_fingerprint` where the run starts from a model), so moving a folder changes nothing.
        """
        places = {"data": {"path", "sources"}, "init": {"weights"}}
        identity = self.model_dump(mode="json", exclude={"name": True, "runtime": True, **places})
        identity["data"]["content"] = data_fingerprint
        if self.data.unique_tokens is None:
            del identity["data"]["unique_tokens"]  # a setting that runs of earlier releases did not have
        if weights_fingerprint is not None:
            identity["init"]["content"] = weights_fingerprint
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


class SpecError(ValueError):
    """A configuration that cannot be used: names the field, the value and the remedy."""


S = TypeVar("S", bound=Spec)

MOST_FAULTS = 20
"""Named in one message."""


def parse_spec(spec_class: type[S], values: Mapping[str, Any], origin: str) -> S:
    """Check `values` against `spec_class`; `origin` (a file, the command line) opens the error message.

    Raises SpecError with one line per fault: the field, the value, and for an unknown key the nearest valid one.
    """
    try:
        return spec_class.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        faults = [describe_fault(fault, spec_class) for fault in found[:MOST_FAULTS]]
        more = [f"and {len(found) - MOST_FAULTS} faults more"] if len(found) > MOST_FAULTS else []
        raise SpecError("\n  ".join([f"{origin}:", *faults, *more])) from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML (safe loader) or JSON file that holds one mapping. Raises SpecError naming the file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, a 13th month
        raise SpecError(f"{path}: not readable as YAML or JSON: {error}") from None
    if not isinstance(values, dict):
        raise SpecError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
    return values
