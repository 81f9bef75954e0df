"""One forward pass: from rows to the sum of their token losses, computing no more than that takes.

No padding reaches the loss, and none is attended to: rows are padded on the right and attention is causal, so no
attention mask is needed, except between the documents of a packed row. The vocabulary is only projected onto where a
label carries loss.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.dataset_files import IGNORED_LABEL
from core.tokens.batches import IntArray
from core.tokens.sequences import Pieces, Sequences
from worker.training.attention import document_mask
from worker.training.cross_entropy import linear_cross_entropy


@dataclass(frozen=True)
class Collated:
    """A batch of B rows as arrays: `inputs` [B, T] token ids; `positions` [N] the flat places in it that carry loss
    (None: every one does), and `targets` [N], the label of each. Of packed rows also the number of the `documents`
    [B, T] that each input belongs to, and its `places` [B, T] in its document, from 0.
    """

    inputs: IntArray
    positions: IntArray | None
    targets: IntArray
    documents: IntArray | None = None
    places: IntArray | None = None


def collate(sequences: Sequences, rows: IntArray) -> Collated:
    """Gather rows, padded on the right. Each is one token shorter than its sequence: the last one predicts nothing."""
    lengths = sequences.lengths[rows] - 1
    columns = np.arange(lengths.max())
    inside = columns < lengths[:, None]
    documents = places = None
    if sequences.pieces is None:
        sources = np.where(inside, sequences.starts[rows][:, None] + columns, 0)
    else:
        sources, documents, places = _unpacked(sequences.pieces, rows, inside)
    labels = sequences.labels[sources + 1].astype(np.int64)
    carries_loss = inside & (labels != IGNORED_LABEL)
    return Collated(
        inputs=np.where(inside, sequences.ids[sources], 0).astype(np.int64),
        positions=None if carries_loss.all() else np.flatnonzero(carries_loss),
        targets=labels[carries_loss],
        documents=documents,
        places=places,
    )


def _unpacked(pieces: Pieces, rows: IntArray, inside: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray, IntArray]:
    """Return, for each input of packed rows, where it stands in the data, its document's number and its place there.

    What is not `inside` is one more document, number 0.
    """
    taken = np.concatenate([np.arange(pieces.first[row], pieces.first[row + 1]) for row in rows])
    counts = pieces.counts[taken]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    sources, documents, places = (np.zeros(inside.shape, dtype=np.int64) for _ in range(3))
    # A row's pieces fill it from the left, so the inputs in order are the cells in order.
    sources[inside] = np.repeat(pieces.starts[taken], counts) + within
    documents[inside] = np.repeat(np.arange(1, len(taken) + 1), counts)
    places[inside] = within
    return sources, documents, places


class TokenLoss:
    """The model as a function of rows. `dtype` other than float32 computes under autocast; weights stay float32."""

    def __init__(
        self, model: PreTrainedModel, *, device: torch.device, dtype: torch.dtype, compiled: bool = False
    ) -> None:
        # Rows come in every length: one graph for all of them.
        self._backbone = torch.compile(model.base_model, dynamic=True) if compiled else model.base_model
        self._head = model.get_output_embeddings()
        self._device = device
        self._dtype = dtype

    def of(self, model: PreTrainedModel) -> Self:
        """Return the same function with another model, which is not compiled."""
        return type(self)(model, device=self._device, dtype=self._dtype)

    def __call__(self, sequences: Sequences, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Return the sum of the rows' token losses, and how many tokens are predicted best, as scalars on the device.

        Nothing waits for the device here.
        """
        batch = collate(sequences, rows)
        hidden = self._hidden(batch).flatten(0, 1)
        if batch.positions is not None:
            hidden = hidden.index_select(0, self._to_device(batch.positions))
        targets = self._to_device(batch.targets)
        return linear_cross_entropy(hidden, self._head.weight, self._head.bias, targets, dtype=self._dtype)

    def _hidden(self, batch: Collated) -> Tensor:
        """Return the backbone's last layer, [B, T, D]."""
        packed: dict[str, Tensor] = {}
        if batch.documents is not None and batch.places is not None:
            packed["attention_mask"] = document_mask(self._to_device(batch.documents))
            packed["position_ids"] = self._to_device(batch.places)
        with torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            output = self._backbone(input_ids=self._to_device(batch.inputs), use_cache=False, **packed)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _to_device(self, array: npt.NDArray[np.int64]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            # Only from pinned memory is the copy asynchronous.
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)
