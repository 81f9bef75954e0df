"""A job's events in words."""

from collections.abc import Callable

from cli.client import Json
from cli.outline import Outline

STYLES = {
    "epoch": "bold cyan",
    "warning": "yellow",
    "requeued": "yellow",
    "paused": "yellow",
    "cancelled": "bold yellow",
    "failed": "bold red",
    "succeeded": "bold green",
}


def lines(event: Json, outline: Outline) -> list[str]:
    """Return an event in words. A type that a newer server may add is shown by its name."""
    words = _WORDS.get(event["type"])
    return words(event["data"], outline) if words else [event["type"]]


def numbers(data: Json) -> str:
    """Return a batch's numbers. The speed is known at the end of a window only."""
    parts = [
        f"loss {decimal(data['loss'])}",
        f"accuracy {_percent(data['accuracy'])}",
        f"learning rate {data['learning_rate']:.2e}",
    ]
    if data.get("tokens_per_second") is not None:
        parts.append(f"{data['tokens_per_second']:,.0f} tokens/s")
    return "  ".join(parts)


def _submitted(_data: Json, outline: Outline) -> list[str]:
    return [f"{outline.id} ({outline.name}) is submitted"]


def _started(data: Json, _outline: Outline) -> list[str]:
    step = data["from_step"]
    return [f"attempt {data['attempt']} starts" + (f" from the checkpoint of step {step}" if step else "")]


def _preparing(data: Json, _outline: Outline) -> list[str]:
    return [f"preparing: {data['phase']} {data['done']}/{data['total']}"]


def _batch(data: Json, outline: Outline) -> list[str]:
    steps = f"/{outline.steps}" if outline.steps else ""
    return [f"epoch {data['epoch']}/{outline.epochs}  step {data['step']}{steps}  {numbers(data)}"]


def _epoch(data: Json, _outline: Outline) -> list[str]:
    parts = [f"epoch {data['epoch']}", f"loss {decimal(data['loss'])}", f"accuracy {_percent(data['accuracy'])}"]
    if data.get("validation_loss") is not None:
        parts.append(f"validation loss {data['validation_loss']:.3f}")
    if data.get("perplexity") is not None:
        parts.append(f"perplexity {data['perplexity']:,.1f}")
    return ["  ".join([*parts, f"{data['seconds']:.0f} s"])]


def _sample(data: Json, _outline: Outline) -> list[str]:
    # Indented, so that a model that writes lines of its own cannot pass them off as events.
    return [f"  {data['prompt']} ▸{data['text']}".replace("\n", "\n    ")]


def _checkpoint(data: Json, _outline: Outline) -> list[str]:
    return [f"checkpoint of epoch {data['epoch']}, step {data['step']}: {data['bytes'] / 1e6:.1f} MB"]


def _warning(data: Json, _outline: Outline) -> list[str]:
    return [f"warning: {data['message']}"]


def _requeued(data: Json, _outline: Outline) -> list[str]:
    return [f"queued again: {data.get('message') or data['reason']}"]


def _paused(_data: Json, outline: Outline) -> list[str]:
    return [f"paused: `epochd resume {outline.id}` queues it again"]


def _resumed(_data: Json, _outline: Outline) -> list[str]:
    return ["resumed: queued again"]


def _failed(data: Json, _outline: Outline) -> list[str]:
    return [f"failed ({data['code']}): {data['message']}", f"  {data['hint']}"]


_WORDS: dict[str, Callable[[Json, Outline], list[str]]] = {
    "submitted": _submitted,
    "started": _started,
    "preparing": _preparing,
    "batch": _batch,
    "epoch": _epoch,
    "sample": _sample,
    "checkpoint": _checkpoint,
    "warning": _warning,
    "requeued": _requeued,
    "paused": _paused,
    "resumed": _resumed,
    "failed": _failed,
}


def decimal(value: float | None) -> str:
    """Return a loss in words."""
    return "not finite" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"
