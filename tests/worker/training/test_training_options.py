"""What a spec may ask of the loop besides its rates: half precision, recomputed or compiled layers, an early stop."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from core.errors import DataError
from tests.services import missing
from tests.worker.training.tiny import (
    GPT2,
    NO_DROPOUT,
    assignment,
    fingerprint,
    last_checkpoint,
    of,
    ragged_rows,
    run,
)
from worker.training.checkpoints import read_state
from worker.training.errors import Diverged
from worker.training.facts import Batch, Checkpoint, Epoch, Finished, Warned

ROWS = ragged_rows(40)
TRAINING = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01}


def losses(folder: Path, config: dict[str, Any], **training: Any) -> list[float | None]:
    facts = run(assignment(folder, ROWS, model={"config": config}, training=TRAINING | training))
    return [batch.loss for batch in of(facts, Batch)]


def test_recomputed_layers_give_the_same_numbers_with_dropout_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []
    through = GPT2MLP.forward

    def noting(self: GPT2MLP, *inputs: Any) -> Any:
        passes.append("")
        return through(self, *inputs)

    monkeypatch.setattr(GPT2MLP, "forward", noting)
    kept, once = losses(tmp_path / "kept", GPT2), len(passes)
    passes.clear()
    assert losses(tmp_path / "recomputed", GPT2, gradient_checkpointing=True) == pytest.approx(kept, rel=1e-6)
    assert len(passes) == 2 * once, "each layer is computed again on the way back"


def test_compiled_layers_give_the_same_numbers(tmp_path: Path) -> None:
    if not shutil.which("g++"):
        missing("g++")
    config = GPT2 | NO_DROPOUT | {"n_layer": 1}  # each kernel takes the compiler seconds
    plain = losses(tmp_path / "plain", config)
    counters.clear()
    assert losses(tmp_path / "compiled", config, compile=True) == pytest.approx(plain, rel=1e-4)
    assert counters["stats"]["unique_graphs"] >= 1, "nothing was compiled"


def test_without_a_compiler_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"needs a C\+\+ compiler") as error:
        losses(tmp_path, GPT2, compile=True)
    assert "Install g++" in error.value.hint


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_follows_float32(tmp_path: Path, precision: str) -> None:
    exact = losses(tmp_path / "exact", GPT2 | NO_DROPOUT)
    rough = losses(tmp_path / "rough", GPT2 | NO_DROPOUT, precision=precision)
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.02)


def test_a_scale_that_is_too_large_falls_and_the_schedule_does_not_move(tmp_path: Path) -> None:
    # Loss scales begin at 65,536; gradients of a loss this large then leave half precision's range.
    config = GPT2 | NO_DROPOUT | {"initializer_range": 0.9}
    training = TRAINING | {"precision": "fp16", "warmup_steps": 4, "epochs": 3}
    job = assignment(
        tmp_path, ROWS, model={"config": config}, training=training, checkpoints={"every_steps": 3, "keep": 99}
    )
    facts = run(job)
    batches = of(facts, Batch)
    skipped = [batch.grad_norm is None for batch in batches]
    assert any(skipped), "no gradient left the range: the test shows nothing"
    assert not all(skipped)
    assert not of(facts, Warned), "it is no defect of the run"
    applied = 0
    for batch in batches[:5]:
        assert batch.learning_rate == pytest.approx(0.01 * min(applied, 4) / 4)
        applied += batch.grad_norm is not None
    state = read_state(last_checkpoint(facts))
    assert state.overflows == sum(skipped)
    assert state.loss_scale is not None
    assert state.loss_scale.scale < 65_536
    first = of(facts, Checkpoint)[0]
    later = run(job.model_copy(update={"resume_from": first.path, "output_dir": tmp_path / "later"}))
    assert fingerprint(last_checkpoint(later)) == fingerprint(last_checkpoint(facts))


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_that_never_found_its_scale_has_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    # As for a model with large gradients, whose scale has far to fall.
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**60))
    training = {"precision": "fp16", "epochs": epochs, "batch_size": 40}
    with pytest.raises(Diverged, match=f"None of the run's {epochs} updates") as error:
        run(assignment(tmp_path, ROWS, training=training, checkpoints={"every_epochs": 2}))
    assert '"bf16"' in error.value.hint
    assert not list((tmp_path / "out").glob("*")), "no checkpoint of weights that nothing was learnt with"


EARLY: dict[str, Any] = {
    "validation": {"fraction": 0.25},
    # So high that the validation loss soon stops falling.
    "training": {"epochs": 50, "batch_size": 8, "learning_rate": 0.1, "early_stopping_patience": 2},
    "checkpoints": {"every_epochs": 50},
}


def test_early_stopping_ends_the_run_after_its_patience(tmp_path: Path) -> None:
    facts = run(assignment(tmp_path, ROWS, **EARLY))
    validation = [epoch.validation_loss for epoch in of(facts, Epoch)]
    assert 2 < len(validation) < 50
    best = min(validation)
    assert validation.index(best) == len(validation) - 3, "two epochs in a row were no better than the best"
    last = of(facts, Checkpoint)[-1]
    assert facts[-1] == Finished(step=last.step, stopped_early=True)
    assert last.epoch == len(validation)


def test_early_stopping_remembers_over_a_resume_and_stays_stopped(tmp_path: Path) -> None:
    job = assignment(tmp_path, ROWS, **EARLY | {"checkpoints": {"every_epochs": 1, "keep": 99}})
    facts = run(job)
    checkpoints = of(facts, Checkpoint)
    later = run(job.model_copy(update={"resume_from": checkpoints[-2].path, "output_dir": tmp_path / "later"}))
    assert later[-1] == facts[-1]
    assert fingerprint(last_checkpoint(later)) == fingerprint(checkpoints[-1].path)
    again = run(job.model_copy(update={"resume_from": checkpoints[-1].path}))
    assert again == [facts[-1]]


def test_a_threshold_makes_small_gains_no_gains(tmp_path: Path) -> None:
    training = EARLY["training"] | {"early_stopping_threshold": 100.0}
    facts = run(assignment(tmp_path, ROWS, **EARLY | {"training": training}))
    assert len(of(facts, Epoch)) == 3
