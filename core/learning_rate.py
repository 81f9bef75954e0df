"""The learning rate of each update: a pure function of its place in the run."""

import math
from typing import Literal

Scheduler = Literal["linear", "cosine", "constant"]


def learning_rate(update: int, *, total: int, warmup: int, scheduler: Scheduler, base: float) -> float:
    """Return the rate of an update, counted from 0, in a run of `total` updates.

    The schedules are those of transformers' `get_{linear,cosine,constant}_schedule_with_warmup`, to the last bit: the
    rate rises from 0 (the very first update of a run with warmup moves nothing) to `base` at update `warmup`, then
    falls to 0 at `total`, which is never reached, in a line or half a cosine; or stays.
    """
    if update < warmup:
        return base * (update / max(1, warmup))
    if scheduler == "constant":
        return base
    if scheduler == "linear":
        return base * max(0.0, (total - update) / max(1, total - warmup))
    progress = (update - warmup) / max(1, total - warmup)
    return base * max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress)))
