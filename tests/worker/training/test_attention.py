"""Attention with dropout on the CPU, a block at a time, is what it is when written out at once."""

import pytest
import torch
from torch import Tensor, nn

from worker.training import attention
from worker.training.attention import document_mask
from worker.training.dropout import draw_mask, scale_of_kept

DROPOUT = 0.3
ROWS, HEADS, WIDTH = 2, 3, 8
# One block; exactly one; two; three that are not equal.
LENGTHS = [1, 63, 64, 129, 200]

_attend = attention._attention


def blocks(length: int) -> list[tuple[int, int]]:
    """Return where the queries are cut."""
    return attention._blocks(length)


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attend with all scores at once, and with the masks that the blocks draw one after the other."""
    length = query.shape[2]
    keep = torch.zeros(ROWS * HEADS, length, length, dtype=torch.bool)
    for start, end in blocks(length):
        keep[:, start:end, :end] = draw_mask(torch.Size((ROWS * HEADS, end - start, end)), DROPOUT)
    scores = query @ key.transpose(-2, -1) / WIDTH**0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
    dropped = weights * keep.view(weights.shape) * scale_of_kept(DROPOUT)
    return (dropped @ value).transpose(1, 2)


def given(length: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return queries, keys and values as a GPT-2 makes them: views of one tensor, heads last."""
    torch.manual_seed(length)
    joined = torch.randn(ROWS, length, 3, HEADS, WIDTH, dtype=dtype, requires_grad=True)
    return [part.transpose(1, 2) for part in joined.unbind(2)]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("packed", [False, True], ids=["document", "packed"])
def test_values_and_gradients_are_those_of_all_at_once(length: int, packed: bool) -> None:
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    if packed:
        mask = document_mask(torch.arange(length).div(50, rounding_mode="floor").expand(ROWS, length))
    results = []
    for attend in (
        lambda *qkv: _attend(nn.Module(), *qkv, mask if packed else None, dropout=DROPOUT)[0],
        lambda *qkv: written_out(*qkv, mask),
    ):
        qkv = given(length)
        torch.manual_seed(1)
        attended = attend(*qkv)
        weighted = (attended * torch.linspace(-1, 1, attended.numel()).view(attended.shape)).sum()
        results.append([attended, *torch.autograd.grad(weighted, qkv)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_blocks_cover_every_query_once() -> None:
    for length in range(1, 700):
        starts, ends = zip(*blocks(length), strict=True)
        assert (0, *ends) == (*starts, length)
        assert all(64 <= end - start < 128 for start, end in blocks(length)) or length < 64


def test_it_trains_in_half_precision() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attended, _ = _attend(nn.Module(), *given(130, torch.bfloat16), None, dropout=DROPOUT)
    assert attended.dtype == torch.bfloat16
    attended.float().sum().backward()
