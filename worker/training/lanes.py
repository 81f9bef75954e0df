"""Lanes: on the CPU two threads share the rows of a window, each with its part of the cores and a copy of the model.

Cores that work on each operator together wait for each other hundreds of times an update; lanes wait once, at its end.
"""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from core.tokens.batches import IntArray
from worker.training.token_loss import TokenLoss

R = TypeVar("R")

# What two lanes take is about a tenth less than what one takes that has all cores.
_WORTH_IT = 1.1


@dataclass(frozen=True)
class _Lane:
    token_loss: TokenLoss
    weights: list[nn.Parameter]
    thread: ThreadPoolExecutor


class Lanes:
    """Two lanes, both with the model's own weights: what moves these moves both. Each has gradients of its own."""

    def __init__(self, model: PreTrainedModel, token_loss: TokenLoss, *, cores: int) -> None:
        # One more lane would hold one more set of gradients, and all share one interpreter.
        self._cores = cores - cores // 2, cores // 2
        twin = _twin(model)
        self._lanes = (
            _Lane(token_loss, list(model.parameters()), _thread(self._cores[0])),
            _Lane(token_loss.of(twin), list(twin.parameters()), _thread(self._cores[1])),
        )

    def share(self, lengths: IntArray, window: list[IntArray]) -> tuple[list[IntArray], ...] | None:
        """Return each lane's rows of each batch; None where that is not worth it."""
        return share(lengths, window, self._cores)

    def each(self, work: Callable[[int, TokenLoss], R]) -> list[R]:
        """Do work in each lane at once; it is told the lane's number and its model."""
        running = [lane.thread.submit(work, number, lane.token_loss) for number, lane in enumerate(self._lanes)]
        return [each.result() for each in running]

    def gather(self) -> None:
        """Add the second lane's gradients to the model's own, and drop them."""
        first, second = ([weight.grad for weight in lane.weights if weight.grad is not None] for lane in self._lanes)
        torch._foreach_add_(first, second)
        self.drop()

    def drop(self) -> None:
        """Drop the second lane's gradients."""
        for weight in self._lanes[1].weights:
            weight.grad = None


def share(lengths: IntArray, window: list[IntArray], cores: tuple[int, int]) -> tuple[list[IntArray], ...] | None:
    """Share each batch of a window between two lanes of so many cores, so that they end as near as can be.

    `lengths` are those of all rows. One lane gets the longest rows of a batch and the other the rest of it, so that
    both pad little. None where one would wait for the other for longer than two are faster than one.
    """
    whole = 0
    loads = np.zeros(2)  # padded positions
    shares: tuple[list[IntArray], list[IntArray]] = ([], [])
    for batch in window:
        rows = batch[np.argsort(-lengths[batch], kind="stable")]
        positions = lengths[rows] - 1
        counts = np.arange(len(rows) + 1)
        longest, rest = counts * positions[0], counts[::-1] * np.append(positions, 0)
        # Whether the first lane or the second gets the longest, and how many of them that is.
        choices = loads[:, None, None] + np.array([[longest, rest], [rest, longest]])
        first, count = divmod(int((choices / np.reshape(cores, (2, 1, 1))).max(axis=0).argmin()), len(counts))
        loads = choices[:, first, count]
        parts = (rows[:count], rows[count:])
        shares[0].append(parts[first])
        shares[1].append(parts[1 - first])
        whole += len(rows) * int(positions[0])
    if (loads / cores).max() > _WORTH_IT * whole / sum(cores):
        return None
    return shares


def _twin(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy that shares every weight and buffer with the model, and no gradient."""
    shared: dict[int, object] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=weight.requires_grad) for weight in model.parameters()
    }
    return copy.deepcopy(model, shared | {id(buffer): buffer for buffer in model.buffers()})


def _thread(cores: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="lane", initializer=_take, initargs=(cores,))


def _take(cores: int) -> None:
    # Asked first, since torch gives every core to a thread when that first uses it, whatever was said before.
    torch.get_num_threads()
    torch.set_num_threads(cores)
