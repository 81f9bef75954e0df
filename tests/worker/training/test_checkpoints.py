"""Checkpoints: whole or not there, loadable as they are, and never of weights that are not finite."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.worker.training.tiny import assignment, last_checkpoint, of, prepared, ragged_rows, run, texts
from worker.training import checkpoints
from worker.training.errors import Diverged, as_failed
from worker.training.facts import Checkpoint, Planned
from worker.training.preparation import Run, prepare


def ready_run(tmp_path: Path) -> Run:
    run: Run = prepared(prepare(assignment(tmp_path, texts(6))))
    return run


def save(run: Run) -> Path:
    return checkpoints.save(run.output_dir, run.learner, run.tokenizer, run.state)


def test_transformers_loads_it_and_text_comes_back(tmp_path: Path) -> None:
    job = assignment(tmp_path, texts(20), tokenizer={"train": {"vocab_size": 290}}, training={"epochs": 1})
    facts = run(job)
    folder = last_checkpoint(facts) / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer) == of(facts, Planned)[0].vocab_size
    assert sum(parameter.numel() for parameter in model.parameters()) == of(facts, Planned)[0].parameters
    text = "binds a name — once"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    generated = model.generate(**tokenizer("the", return_tensors="pt"), max_new_tokens=5)
    assert generated.shape[1] > 1


def test_there_is_no_pickle_in_it_and_everyone_may_read_it(tmp_path: Path) -> None:
    folder = save(ready_run(tmp_path))
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == [
        "model/config.json",
        "model/generation_config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        "state/optimizer.safetensors",
        "state/run_state.json",
    ]
    assert {(folder / file).stat().st_mode & 0o777 for file in files} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in (folder, folder / "model", folder / "state")} == {0o755}


def test_every_file_is_on_disk_before_the_folder_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, synced = ready_run(tmp_path), list[Path]()
    sync, rename = checkpoints.sync, Path.rename
    monkeypatch.setattr(checkpoints, "sync", lambda path: (synced.append(path), sync(path)))
    at_rename: dict[str, Any] = {}

    def renamed(self: Path, target: Path) -> Path:
        at_rename.update(files={*self.rglob("*"), self}, synced=set(synced))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    folder = save(ready)
    assert at_rename["synced"] == at_rename["files"]
    assert synced[-1] == folder.parent


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_goes_wrong_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    ready = ready_run(tmp_path)
    first = save(ready)
    ready.state.step = 1

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(type(error)):
        save(ready)
    assert list(ready.output_dir.iterdir()) == [first]


def test_weights_that_are_not_finite_are_not_published(tmp_path: Path) -> None:
    ready = ready_run(tmp_path)
    with torch.no_grad():
        next(ready.learner.model.parameters())[0, 0] = float("inf")
    with pytest.raises(Diverged):
        save(ready)
    assert not list(ready.output_dir.iterdir())


def test_a_new_job_goes_on_from_the_model_of_another(tmp_path: Path) -> None:
    first = run(assignment(tmp_path, texts(20), training={"epochs": 3, "learning_rate": 0.01}))
    job = assignment(
        tmp_path / "next", texts(20), tokenizer=None, model={"checkpoint": {"job": "j", "epoch": 1}},
        training={"epochs": 1, "learning_rate": 1e-9},
    )  # fmt: skip
    second = run(job.model_copy(update={"base_model": last_checkpoint(first) / "model"}))
    assert of(second, Planned)[0].vocab_size == 257
    assert of(second, Checkpoint)[0].loss < of(first, Checkpoint)[0].loss
    assert (last_checkpoint(second) / "model" / "tokenizer.json").exists()


def test_a_run_on_token_ids_has_no_tokenizer_to_save(tmp_path: Path) -> None:
    folder = last_checkpoint(run(assignment(tmp_path, ragged_rows(4), training={"epochs": 1}))) / "model"
    assert not (folder / "tokenizer.json").exists()
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == 1 + max(map(max, ragged_rows(4)))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (Exception("I/O error: No space left on device (os error 28)"), "disk_full"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (Diverged("so", "do this"), "diverged"),
        (ZeroDivisionError("division by zero"), "internal"),
    ],
)
def test_every_error_has_a_code_and_a_hint(error: Exception, code: str) -> None:
    failed = as_failed(error)
    assert failed.code == code
    assert failed.message
    assert failed.hint
