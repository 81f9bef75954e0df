"""Torch's random numbers, set anew for each purpose: there is no state of theirs to save."""

import threading

import torch

from core.tokens.seeds import derive


class _Own(threading.local):
    generator: torch.Generator | None = None


_own = _Own()


def reseed(seed: int, purpose: str, *place: int) -> None:
    """Set torch's global generators (CPU and CUDA) for what comes next; nobody relies on what they held before."""
    torch.manual_seed(derive(seed, purpose, *place))


def reseed_thread(seed: int, purpose: str, *place: int) -> None:
    """Give this thread a generator of its own, and set it: of the global one threads would draw in any order."""
    _own.generator = _own.generator or torch.Generator()
    _own.generator.manual_seed(derive(seed, purpose, *place))


def generator() -> torch.Generator:
    """Return this thread's own generator, or else torch's global one of the CPU."""
    return _own.generator or torch.default_generator
