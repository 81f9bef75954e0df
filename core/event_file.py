"""A job's curves as the event file that TensorBoard reads, made record by record."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from io import BytesIO
from itertools import groupby

from core.metrics import Point, Validation

# Records go out by so many steps at a time.
_STEPS_AT_ONCE = 500


def name(created_at: datetime, job_id: str) -> str:
    """Return the file's name: TensorBoard looks for names of this form."""
    return f"events.out.tfevents.{int(created_at.timestamp())}.{job_id}"


def records(created_at: datetime, batches: Iterable[Point], validations: Sequence[Validation]) -> Iterator[bytes]:
    """Yield the file in parts: for each step the means over its batches, then each epoch's validation."""
    # Only here, since it brings numpy, which an API that nobody asks for this file does without.
    from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboardX.proto.summary_pb2 import Summary  # noqa: PLC0415
    from tensorboardX.record_writer import RecordWriter  # noqa: PLC0415

    class Records(RecordWriter):  # type: ignore[misc]
        """Records in memory: the library's own writer is for files."""

        def __init__(self) -> None:
            self._writer = BytesIO()

        def scalars(self, at: datetime, step: int, numbers: dict[str, float | None]) -> None:
            """Write one step's numbers, those that there are."""
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items() if value is not None]
            summary = Summary(value=values)
            self.write(Event(wall_time=at.timestamp(), step=step, summary=summary).SerializeToString())

        def take(self) -> bytes:
            """Return what was written since the last time."""
            taken, self._writer = self._writer.getvalue(), BytesIO()
            return taken

    writer = Records()
    writer.write(Event(wall_time=created_at.timestamp(), file_version="brain.Event:2").SerializeToString())
    for number, (step, runs) in enumerate(groupby(batches, key=lambda point: point.step), 1):
        window = list(runs)
        writer.scalars(window[-1].at, step, _train(window))
        if number % _STEPS_AT_ONCE == 0:
            yield writer.take()
    for point in validations:
        writer.scalars(point.at, point.step, {"validation/loss": point.loss, "validation/accuracy": point.accuracy})
    yield writer.take()


def _train(window: list[Point]) -> dict[str, float | None]:
    """Return what the batches of one step come to, weighted by their tokens."""
    return {
        "train/loss": _mean([(point.loss, point.tokens) for point in window]),
        "train/accuracy": _mean([(point.accuracy, point.tokens) for point in window]),
        "train/learning_rate": window[-1].learning_rate,
        "train/grad_norm": window[-1].grad_norm,
    }


def _mean(values: list[tuple[float | None, int]]) -> float | None:
    known = [(value, tokens) for value, tokens in values if value is not None]
    total = sum(tokens for _, tokens in known)
    return sum(value * tokens for value, tokens in known) / total if total else None
