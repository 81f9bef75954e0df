"""Two contenders of `benchmarks.throughput`: `transformers.Trainer` as it comes, and at its best.

python -m benchmarks.transformers_trainer defaults|tuned case.json
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from benchmarks.case import Case
from benchmarks.stopwatch import Stopwatch
from benchmarks.teaching_loop import IGNORED, new_model

# What Trainer takes together and sorts where there are rows enough. Of a small set it takes a quarter, which pads more:
# a larger data set than the benchmark has time for is what counts, so it gets what it would get there.
_BATCHES_SORTED_TOGETHER = 50

Style = Literal["defaults", "tuned"]


def collate(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Pad as DataCollatorWithPadding does, and the labels so that the loss ignores them."""
    batch = collate_without_mask(rows)
    return batch | {"attention_mask": batch["labels"].ne(IGNORED).long()}


def collate_without_mask(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Pad on the right: where attention is causal nothing sees the padding, and no mask is needed."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=0),
        "labels": pad_sequence(ids, batch_first=True, padding_value=IGNORED),
    }


class _LengthGroups(Sampler[int]):
    """transformers' own grouping by length, as it is on a large data set."""

    def __init__(self, case: Case, lengths: list[int]) -> None:
        self._case, self._lengths = case, lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        size = self._case.rows_per_update
        indices: list[int] = get_length_grouped_indices(self._lengths, size, mega_batch_mult=_BATCHES_SORTED_TOGETHER)
        return iter(indices)


class _Recorded(Sampler[int]):
    """A sampler that remembers which row it gave when."""

    def __init__(self, inner: Sampler[int]) -> None:
        self._inner = inner
        self.given: list[int] = []

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[int]:
        for row in self._inner:
            self.given.append(row)
            yield row


class _TimedTrainer(Trainer):
    """Trainer with another way to choose rows, and a memory of which they were."""

    def __init__(self, sampler: Sampler[int] | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._own_sampler = sampler
        self.recorded: _Recorded | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        sampler = self._own_sampler or super()._get_train_sampler(train_dataset)
        assert sampler is not None
        self.recorded = _Recorded(sampler)
        return self.recorded


class _Clock(TrainerCallback):
    """Tells the stopwatch of every update, and stops the training when that has enough."""

    def __init__(self, case: Case, style: Style, lengths: list[int]) -> None:
        self._case, self._lengths = case, lengths
        synchronize = torch.cuda.synchronize if case.device == "cuda" else lambda: None
        self.stopwatch = Stopwatch(case, whole_epochs=style == "tuned", synchronize=synchronize)
        self.trainer: _TimedTrainer | None = None

    def on_step_end(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_kwargs: Any,
    ) -> TrainerControl:
        """Count the tokens of the rows that this update saw."""
        assert self.trainer is not None
        assert self.trainer.recorded is not None
        size = self._case.rows_per_update
        rows = self.trainer.recorded.given[(state.global_step - 1) * size : state.global_step * size]
        if self.stopwatch.update_done(sum(self._lengths[row] - 1 for row in rows)):
            control.should_training_stop = True
        return control


def arguments(case: Case, style: Style, output_dir: str) -> TrainingArguments:
    """Return the settings: those that all contenders share, and those of the style."""
    on_gpu = case.device == "cuda"
    defaults: dict[str, Any] = {"logging_steps": 1}
    tuned = {
        "logging_steps": 10,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it waits for the device at every batch
        "optim": "adamw_torch_fused",
        "disable_tqdm": True,
        # Two cores gain nothing from processes beside the one that computes; a GPU's host has cores to spare.
        "dataloader_num_workers": 2 if on_gpu else 0,
        "dataloader_persistent_workers": on_gpu,
        "dataloader_pin_memory": on_gpu,
    }
    return TrainingArguments(
        output_dir=output_dir,
        per_device_train_batch_size=case.batch_size,
        gradient_accumulation_steps=case.accumulation,
        num_train_epochs=case.epochs,
        learning_rate=case.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=case.warmup_steps,
        weight_decay=case.weight_decay,
        max_grad_norm=case.max_grad_norm,
        seed=case.seed,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        report_to="none",
        save_strategy="no",
        **(tuned if style == "tuned" else defaults),
    )


def main(style: Style, case: Case) -> None:
    """Train until there is enough, and tell what was measured."""
    rows = case.rows()
    lengths = [len(row) for row in rows]
    clock = _Clock(case, style, lengths)
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = _TimedTrainer(
            _LengthGroups(case, lengths) if style == "tuned" else None,
            model=new_model(case),
            args=arguments(case, style, output_dir),
            train_dataset=[{"input_ids": row} for row in rows],
            data_collator=collate_without_mask if style == "tuned" else collate,
            callbacks=[clock],
        )
        clock.trainer = trainer
        trainer.train()
    first_loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    clock.stopwatch.measurement(first_loss=first_loss, pid=os.getpid()).tell()


if __name__ == "__main__":
    main("tuned" if sys.argv[1] == "tuned" else "defaults", Case.read(sys.argv[2]))
