"""The smallest things that train: rows, models and assignments for the tests of the trainer."""

import hashlib
import json
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file

from core.dataset_files import DataFile
from core.job_spec import JobSpec, Sequence
from core.tokens.arrays import Tokens
from core.tokens.sequences import Sequences, cut
from worker.training import build
from worker.training.assignment import Assignment
from worker.training.build import Learner
from worker.training.facts import Batch, Checkpoint, Fact
from worker.training.loop import train

F = TypeVar("F")

GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
VOCABULARY = 50
TEXT = "the import statement binds a name to a module found by its path and runs its code only once"
WORDS = TEXT.split()


def ragged_rows(count: int, *, seed: int = 0, longest: int = 20) -> list[list[int]]:
    """Rows of token ids of very different lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCABULARY, rng.integers(2, longest + 1)).tolist() for _ in range(count)]


def texts(count: int, *, seed: int = 0) -> list[str]:
    """Texts of 1 to 12 words, none over 120 bytes."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 13))) for _ in range(count)]


def tokens(rows: list[list[int]], labels: list[list[int]] | None = None) -> Tokens:
    """Rows as the flat arrays that the trainer holds."""
    ids = np.concatenate([np.array(row, dtype=np.int32) for row in rows])
    flat_labels = ids if labels is None else np.concatenate([np.array(row, dtype=np.int32) for row in labels])
    return Tokens(ids=ids, labels=flat_labels, bounds=np.cumsum([0, *map(len, rows)]))


def sequences(rows: list[list[int]], labels: list[list[int]] | None = None, **sequence: Any) -> Sequences:
    """Rows cut as a spec's `sequence` says."""
    return cut(tokens(rows, labels), np.arange(len(rows)), Sequence(**sequence))


def learner(config: dict[str, Any] | None = None, **training: Any) -> Learner:
    """A tiny model on the CPU, without dropout unless `config` says otherwise."""
    spec = JobSpec.model_validate(
        {"dataset": "ds", "model": {"config": config or GPT2 | NO_DROPOUT}, "training": {"seed": 1} | training}
    )
    model = build.new_model(
        spec.model.config,  # type: ignore[union-attr]
        vocab_size=VOCABULARY,
        max_length=128,
        end_of_text=0,
        seed=spec.training.seed,
    )
    return build.make_learner(model, spec.training, torch.device("cpu"))


def write_rows(path: Path, rows: list[Any]) -> DataFile:
    """A JSONL file of texts, of token ids, or of whole objects."""
    kinds: dict[type, Callable[[Any], Any]] = {str: lambda r: {"text": r}, list: lambda r: {"input_ids": r}}
    lines = [json.dumps(kinds.get(type(row), lambda r: r)(row)) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return DataFile(path=path, format="jsonl")


def assignment(folder: Path, rows: list[Any], **spec: Any) -> Assignment:
    """A run of a tiny GPT-2 on these rows, whose checkpoints go to `folder/out`."""
    defaults = {
        "dataset": "ds",
        "tokenizer": "bytes" if isinstance(rows[0], str) else None,
        "model": {"config": GPT2},
        "sequence": {"max_length": 128},
        "validation": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    return Assignment(
        spec=JobSpec.model_validate(defaults | spec),
        dataset=write_rows(folder / "rows.jsonl", rows),
        output_dir=folder / "out",
        device="cpu",
    )


def run(assignment: Assignment, *, stop_after: int | None = None, save_after: Container[int] = ()) -> list[Fact]:
    """Train; order a stop once a batch of step `stop_after` was told, and to save at each of the steps `save_after`."""
    facts: list[Fact] = []

    def should_stop() -> bool:
        return stop_after is not None and any(fact.step >= stop_after for fact in of(facts, Batch))

    def should_save() -> bool:
        return any(batch.step in save_after for batch in of(facts, Batch)[-1:])

    for fact in train(assignment, should_stop, should_save):
        facts.append(fact)
    return facts


def of(facts: list[Fact], kind: type[F]) -> list[F]:
    """The facts of one kind."""
    return [fact for fact in facts if isinstance(fact, kind)]


def prepared(generator: Any) -> Any:
    """Run a generator of facts to its end and return what it returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def last_checkpoint(facts: list[Fact]) -> Path:
    """The folder of the last checkpoint told."""
    return of(facts, Checkpoint)[-1].path


def fingerprint(checkpoint: Path) -> str:
    """The sha256 over weights and optimizer state of a checkpoint."""
    digest = hashlib.sha256()
    for file in ("model/model.safetensors", "state/optimizer.safetensors"):
        for name, tensor in sorted(load_file(checkpoint / file).items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
