"""Torch's random numbers, set anew for each purpose: there is no state of theirs to save."""

import torch

from core.tokens.seeds import derive


def reseed(seed: int, purpose: str, *place: int) -> None:
    """Set torch's global generators (CPU and CUDA) for what comes next; nobody relies on what they held before."""
    torch.manual_seed(derive(seed, purpose, *place))
