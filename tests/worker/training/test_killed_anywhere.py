"""Real trainers, killed or stopped anywhere and resumed, end in the bits of an undisturbed run: promise 7."""

import fcntl
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.worker.training.tiny import GPT2, assignment, fingerprint, last_checkpoint, of, texts
from worker.fork_server import ForkServer, Limits
from worker.trainer_process import TrainerProcess
from worker.training.assignment import Assignment
from worker.training.facts import Batch, Checkpoint, Epoch, Fact, Finished, Sample, Stopped, read_fact

# 25 rows to train on are 7 batches, so an epoch has windows of 3, 3 and 1 batches; checkpoints fall into mid-epoch too.
SPEC: dict[str, Any] = {
    "model": {"config": GPT2 | {"n_embd": 64}},
    "validation": {"fraction": 0.2},
    "training": {
        "epochs": 8, "batch_size": 4, "gradient_accumulation_steps": 3, "learning_rate": 0.01, "warmup_steps": 2,
    },
    "samples": {"prompts": ["the import", ""], "max_new_tokens": 5},
    "checkpoints": {"every_epochs": 8, "every_steps": 2},
}  # fmt: skip
STEPS = 24
STEPS_BETWEEN_CHECKPOINTS = 2
KILLS = 10


class Trainer:
    """A trainer at work, from the newest checkpoint that there is, and what it has said."""

    def __init__(self, fork_server: ForkServer, job: Assignment) -> None:
        self.process = TrainerProcess(fork_server, None)
        self.process.assign(job.model_copy(update={"resume_from": newest(job)}))
        # Not a byte is read ahead of a line, and the pipe is the smallest there is: so the trainer can be no more than
        # a few updates ahead of what was read of it.
        self.stdout = os.fdopen(os.dup(self.process._stdout.fileno()), "rb", buffering=0)
        fcntl.fcntl(self.stdout, fcntl.F_SETPIPE_SZ, 4096)
        self.facts: list[Fact] = []

    def read_until(self, wanted: Callable[[Fact], bool]) -> None:
        for line in self.stdout:
            self.facts.append(read_fact(line))
            if wanted(self.facts[-1]):
                return

    def read_rest(self) -> int:
        """Read what it says to its end, and return its exit status."""
        self.read_until(lambda _: False)
        self.stdout.close()
        return self.process.end(60)

    def kill(self) -> None:
        self.process.kill()
        assert self.read_rest() == -signal.SIGKILL or isinstance(self.facts[-1], Finished)


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    """What forks the trainers of this file. Of two cores, they train in lanes wherever a window is worth it."""
    server = ForkServer({"OMP_NUM_THREADS": "2"}, Limits())
    assert server.wait_until_ready(give_up=lambda: False)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def whole_job(tmp_path_factory: pytest.TempPathFactory) -> Assignment:
    """The run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    return assignment(folder, texts(31), **SPEC).model_copy(update={"cache_dir": folder / "cache"})


@pytest.fixture(scope="module")
def whole(whole_job: Assignment, fork_server: ForkServer) -> list[Fact]:
    """What is told of it."""
    facts = finished(fork_server, whole_job)
    assert facts[-1] == Finished(step=STEPS)
    assert max(batch.step for batch in of(facts, Batch)) == STEPS
    return facts


@pytest.fixture
def job(whole_job: Assignment, tmp_path: Path) -> Assignment:
    """The same run in another folder."""
    return whole_job.model_copy(update={"output_dir": tmp_path / "out"})


def newest(job: Assignment) -> Path | None:
    return max(job.output_dir.glob("step-*"), default=None)


def last_told(facts: list[Fact]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """The numbers of each batch, epoch and sample, told again or not, as they were told last; but no times."""
    told: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for b in of(facts, Batch):
        told["batch", b.batch] = (b.epoch, b.step, b.tokens, b.loss, b.accuracy, b.learning_rate, b.grad_norm)
    for e in of(facts, Epoch):
        told["epoch", e.epoch] = (e.step, e.loss, e.accuracy, e.validation_loss, e.validation_accuracy)
    for s in of(facts, Sample):
        told["sample", s.epoch, s.prompt] = (s.text,)
    return told


def updated(step: int) -> Callable[[Fact], bool]:
    """Whether a fact is the last one of this update, or of a later one."""
    return lambda fact: isinstance(fact, Batch) and fact.step >= step and fact.grad_norm is not None


def killed(fork_server: ForkServer, job: Assignment, step: int) -> list[Fact]:
    """Go on with a run until the facts of this update were read, and kill it there."""
    trainer = Trainer(fork_server, job)
    trainer.read_until(updated(step))
    trainer.kill()
    return trainer.facts


def finished(fork_server: ForkServer, job: Assignment) -> list[Fact]:
    """Go on with a run to its end."""
    trainer = Trainer(fork_server, job)
    assert trainer.read_rest() == 0
    assert isinstance(trainer.facts[-1], Finished), trainer.facts[-1]
    return trainer.facts


def assert_same(facts: list[Fact], job: Assignment, whole: list[Fact], message: str) -> None:
    """Everything told, and the weights and the optimizer's state in the end, are those of the undisturbed run."""
    assert last_told(facts) == last_told(whole), message
    last = newest(job)
    assert last is not None
    assert last.name == last_checkpoint(whole).name, message
    assert fingerprint(last) == fingerprint(last_checkpoint(whole)), message
    assert not list(job.output_dir.glob(".*")), message


def test_killed_again_and_again(fork_server: ForkServer, whole: list[Fact], job: Assignment) -> None:
    # Others every day; `make nightly` kills at every single one.
    steps = sorted(random.Random(time.time() // 86_400).sample(range(1, STEPS + 1), KILLS))
    facts = [fact for step in steps for fact in killed(fork_server, job, step)] + finished(fork_server, job)
    assert_same(facts, job, whole, f"killed after the updates {steps}")


@pytest.mark.nightly
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_after_any_update(fork_server: ForkServer, whole: list[Fact], job: Assignment, step: int) -> None:
    facts = killed(fork_server, job, step) + finished(fork_server, job)
    assert_same(facts, job, whole, f"killed after update {step}")


def test_stopped_then_drained(fork_server: ForkServer, whole: list[Fact], job: Assignment) -> None:
    facts: list[Fact] = []
    orders: list[tuple[int, Callable[[Trainer], None]]] = [
        (4, lambda trainer: trainer.process.order("stop")),
        (13, lambda trainer: os.kill(trainer.process.pid or 0, signal.SIGTERM)),
    ]
    for step, order in orders:
        trainer = Trainer(fork_server, job)
        trainer.read_until(updated(step))
        order(trainer)
        assert trainer.read_rest() == 0
        *_, saved, stopped = trainer.facts
        assert isinstance(saved, Checkpoint)
        assert stopped == Stopped(step=saved.step)
        assert saved.path == newest(job)
        facts += trainer.facts
    assert_same(facts + finished(fork_server, job), job, whole, "stopped, then drained")


def test_killed_while_a_checkpoint_is_written(fork_server: ForkServer, whole: list[Fact], job: Assignment) -> None:
    published = {checkpoint.path.name: checkpoint.path for checkpoint in of(whole, Checkpoint)}
    facts: list[Fact] = []
    torn = 0
    for written in ("model/model.safetensors", "state/optimizer.safetensors", "state/run_state.json"):
        trainer = Trainer(fork_server, job)
        # The one after the next: a whole one lies beside it.
        last = newest(job)
        name = f"step-{(int(last.name[-8:]) if last else 0) + 2 * STEPS_BETWEEN_CHECKPOINTS:08d}"
        reader = Thread(target=trainer.read_rest)
        reader.start()
        # Nothing announces a file in the making: it is looked for until it is there.
        while not ((job.output_dir / f".{name}.unfinished" / written).exists() or (job.output_dir / name).exists()):
            assert reader.is_alive()
        trainer.process.kill()
        reader.join()
        facts += trainer.facts
        torn += not (job.output_dir / name).exists()
        for folder in job.output_dir.glob("step-*"):
            assert contents(folder) == contents(published[folder.name])
    assert torn, "none of them was caught in the writing"
    assert_same(facts + finished(fork_server, job), job, whole, "killed in the writing")


def contents(checkpoint: Path) -> dict[str, Any]:
    """Every file of a checkpoint, but for the times."""
    files = {path.relative_to(checkpoint).as_posix(): path for path in checkpoint.rglob("*") if path.is_file()}
    state = json.loads(files.pop("state/run_state.json").read_bytes())
    del state["sums"]["seconds"]
    # transformers writes into it how the tokenizer was loaded, which after a resume it was.
    tokenizer = json.loads(files.pop("model/tokenizer_config.json").read_bytes())
    return {name: path.read_bytes() for name, path in files.items()} | {"state": state, "eos": tokenizer["eos_token"]}
