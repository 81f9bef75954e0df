"""The learning rate is that of transformers' schedules at every step."""

import pytest
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from core.learning_rate import Scheduler, learning_rate


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 1), (7, 0), (20, 5), (20, 20), (20, 33), (100, 1)])
def test_equals_transformers_at_every_update(scheduler: Scheduler, total: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
    theirs = {
        "linear": lambda: get_linear_schedule_with_warmup(optimizer, warmup, total),
        "cosine": lambda: get_cosine_schedule_with_warmup(optimizer, warmup, total),
        "constant": lambda: get_constant_schedule_with_warmup(optimizer, warmup),
    }[scheduler]()
    for update in range(total):
        ours = learning_rate(update, total=total, warmup=warmup, scheduler=scheduler, base=3e-4)
        assert ours == theirs.get_last_lr()[0], update
        optimizer.step()
        theirs.step()


def test_first_end_of_warmup_and_last() -> None:
    def rate(update: int) -> float:
        return learning_rate(update, total=10, warmup=4, scheduler="linear", base=1.0)

    assert (rate(0), rate(4), rate(9)) == (0.0, 1.0, pytest.approx(1 / 6))
