"""What a contender of `benchmarks.throughput` measures: the same of every one.

A contender trains from the first row on, warms up for a few updates, and is then measured over a whole number of
epochs, as many as come nearest to `seconds`: batches of like length and batches of all lengths then hold the same rows.
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
    """Told of every update as it ends, it says when there is enough. `settle` seconds at least are left out first.

    `synchronize` waits for the device; it is called when the measurement begins and when it may end.
    """

    def __init__(self, case: Case, *, settle: float = 0.0, synchronize: Callable[[], object] = lambda: None) -> None:
        self._case, self._settle, self._synchronize = case, settle, synchronize
        self._updates = self._measured = self._tokens = 0
        self._first_at = time.perf_counter()
        self._started_at: float | None = None
        self._seconds = 0.0

    def update_done(self, tokens: int) -> bool:
        """Take in an update of so many tokens with loss; True where the measurement is over."""
        self._updates += 1
        if self._started_at is None:
            if self._updates == 1:
                self._first_at = time.perf_counter()
            settled = time.perf_counter() - self._first_at >= self._settle
            if settled and self._updates >= self._case.warmup_updates:
                self._synchronize()
                self._started_at = time.perf_counter()
            return False
        self._measured += 1
        self._tokens += tokens
        epochs, left = divmod(self._measured, self._case.updates_per_epoch)
        if left:
            return False
        self._synchronize()
        self._seconds = time.perf_counter() - self._started_at
        return self._seconds * (1 + 0.5 / epochs) >= self._case.seconds

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
