"""Quality of written texts against the steps they took."""

from collections.abc import Sequence

from noiselaw.report import phrases
from noiselaw.report.axes import linear_axis, log_axis
from noiselaw.report.colors import group_styles
from noiselaw.report.drawing import Drawing, Line, Panel, Points


def quality_curve(
    noise: str, steps: Sequence[int], perplexity: Sequence[float], entropy: Sequence[float], scorer: str
) -> Drawing:
    """Perplexity under the scorer, and beside it the entropy that tells good texts from monotonous ones."""
    style, x = group_styles([noise])[noise], tuple(map(float, steps))
    axis = log_axis("sampling steps", x, phrases.plain)
    panels = []
    for title, label, values, make in (
        ("Perplexity", f"perplexity under {scorer}", perplexity, log_axis),
        ("Entropy", "entropy of tokens in a text, nats", entropy, linear_axis),
    ):
        y = tuple(values)
        marks = (
            Line(x, y, style.color, group=noise),
            Points(x, y, style.color, style.symbol, group=noise),
        )
        panels.append(Panel(title, axis, make(label, y, phrases.plain), marks))
    caption = "Lower perplexity is better only where the entropy does not fall with it."
    return Drawing("quality", f"Quality against steps: {noise}", caption, (tuple(panels),))
