"""A job's loss, drawn in the terminal."""

from typing import Any

import plotext

from cli.client import Json

# More points than columns only blur.
POINTS = 90


def loss_curve(metrics: Json, *, width: int, height: int = 18, colors: bool) -> str:
    """Return the drawing: training loss by update, and the validation loss at the end of each epoch."""
    figure: Any = plotext.figure
    figure.clear()
    figure.theme("simple" if colors else "colorless")
    figure.plot_size(width, height)
    figure.title("loss by update")
    training = _known(metrics["step"], metrics["loss"])
    validation = [(point["step"], point["loss"]) for point in metrics["validation"]]
    if not training:
        return "no loss is known"
    figure.draw(figure.signal(*_columns(training), marker="hd").lines().label("training"))
    if validation:
        figure.draw(figure.signal(*_columns(validation), marker="●").label("validation"))
    last = training[-1][0]
    figure.ruler("x").ticks(sorted({max(1, last * quarter // 4) for quarter in range(5)}))
    # A loss falls: its corner at the top right is free.
    figure.legend(x=last, y=max(loss for _, loss in training), ha="right", va="top", relative=True)
    drawing = str(figure.build().string(not colors))
    figure.clear()
    return drawing


def _known(steps: list[int], losses: list[float | None]) -> list[tuple[int, float]]:
    return [(step, loss) for step, loss in zip(steps, losses, strict=True) if loss is not None]


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [loss for _, loss in points]
