"""What follows an epoch's last update: it may be stopped at any moment, and samples end nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.training.test_resume import SPEC, resumed, told
from tests.worker.training.tiny import assignment, fingerprint, last_checkpoint, of, run, texts
from worker.training import sampling
from worker.training.assignment import Assignment
from worker.training.build import Learner
from worker.training.errors import Diverged
from worker.training.facts import Checkpoint, Epoch, Fact, Finished, Sample, Stopped, Warned
from worker.training.loop import train

# Two epochs of two steps; each ends with an evaluation of several batches and two samples.
CLOSING: dict[str, Any] = SPEC | {
    "validation": {"fraction": 0.5},
    "training": SPEC["training"] | {"epochs": 2, "gradient_accumulation_steps": 2},
    "samples": {"prompts": ["the", "import"], "max_new_tokens": 3},
    "checkpoints": {"every_epochs": 2},
}


def stopped_at(look: int, job: Assignment, folder: Path) -> list[Fact]:
    """Train until the stop order, which is there at this look for one and at every later one."""
    looks = iter(range(look))
    return list(train(job.model_copy(update={"output_dir": folder}), lambda: next(looks, None) is None))


def numbers(facts: list[Fact]) -> set[tuple[Any, ...]]:
    """All that was told but samples."""
    return set(told([fact for fact in facts if not isinstance(fact, Sample)]))


def samples(facts: list[Fact]) -> list[tuple[int, str, str]]:
    return [(sample.epoch, sample.prompt, sample.text) for sample in of(facts, Sample)]


@pytest.mark.parametrize("checkpoints", [{"every_epochs": 2}, {"every_epochs": 1}], ids=["none due", "one due"])
def test_stopped_at_any_moment_the_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, checkpoints: dict[str, Any]
) -> None:
    job = assignment(tmp_path, texts(20), **CLOSING | {"checkpoints": checkpoints})
    whole = run(job)
    left_open = left_out = 0
    for look in range(1, 200):
        parts = stopped_at(look, job, tmp_path / str(look))
        if parts[-1] == Stopped(step=0):
            continue
        if isinstance(parts[-1], Finished):
            break
        [saved] = [checkpoint for checkpoint in of(parts, Checkpoint) if checkpoint.step == parts[-1].step]
        left_open += saved.step % 2 == 0 and len(of(parts, Epoch)) < saved.step // 2
        parts += run(resumed(job, saved.path, tmp_path / f"{look}-later"))
        assert isinstance(parts[-1], Finished)
        assert len(numbers(parts)) == len(told(parts)) - len(samples(parts)), "nothing is told twice"
        assert numbers(parts) == numbers(whole)
        assert fingerprint(last_checkpoint(parts)) == fingerprint(last_checkpoint(whole))
        assert of(parts, Checkpoint)[-1].validation_loss == of(whole, Checkpoint)[-1].validation_loss
        missing = [sample for sample in samples(whole) if sample not in samples(parts)]
        assert len(samples(parts)) == len(samples(whole)) - len(missing)
        warned = [warning.message for warning in of(parts, Warned)]
        assert warned == [
            f"Of the 2 samples after step {2 * epoch} {count} were left out: the run was told to stop."
            for epoch in (1, 2)
            if (count := sum(sample[0] == epoch for sample in missing))
        ]
        left_out += len(missing)
    assert left_open > 4, "in the midst of an evaluation too"
    assert left_out > 4


def test_weights_that_are_no_numbers_are_not_asked_for_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = torch.optim.AdamW.step

    def broken(self: torch.optim.AdamW, *rest: Any) -> Any:
        result = step(self, *rest)
        with torch.no_grad():
            self.param_groups[0]["params"][0][0, 0] = float("nan")
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    with pytest.raises(Diverged, match="After step 2 the weights hold"):
        run(assignment(tmp_path, texts(20), **CLOSING | {"validation": None, "training": {"batch_size": 10}}))


def test_samples_that_do_not_fit_into_memory_are_left_out_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = sampling.write

    def cramped(learner: Learner, *rest: Any, **more: Any) -> Any:
        model = learner.model

        def full(**inputs: Any) -> Any:
            if more["epoch"] == 1 and inputs["input_ids"].shape[1] > 3:  # the second prompt
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return type(model).generate(model, **inputs)

        monkeypatch.setattr(model, "generate", full)
        return written(learner, *rest, **more)

    job = assignment(tmp_path, texts(20), **CLOSING)
    whole = run(job)
    monkeypatch.setattr(sampling, "write", cramped)
    facts = run(job.model_copy(update={"output_dir": tmp_path / "cramped"}))
    [warning] = of(facts, Warned)
    assert warning.code == "samples_left_out"
    assert "Of the 2 samples after step 2 1 were left out: they do not fit into memory" in warning.message
    assert samples(facts) == [sample for sample in samples(whole) if sample[:2] != (1, "import")]
    assert fingerprint(last_checkpoint(facts)) == fingerprint(last_checkpoint(whole)), "in training mode, too"
