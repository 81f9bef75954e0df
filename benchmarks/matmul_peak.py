"""How fast the machine multiplies matrices: the yardstick of `benchmarks.throughput`, in a process of its own.

    python -m benchmarks.matmul_peak case.json

Prints FLOP/s (a multiply-add is 2) in the precision that the case trains in: of one large square product, and of the
model's own products, forward and both backward ones, at the mean number of tokens that a batch of the case holds.
"""

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.case import Case
from benchmarks.shapes import layer_products

_CHUNKS = 5
_CHUNK_SECONDS = 0.1


def fastest(work: Callable[[], object], synchronize: Callable[[], object]) -> float:
    """Return the seconds that a call takes in the fastest of a few chunks of calls."""

    def seconds(calls: int) -> float:
        synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            work()
        synchronize()
        return time.perf_counter() - started

    seconds(2)  # the first calls choose a kernel and touch the memory
    calls = max(1, round(_CHUNK_SECONDS / seconds(1)))
    return min(seconds(calls) for _ in range(_CHUNKS)) / calls


def main(case: Case) -> None:
    """Measure and print."""
    on_gpu = case.device == "cuda"
    dtype, side = (torch.bfloat16, 8192) if on_gpu else (torch.float32, 2048)
    synchronize: Callable[[], object] = torch.cuda.synchronize if on_gpu else lambda: None

    def random(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, device=case.device, dtype=dtype)

    a, b = random(side, side), random(side, side)
    square = 2 * side**3 / fastest(lambda: a @ b, synchronize)

    rows = case.rows()
    tokens = sum(len(row) - 1 for row in rows) * case.batch_size // len(rows)
    flops = seconds = 0.0
    for inputs, outputs, count in layer_products(case.model):
        x, w, g = random(tokens, inputs), random(inputs, outputs), random(tokens, outputs)
        for product in (lambda x=x, w=w: x @ w, lambda g=g, w=w: g @ w.T, lambda x=x, g=g: x.T @ g):
            flops += count * 2 * tokens * inputs * outputs
            seconds += count * fastest(product, synchronize)
    print(json.dumps({"square": square, "shapes": flops / seconds}))


if __name__ == "__main__":
    main(Case.read(sys.argv[1]))
