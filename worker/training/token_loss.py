"""One forward pass: from rows to the sum of their token losses, computing no more than that takes.

No padding reaches the loss, and none is attended to: rows are padded on the right and attention is causal, so no
attention mask is needed. The vocabulary is only projected onto where a label carries loss.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from core.dataset_files import IGNORED_LABEL
from worker.training.batches import IntArray
from worker.training.sequences import Sequences


@dataclass(frozen=True)
class Collated:
    """A batch of B rows as arrays: `inputs` [B, T] token ids; `positions` [N] the flat places in it that carry loss
    (None: every one does), and `targets` [N], the label of each.
    """

    inputs: IntArray
    positions: IntArray | None
    targets: IntArray


def collate(sequences: Sequences, rows: IntArray) -> Collated:
    """Gather rows, padded on the right. Each is one token shorter than its sequence: the last one predicts nothing."""
    lengths = sequences.lengths[rows] - 1
    columns = np.arange(lengths.max())
    inside = columns < lengths[:, None]
    places = np.where(inside, sequences.starts[rows][:, None] + columns, 0)
    labels = sequences.labels[places + 1].astype(np.int64)
    carries_loss = inside & (labels != IGNORED_LABEL)
    return Collated(
        inputs=np.where(inside, sequences.ids[places], 0).astype(np.int64),
        positions=None if carries_loss.all() else np.flatnonzero(carries_loss),
        targets=labels[carries_loss],
    )


class TokenLoss:
    """The model as a function of rows. `dtype` other than float32 computes under autocast; weights stay float32."""

    def __init__(self, model: PreTrainedModel, *, device: torch.device, dtype: torch.dtype) -> None:
        self._backbone = model.base_model
        self._head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._device = device
        self._dtype = dtype

    def __call__(self, sequences: Sequences, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Return the sum of the rows' token losses, and how many tokens are predicted best, as scalars on the device.

        Nothing waits for the device here.
        """
        batch = collate(sequences, rows)
        targets = self._to_device(batch.targets)
        with self._autocast():
            hidden = self._backbone(input_ids=self._to_device(batch.inputs), use_cache=False).last_hidden_state
            hidden = hidden.flatten(0, 1)
            if batch.positions is not None:
                hidden = hidden.index_select(0, self._to_device(batch.positions))
            logits = self._head(hidden)
        logits = logits.float()
        loss = functional.cross_entropy(logits, targets, reduction="sum")
        correct = (logits.detach().argmax(dim=-1) == targets).sum()
        return loss, correct

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32)

    def _to_device(self, array: npt.NDArray[np.int64]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            # Only from pinned memory is the copy asynchronous.
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)
