"""What all tests of the trainer share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Begin on one thread: models this small only wait for the others."""
    torch.set_num_threads(1)
