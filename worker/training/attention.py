"""Attention as the models call it: PyTorch's kernels, except where one of those is slow.

A model built with `IMPLEMENTATION` gets no mask made by transformers, which would look into the positions and wait for
the device. Rows are padded on the right, so plain causal attention is right for them; packed rows bring their own mask.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from worker.training.dropout import dropout as drop

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
    if query.device.type != "cpu" or not dropout:
        attended, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return attended, None
    # With dropout PyTorch has no fused kernel for the CPU: with this a GPT-2's layer takes a sixth less.
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if attention_mask is None:
        length = query.shape[2]
        hidden = torch.full((length, length), -torch.inf).triu_(1)
    else:
        hidden = torch.zeros(attention_mask.shape).masked_fill_(~attention_mask, -torch.inf)
    scores = query * (query.shape[-1] ** -0.5 if scaling is None else scaling) @ key.transpose(-2, -1)
    weights = scores.add_(hidden).softmax(dim=-1)
    return (drop(weights, dropout) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(IMPLEMENTATION, _attention)
