"""Curves of jobs, drawn in the terminal."""

from typing import Any

import plotext

from cli.client import Json
from cli.screen import safe

# More points than columns only blur.
POINTS = 90

_WITH_VALIDATION = ("loss", "accuracy")
# Where there are no colours, curves differ in what they are made of.
_MARKERS = ("*", "o", "+", "x", "#", "%", "@", "&")


def draw(curves: dict[str, Json], metric: str, *, width: int, height: int = 18, colors: bool) -> str:
    """Return the drawing of a metric by update: of a single job beside its validation at the end of each epoch, of
    several each under its name.
    """
    lines = {name: _known(metrics["step"], metrics[metric]) for name, metrics in curves.items()}
    lines = {name: points for name, points in lines.items() if points}
    words = metric.replace("_", " ")
    if not lines:
        return f"no {words} is known"
    alone = len(curves) == 1
    validation = next(iter(curves.values()))["validation"] if alone and metric in _WITH_VALIDATION else []
    validated = _known([point["step"] for point in validation], [point[metric] for point in validation])
    figure: Any = plotext.figure
    figure.clear()
    figure.theme("simple" if colors else "colorless")
    figure.plot_size(width, height)
    figure.title(f"{words} by update")
    for place, (name, points) in enumerate(lines.items()):
        marker = "hd" if colors or alone else _MARKERS[place % len(_MARKERS)]
        signal = figure.signal(*_columns(points), marker=marker).lines()
        figure.draw(signal.label("training" if alone else safe(name)))
    if validated:
        figure.draw(figure.signal(*_columns(validated), marker="●").label("validation"))
    last = max(points[-1][0] for points in lines.values())
    figure.ruler("x").ticks(sorted({max(1, last * quarter // 4) for quarter in range(5)}))
    # What falls leaves its corner at the top right free; what rises the one at the bottom right.
    values = [value for points in (*lines.values(), validated) for _, value in points]
    falls = metric != "accuracy"
    figure.legend(
        x=last, y=max(values) if falls else min(values), ha="right", va="top" if falls else "bottom", relative=True
    )
    drawing = str(figure.build().string(not colors))
    figure.clear()
    return drawing


def _known(steps: list[int], values: list[float | None]) -> list[tuple[int, float]]:
    return [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
