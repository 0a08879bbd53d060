"""`noiselaw demo RUN`: type a prompt, watch the text appear and revise itself, in a local browser (extra `demo`)."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor

from noiselaw.cli.tracing import piece
from noiselaw.hub.loading import LoadedModel, load_model
from noiselaw.hub.write import SAMPLERS, Settings, revise, write, written_ids
from noiselaw.report.markup import Markup, element
from noiselaw.sampling import GREEDY, Canvas, Filters, Observer, Step

LOCAL_ADDRESS = "127.0.0.1"
NOISE_COLOUR = "217, 142, 0"
"""Red, green, blue: the trace page's colour of noise."""
STYLE = (
    "font: 15px/1.65 ui-monospace, Menlo, Consolas, monospace; white-space: break-spaces; overflow-wrap: anywhere; "
    "min-height: 10rem; padding: 0.75rem"
)


def demo(model: Path, /, *, port: int | None = None, tokenizer: Path | None = None) -> None:
    """Type a prompt, watch the text appear and revise itself, in a browser on this machine.

    Args:
        model: Run folder of `noiselaw train` or a published GIDD checkpoint.
        port: Where to listen on this machine; by default the first free one from 7860 up.
        tokenizer: A tokenizer.json in place of the model's own.
    """
    gradio = _gradio()
    loaded = load_model(model, tokenizer=tokenizer)
    loaded.text_tokenizer()
    # The default theme fetches its fonts from the network.
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    build(gradio, loaded).launch(server_name=LOCAL_ADDRESS, server_port=port, share=False, theme=theme)


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read on import: nothing leaves this machine
    try:
        return import_module("gradio")
    except ImportError:
        raise ImportError("noiselaw demo needs the gradio package; pip install 'noiselaw[demo]'") from None


def build(gradio: Any, loaded: LoadedModel) -> Any:
    """The page: what to write on the left, the text on the right."""
    context, process = loaded.sequence_length, loaded.process
    with gradio.Blocks(title=f"noiselaw: {loaded.path.name}", analytics_enabled=False) as page:
        gradio.Markdown(f"# {loaded.path.resolve().name}\n{loaded.noise_name}, texts of up to {context} tokens")
        with gradio.Row():
            with gradio.Column(scale=1):
                prompt = gradio.Textbox(label="Prompt", lines=3)
                sampler = gradio.Dropdown(
                    list(SAMPLERS), value="ancestral", label="Sampler", visible=process is not None
                )
                steps = gradio.Slider(
                    1, 4 * context, value=min(128, context), step=1, label="Steps", visible=process is not None
                )
                length = gradio.Slider(2, context, value=context, step=1, label="Tokens in all")
                temperature = gradio.Slider(0, 2, value=1, step=0.05, label="Temperature")
                seed = gradio.Number(0, precision=0, label="Seed")
                start = gradio.Button("Write", variant="primary")
                can_revise = process is not None and not process.mixing.is_masked
                again = gradio.Button("Revise", visible=can_revise)
            with gradio.Column(scale=2):
                shown = gradio.HTML(element("div", style=STYLE))
                text = gradio.Textbox(label="Finished text", lines=6)

        options = {"sampler": sampler, "steps": steps, "length": length, "temperature": temperature, "seed": seed}

        def write_on_page(words: str, *values: Any) -> Iterator[tuple[Markup, str]]:
            chosen = dict(zip(options, values, strict=True))
            yield from _readable(gradio, written(loaded, words, **chosen))

        def revise_on_page(words: str, seed: int) -> Iterator[tuple[Markup, str]]:
            yield from _readable(gradio, revised(loaded, words, seed))

        start.click(write_on_page, [prompt, *options.values()], [shown, text])
        again.click(revise_on_page, [text, seed], [shown, text])
    return page


def written(
    loaded: LoadedModel, prompt: str, *, sampler: str, steps: int, length: int, temperature: float, seed: int
) -> Iterator[tuple[Markup, str]]:
    """(picture of the text, finished text) after every step; the finished text is empty until it is."""
    ids = loaded.encode(prompt, "prompt") if prompt else []
    canvas = Canvas.from_prompts([ids], int(length), loaded.device)
    settings = Settings(filters=Filters(temperature))
    if loaded.process is not None:
        settings = Settings(sampler=sampler, num_steps=int(steps), filters=Filters(temperature))

    def work(observe: Observer) -> Tensor:
        return write(loaded, canvas, settings, generator=_generator(loaded, seed), observe=observe)

    for shown, found in watched(loaded, canvas, work):
        yield shown, loaded.decode(written_ids(loaded, found, len(ids)))


def revised(loaded: LoadedModel, text: str, seed: int) -> Iterator[tuple[Markup, str]]:
    """As `written`, for a text that the model improves."""
    if not text:
        raise ValueError("there is no text to revise yet; write one first")
    canvas = Canvas.from_texts([loaded.encode(text, "text")], loaded.device)

    def work(observe: Observer) -> Tensor:
        return revise(loaded, canvas, Settings(filters=GREEDY), generator=_generator(loaded, seed), observe=observe)

    for shown, found in watched(loaded, canvas, work):
        yield shown, loaded.decode(found) if found else text


def picture(loaded: LoadedModel, canvas: Canvas, step: Step) -> Markup:
    """The text of a step as HTML: noise has a deep colour, what the step rewrote a frame. All text is escaped."""
    noise, given = step.beliefs().noise[0].tolist(), canvas.given[0].tolist()
    changed, tokens = step.changed[0].tolist(), step.tokens[0].tolist()
    spans = []
    for position, token in enumerate(tokens):
        frame = "; outline: 1.5px solid" if changed[position] else ""
        look = "opacity: 0.6" if given[position] else f"background: rgba({NOISE_COLOUR}, {0.6 * noise[position]:.2f})"
        spans.append(element("span", piece(loaded, token), style=look + frame))
    return element("div", spans, style=STYLE)


class _GoneError(Exception):
    """Nobody looks any more."""


def watched(
    loaded: LoadedModel, canvas: Canvas, work: Callable[[Observer], Tensor]
) -> Iterator[tuple[Markup, list[int]]]:
    """(picture, no ids yet) for every step of `work`, a sampler with its observer open, then (last picture, ids).

    The sampler runs in a thread of its own and is stopped when the iterator is closed: a browser that leaves.
    """
    news: Queue[Markup | list[int] | Exception] = Queue(maxsize=1)
    gone = Event()

    def tell(item: Markup | list[int] | Exception) -> None:
        while not gone.is_set():
            with suppress(Full):
                news.put(item, timeout=0.1)
                return
        raise _GoneError

    def run() -> None:
        try:
            tell(work(lambda step: tell(picture(loaded, canvas, step)))[0].tolist())
        except _GoneError:
            return
        except Exception as error:  # noqa: BLE001 (raised again where it can be read)
            with suppress(_GoneError):
                tell(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    shown = Markup("")
    try:
        while True:
            item = news.get()
            if isinstance(item, Exception):
                raise item
            if isinstance(item, list):
                yield shown, item
                return
            shown = item
            yield shown, []
    finally:
        gone.set()
        thread.join()


def _generator(loaded: LoadedModel, seed: float) -> torch.Generator:
    return torch.Generator(loaded.device).manual_seed(int(seed))


def _readable(gradio: Any, results: Iterator[tuple[Markup, str]]) -> Iterator[tuple[Markup, str]]:
    """`results`, with users' mistakes as messages on the page instead of tracebacks on the terminal."""
    try:
        yield from results
    except ValueError as error:
        raise gradio.Error(str(error)) from None
