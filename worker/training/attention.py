"""Attention as the models call it: PyTorch's kernels, except where one of those is slow.

A model built with `IMPLEMENTATION` gets no mask made by transformers, which would look into the positions and wait for
the device. Rows are padded on the right, so plain causal attention is right for them; packed rows bring their own mask.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from core.pieces import query_blocks
from worker.training.dropout import draw_mask, scale_of_kept

IMPLEMENTATION = "epochd"


def document_mask(documents: Tensor) -> Tensor:
    """Return which position may look at which, [B, 1, T, T]: those before it, and itself, in its own document.

    `documents` [B, T] numbers the document of each position.
    """
    same = documents[:, :, None] == documents[:, None, :]
    return same.tril_().unsqueeze(1)


def _attention(  # noqa: PLR0917 - as the models call it
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from `query` [B, H, T, D] to `key` and `value`; returns [B, T, H, D] and no weights."""
    if query.device.type != "cpu" or not dropout or torch.compiler.is_compiling():
        attended, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return attended, None
    # With dropout PyTorch has no fused kernel for the CPU.
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attended = _CausalAttention.apply(query * scale, key, value, attention_mask, dropout)  # type: ignore[no-untyped-call]
    return attended.transpose(1, 2).contiguous(), None


class _CausalAttention(torch.autograd.Function):
    """Attention with dropout on the CPU, a block of queries at a time: what lies after a block is not computed.

    Takes and returns [B, H, T, D]; queries are scaled, the mask is [B, 1, T, T] or None. Beside what it was given it
    keeps the softmax and one byte for each of its elements, of the lower blocks alone.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - as autograd calls it
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, probability: float
    ) -> Tensor:
        ctx.shape, ctx.scale = query.shape, scale_of_kept(probability)
        query, key, value = _by_head(query), _by_head(key), _by_head(value)
        attended = torch.empty_like(query)
        kept = []
        for start, end in _blocks(query.shape[1]):
            scores = torch.bmm(query[:, start:end], key[:, :end].transpose(1, 2))
            if mask is None:
                scores[:, :, start:].add_(_hides_later(end - start, scores.dtype))
            else:
                by_row = scores.view(ctx.shape[0], ctx.shape[1], end - start, end)
                by_row.masked_fill_(~mask[:, :, start:end, :end], -torch.inf)
            # Under autocast the softmax may come wider than what it is multiplied with.
            weights = scores.softmax(dim=-1).to(value.dtype)
            keep = draw_mask(weights.shape, probability)
            attended[:, start:end] = torch.bmm(keep.to(weights.dtype).mul_(weights), value[:, :end])
            kept += [weights, keep]
        ctx.save_for_backward(query, key, value, *kept)
        return attended.mul_(ctx.scale).view(ctx.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_attended: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        of_attended = _by_head(of_attended * ctx.scale)
        of_query = torch.empty_like(query)
        of_key: Tensor | None = None
        of_value: Tensor | None = None
        blocks = list(zip(_blocks(query.shape[1]), kept[::2], kept[1::2], strict=True))
        for (start, end), weights, keep in reversed(blocks):  # the last one looks at all keys
            of_block, numbers = of_attended[:, start:end], keep.to(weights.dtype)
            of_weights = torch.bmm(of_block, value[:, :end].transpose(1, 2)).mul_(numbers)
            of_value = _add_keys(of_value, torch.bmm(numbers.mul_(weights).transpose(1, 2), of_block))
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_query[:, start:end] = torch.bmm(of_scores, key[:, :end])
            of_key = _add_keys(of_key, torch.bmm(of_scores.transpose(1, 2), query[:, start:end]))
        assert of_key is not None
        assert of_value is not None
        return of_query.view(ctx.shape), of_key.view(ctx.shape), of_value.view(ctx.shape), None, None


def _by_head(x: Tensor) -> Tensor:
    """Return [B, H, T, D] as contiguous [B * H, T, D]."""
    return x.reshape(-1, *x.shape[2:])


def _add_keys(total: Tensor | None, of_block: Tensor) -> Tensor:
    """Add what a block gives its keys, the first ones, to the total of all; without one yet it is the total."""
    if total is None:
        return of_block
    # `baddbmm_` into some of the keys would multiply head by head.
    total[:, : of_block.shape[1]] += of_block
    return total


def _blocks(length: int) -> list[tuple[int, int]]:
    """Cut so many queries into blocks that are as equal as can be."""
    count = query_blocks(length)
    ends = [length * (i + 1) // count for i in range(count)]
    return list(zip([0, *ends], ends, strict=False))


def _hides_later(length: int, dtype: torch.dtype) -> Tensor:
    """Return what hides from the queries of a block the keys that come after them when it is added, [length, length].

    torch adds many numbers at a time, and fills through a mask one by one.
    """
    return torch.full((length, length), -torch.inf, dtype=dtype).triu_(1)


AttentionInterface.register(IMPLEMENTATION, _attention)
