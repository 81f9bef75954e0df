"""What the trainer computes in its own way on a CPU, beside what it would be otherwise: forward and backward.

    python -m benchmarks.kernels

In turn, in one process, at the sizes of a 4M GPT-2's batch. Prints medians and their ratio.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.activations import NewGELUActivation

from benchmarks.shapes import BATCH_SIZE, MODELS, VOCAB_SIZE
from worker.training.attention import IMPLEMENTATION
from worker.training.cross_entropy import linear_cross_entropy
from worker.training.dropout import dropout

RUNS = 41
LENGTH = 96
DROPOUT = 0.1

Step = Callable[[], Tensor]


def pairs() -> dict[str, tuple[Step, Step]]:
    """Return each computation in our way and in the other, as functions to a scalar."""
    width = MODELS["4m"]["n_embd"]
    hidden = torch.randn(BATCH_SIZE * LENGTH, width, requires_grad=True)
    inner = torch.randn(BATCH_SIZE * LENGTH, 4 * width, requires_grad=True)
    head = torch.randn(VOCAB_SIZE, width, requires_grad=True)
    targets = torch.randint(VOCAB_SIZE, (BATCH_SIZE * LENGTH,))
    new_gelu, gelu = NewGELUActivation(), nn.GELU(approximate="tanh")

    def all_logits() -> Tensor:
        logits = hidden @ head.t()
        logits.detach().argmax(-1)  # for the accuracy, which ours counts too
        return functional.cross_entropy(logits, targets, reduction="sum")

    def at_once() -> Tensor:
        loss, _ = linear_cross_entropy(hidden, head, None, targets, dtype=torch.float32)
        return loss

    return {
        "dropout": (lambda: dropout(hidden, DROPOUT).sum(), lambda: functional.dropout(hidden, DROPOUT).sum()),
        "attention with dropout": (attention(IMPLEMENTATION), attention("sdpa")),
        "gelu_new": (lambda: gelu(inner).sum(), lambda: new_gelu(inner).sum()),
        "logits and cross-entropy": (at_once, all_logits),
    }


def attention(implementation: str) -> Step:
    """Return a GPT-2's attention layer by one of transformers' names, with dropout on its weights alone."""
    shape = MODELS["4m"] | {"n_layer": 1}
    model = GPT2LMHeadModel(GPT2Config(**shape, attn_pdrop=DROPOUT, resid_pdrop=0.0)).train()
    model.set_attn_implementation(implementation)
    layer = model.transformer.h[0].attn
    hidden = torch.randn(BATCH_SIZE, LENGTH, shape["n_embd"], requires_grad=True)

    def step() -> Tensor:
        attended: Tensor = layer(hidden)[0]
        return attended.sum()

    return step


def seconds(step: Step) -> float:
    """Time one way there and back."""
    started = time.perf_counter()
    step().backward()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    print(f"{'':26}      ours     other  other takes  ({RUNS} runs, in turn, {torch.get_num_threads()} threads)")
    for name, (ours, other) in pairs().items():
        times = [(seconds(ours), seconds(other)) for _ in range(RUNS)][RUNS // 4 :]
        mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        print(f"{name:26} {mine * 1e3:6.2f} ms {theirs * 1e3:6.2f} ms {ratio:6.1f} times as long")


if __name__ == "__main__":
    main()
