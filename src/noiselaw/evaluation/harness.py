"""The model behind lm-evaluation-harness, and its tasks behind `noiselaw evaluate`.

The harness (extra `evaluate`) finds `noiselaw` by the entry point group `lm_eval.models`, which its releases after
0.4.13 read by themselves. 0.4.13 does not yet: there `python -m noiselaw.evaluation.harness ARGUMENTS` is its own
command line with the model registered first.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from noiselaw.evaluation.likelihood import DEFAULT_DRAWS, completion_bounds
from noiselaw.hub.loading import LoadedModel, load_model
from noiselaw.hub.write import Settings, write, written_ids
from noiselaw.sampling import GREEDY, Canvas, Filters
from noiselaw.train.machine import resolve_device

try:
    from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import model_registry  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise ImportError(
        f"benchmark tasks need lm-evaluation-harness ({error}); pip install 'noiselaw[evaluate]'"
    ) from error

MODEL_NAME = "noiselaw"
DEFAULT_BATCH = 16
"""Texts written in one batch."""
DEFAULT_NEW_TOKENS = 256
"""Most tokens a task may have written where it does not say (as in the harness)."""


class HarnessModel(TemplateLM):
    """A loaded model as the harness sees it: `lm_eval --model noiselaw --model_args path=RUN,draws=256`.

    Log-likelihoods of a diffusion model are bounds from `draws` noise levels a text; every text sees the same levels.
    A context too long for the model loses its beginning, as the harness has it.
    """

    def __init__(
        self,
        path: str | Path | LoadedModel,
        *,
        draws: int = DEFAULT_DRAWS,
        check_greedy: bool = True,
        sampler: str | None = None,
        steps: int | None = None,
        block_length: int | None = None,
        seed: int = 0,
        tokenizer: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        """`check_greedy` costs a call of the model per token: whether a completion is what greedy writing gives.

        Tasks of exact match by likelihood (lambada) need it; multiple choice does not. By default a diffusion model
        writes adaptively, a token a step, and where a task asks to sample, ancestrally.
        """
        super().__init__()
        del max_batch_size
        is_loaded = isinstance(path, LoadedModel)
        self._loaded = path if is_loaded else load_model(Path(path), tokenizer=Path(tokenizer) if tokenizer else None)
        if not is_loaded:
            self._loaded.model.to(resolve_device(device or "auto"))
        self._device = self._loaded.device
        self._tokenizer = self._loaded.text_tokenizer()
        self._draws, self._check_greedy, self._seed = draws, check_greedy, seed
        self._batch = int(str(batch_size)) if str(batch_size).isdecimal() else DEFAULT_BATCH
        self._settings = Settings(sampler=sampler, num_steps=steps, block_length=block_length)

    @property
    def eot_token_id(self) -> int:
        return self._tokenizer.end_of_text_id

    @property
    def max_length(self) -> int:
        """Tokens of the longest text, context included."""
        return self._loaded.sequence_length

    @property
    def tokenizer_name(self) -> str:
        return str(self._loaded.path.resolve())

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        del add_special_tokens, kwargs  # text never becomes a special token here
        return self._loaded.encode(string) if string else []

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        del kwargs
        pairs = []
        for (context, _), context_ids, completion in requests:
            room = self.max_length - len(completion)
            # The harness puts an end of text where there is no context; ours begin a text without one.
            pairs.append((context_ids[max(0, len(context_ids) - room) :] if context and room > 0 else [], completion))
        bounds = completion_bounds(self._loaded, pairs, draws=self._draws)
        greedy = self._greedy_matches(pairs) if self._check_greedy else [False] * len(pairs)
        answers = [(-bound.nats, match) for bound, match in zip(bounds, greedy, strict=True)]
        for (texts, *_), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, long ones in windows: each window's second half given its first."""
        del disable_tqdm
        texts = [request.args[0] for request in requests]
        windows = [rolling_windows(self.tok_encode(text), self.max_length) for text in texts]
        bounds = iter(completion_bounds(self._loaded, [pair for pairs in windows for pair in pairs], draws=self._draws))
        answers = [-sum(next(bounds).nats for _ in pairs) for pairs in windows]
        for text, answer in zip(texts, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answer)
        return answers

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes behind each context, up to a stop string, the end of the text or the model's length."""
        del disable_tqdm
        answers: list[str] = []
        for start in range(0, len(requests), self._batch):
            for request in _by_settings(requests[start : start + self._batch]):
                answers += self._continued([one.args[0] for one in request], request[0].args[1])
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, answer)
        return answers

    def _continued(self, contexts: Sequence[str], options: dict[str, Any]) -> list[str]:
        """Continuations of `contexts` under one set of the harness's generation options."""
        stops = options.get("until") or []
        new_tokens = int(options.get("max_gen_toks", DEFAULT_NEW_TOKENS))
        new_tokens = max(1, min(new_tokens, self.max_length - 1))
        prompts = [self.tok_encode(context)[-(self.max_length - new_tokens) :] for context in contexts]
        written = self._written(prompts, [new_tokens] * len(prompts), _filters(options))
        texts = (self._loaded.decode(written_ids(self._loaded, ids, 0)) for ids in written)
        return [_until(text, [stops] if isinstance(stops, str) else stops) for text in texts]

    def _greedy_matches(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[bool]:
        """Whether each completion is what the model writes at temperature 0."""
        found: list[bool] = []
        for start in range(0, len(pairs), self._batch):
            part = pairs[start : start + self._batch]
            prompts, completions = zip(*part, strict=True)
            written = self._written(prompts, [len(completion) for completion in completions], GREEDY)
            found += [ids == list(completion) for ids, completion in zip(written, completions, strict=True)]
        return found

    def _written(self, prompts: Sequence[Sequence[int]], counts: Sequence[int], filters: Filters) -> list[list[int]]:
        """The `counts[b]` tokens that the model writes behind `prompts[b]`.

        A diffusion model has seen texts of one length only; a shorter one it writes as if it had to end like those. So
        unless blocks are asked for, text goes on behind what is wanted: under masked noise as masks, which say nothing
        of what stands there, else as tokens that are written too and thrown away.
        """
        rows: list[list[int | None]] = [
            [*prompt, *[None] * count] for prompt, count in zip(prompts, counts, strict=True)
        ]
        settings, process = replace(self._settings, filters=filters), self._loaded.process
        if process is not None and settings.sampler is None:
            # Written at once, tokens do not know of each other: the most certain first, unless chance shall decide.
            settings = replace(settings, sampler="adaptive" if filters == GREEDY else "ancestral")
        if process is not None and settings.sampler != "blockwise":
            behind = process.mixing.mask_id if process.mixing.is_masked else None
            rows = [[*row, *[behind] * (self.max_length - len(row))] for row in rows]
        canvas, generator = Canvas.from_rows(rows, self._device), torch.Generator(self._device).manual_seed(self._seed)
        ids = write(self._loaded, canvas, settings, generator=generator).tolist()
        return [row[len(prompt) : len(prompt) + count] for row, prompt, count in zip(ids, prompts, counts, strict=True)]


def rolling_windows(ids: Sequence[int], length: int) -> list[tuple[Sequence[int], Sequence[int]]]:
    """(context, scored) windows of at most `length` tokens in all: every token scored once, in order.

    The first window scores all it holds; each later one scores the next length / 2 with as much context as fits.
    """
    pairs: list[tuple[Sequence[int], Sequence[int]]] = [([], ids[:length])] if ids else []
    step = max(1, length // 2)
    for start in range(length, len(ids), step):
        stop = min(start + step, len(ids))
        pairs.append((ids[max(0, stop - length) : start], ids[start:stop]))
    return pairs


def run_tasks(
    loaded: LoadedModel,
    tasks: Sequence[str],
    *,
    include_path: Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    use_cache: Path | None = None,
    **model_options: Any,
) -> dict[str, Any]:
    """Results of `tasks` by the harness: {task: {metric: value}} under "results", and what it was asked.

    `use_cache` is the beginning of the name of the harness's cache of answers. Raises ValueError for a task that
    neither the harness nor `include_path` knows.
    """
    from lm_eval.evaluator import simple_evaluate  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    if include_path is not None and not include_path.is_dir():
        raise ValueError(f"{include_path}: no such folder; --include-path is a folder of task YAML files")
    # Where the own folder holds all that is asked, the harness's thousands of files need not be read.
    folder = None if include_path is None else str(include_path)
    manager = TaskManager(include_path=folder, include_defaults=folder is None)
    if not set(tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=folder)
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        where = "the harness" if include_path is None else f"the harness or {include_path}"
        raise ValueError(
            f"{', '.join(unknown)}: no task of {where}; `lm_eval ls tasks` lists its own, --include-path adds a folder"
        )
    found = simple_evaluate(
        model=HarnessModel(loaded, **model_options),
        tasks=list(tasks),
        task_manager=manager,
        limit=limit,
        num_fewshot=num_fewshot,
        use_cache=None if use_cache is None else str(use_cache),
        log_samples=False,
    )
    assert found is not None
    return {name: found.get(name) for name in ("results", "versions", "n-samples")}


def register() -> None:
    """Make `--model noiselaw` known to the harness of this process; nothing where it knows it already."""
    import lm_eval.models  # noqa: F401, PLC0415  # pyright: ignore[reportMissingImports]

    if MODEL_NAME not in model_registry:
        model_registry.register(MODEL_NAME, target=HarnessModel)


def main() -> None:
    """The harness's command line, with our model in it."""
    from lm_eval.__main__ import cli_evaluate  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    register()
    sys.argv[0] = "lm_eval"
    cli_evaluate()


def _by_settings(requests: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """Consecutive requests with the same generation options."""
    start = 0
    for stop in range(1, len(requests) + 1):
        if stop == len(requests) or requests[stop].args[1] != requests[start].args[1]:
            yield requests[start:stop]
            start = stop


def _filters(options: dict[str, Any]) -> Filters:
    """The harness writes greedily unless a task asks to sample."""
    if not options.get("do_sample", False):
        return GREEDY
    return Filters(float(options.get("temperature", 1.0)), options.get("top_k"), options.get("top_p"))


def _until(text: str, stops: Iterable[str]) -> str:
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends)] if ends else text


if __name__ == "__main__":
    main()
