"""Cheap dropout drops what it should, as often as it should, the same each time."""

import pytest
import torch

from worker.training.dropout import Dropout, dropout


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5, 0.9])
def test_the_share_dropped_and_the_mean_are_right(probability: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 1003)
    y = dropout(x, probability)
    assert (y == 0).float().mean().item() == pytest.approx(probability, abs=0.002)
    assert y[y > 0].unique().tolist() == pytest.approx([1 / (1 - probability)], rel=1e-4)
    assert y.mean().item() == pytest.approx(1.0, abs=0.01)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(2**20), 0.5) > 0).float() - 0.5
    for distance in range(1, 9):  # four neighbours share one draw
        assert abs((kept[distance:] * kept[:-distance]).mean().item()) < 0.001


def test_the_gradient_goes_where_the_values_went() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 64, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_the_mask_follows_from_torchs_seed() -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(torch.ones(100), 0.5))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_nothing_is_dropped_outside_of_training() -> None:
    module = Dropout(0.5)
    x = torch.randn(10)
    assert not torch.equal(module(x), x)
    assert module.eval()(x) is x


def test_next_to_everything_may_be_dropped() -> None:
    kept = dropout(torch.ones(1000, 1000), 0.999999)
    assert set(kept.unique().tolist()) <= {0.0, 65536.0}
    assert 0 < (kept != 0).sum() < 100
