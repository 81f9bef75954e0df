"""What a contender of `benchmarks.throughput` measures: the same of every one.

A contender trains from the first row on, warms up for a few updates, and is then measured. Where its batches are of
like length, and so differ from each other, a measurement is a whole number of epochs, as many as come nearest to
`seconds`: it then holds the same rows as that of a contender whose batches are of all lengths, which ends with any
update.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from benchmarks.case import Case
from benchmarks.memory import device_memory, peak_rss


@dataclass(frozen=True)
class Measurement:
    """What a contender did after its warm-up. `tokens` are those that carry loss.

    `peak_rss` is of the process that trains, over its whole life; `device_memory` is all that is in use on the GPU.
    None: not known here.
    """

    updates: int
    tokens: int
    seconds: float
    first_loss: float
    peak_rss: int | None
    device_memory: int | None

    @property
    def tokens_per_second(self) -> float:
        """The speed."""
        return self.tokens / self.seconds

    def tell(self) -> None:
        """Print it as the last line of standard output."""
        sys.stdout.flush()
        print(json.dumps(asdict(self)), flush=True)


class Stopwatch:
    """Told of every update as it ends, it says when there is enough.

    `whole_epochs`: only at the end of one may it be enough, where rows are not all of one length. `synchronize` waits
    for the device; it is called when the measurement begins and when it may end.
    """

    def __init__(
        self,
        case: Case,
        *,
        whole_epochs: bool,
        synchronize: Callable[[], object] = lambda: None,
    ) -> None:
        self._case, self._synchronize = case, synchronize
        self._period = case.updates_per_epoch if whole_epochs and case.ragged else 1
        self._updates = self._measured = self._tokens = 0
        self._started_at: float | None = None
        self._seconds = 0.0

    def update_done(self, tokens: int) -> bool:
        """Take in an update of so many tokens with loss; True where the measurement is over."""
        self._updates += 1
        if self._started_at is None:
            if self._updates >= self._case.warmup_updates:
                self._synchronize()
                self._started_at = time.perf_counter()
            return False
        self._measured += 1
        self._tokens += tokens
        periods, left = divmod(self._measured, self._period)
        if left:
            return False
        self._synchronize()
        self._seconds = time.perf_counter() - self._started_at
        return self._seconds * (1 + 0.5 / periods) >= self._case.seconds

    def measurement(self, *, first_loss: float, pid: int) -> Measurement:
        """Return what was measured, once it is over. `pid` is the process that trains, still alive."""
        return Measurement(
            updates=self._measured,
            tokens=self._tokens,
            seconds=self._seconds,
            first_loss=first_loss,
            peak_rss=peak_rss(pid),
            device_memory=device_memory() if self._case.device == "cuda" else None,
        )
