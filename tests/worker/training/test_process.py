"""The process itself: an assignment on standard input, facts on standard output, and how it ends."""

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.training.tiny import assignment, ragged_rows, texts
from worker.training.assignment import Assignment
from worker.training.facts import Failed, read_fact

COMMAND = [sys.executable, "-m", "worker.training"]
TESTS_THAT_TALK = 6
Trainer = subprocess.Popen[str]


@pytest.fixture(scope="module")
def spares() -> Iterator[list[Trainer]]:
    """All trainers that this file talks to, started together: their imports take seconds each."""
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(TESTS_THAT_TALK)
    ]
    yield list(started)
    for trainer in started:
        trainer.kill()
        trainer.wait()


@pytest.fixture
def trainer(spares: list[Trainer]) -> Trainer:
    """A trainer ready for its assignment."""
    spare = spares.pop()
    assert next_fact(spare) == "ready"
    return spare


def next_fact(trainer: Trainer) -> str:
    assert trainer.stdout is not None
    return read_fact(trainer.stdout.readline()).fact


def say(trainer: Trainer, line: str) -> None:
    assert trainer.stdin is not None
    trainer.stdin.write(line + "\n")
    trainer.stdin.flush()


def wait_for(trainer: Trainer, fact: str) -> None:
    while next_fact(trainer) != fact:
        pass


def rest(trainer: Trainer) -> list[str]:
    """What the trainer still says, up to its end. Its input stays open."""
    assert trainer.stdout is not None
    facts = [read_fact(line).fact for line in trainer.stdout]
    trainer.wait(60)
    return facts


def long_job(folder: Path) -> Assignment:
    return assignment(folder, ragged_rows(200), training={"epochs": 1000, "batch_size": 4})


@pytest.mark.parametrize("how", ["SIGTERM", 'nonsense\n{"order": "stop"}'])
def test_a_stop_order_saves_and_stops(trainer: Trainer, tmp_path: Path, how: str) -> None:
    say(trainer, long_job(tmp_path).model_dump_json())
    wait_for(trainer, "batch")
    trainer.send_signal(signal.SIGINT)  # the terminal's Ctrl-C is the supervisor's: it does nothing here
    if how == "SIGTERM":
        trainer.send_signal(signal.SIGTERM)
    else:
        say(trainer, how)
    assert rest(trainer)[-2:] == ["checkpoint", "stopped"]
    assert trainer.returncode == 0


def test_the_end_of_the_supervisors_pipe_is_the_end(trainer: Trainer, tmp_path: Path) -> None:
    say(trainer, long_job(tmp_path).model_dump_json())
    wait_for(trainer, "batch")
    assert trainer.stdin is not None
    trainer.stdin.close()
    assert trainer.wait(5) == 1


def test_a_spare_that_is_not_needed_leaves_quietly(trainer: Trainer) -> None:
    assert trainer.stdin is not None
    trainer.stdin.close()
    assert trainer.wait(60) == 0


def test_a_bad_assignment_is_a_failed_fact(trainer: Trainer) -> None:
    say(trainer, '{"spec": 7}')
    assert rest(trainer) == ["failed"]
    assert trainer.returncode == 0


def test_a_run_that_fails_says_why(trainer: Trainer, tmp_path: Path) -> None:
    say(trainer, assignment(tmp_path, [[1], [2]]).model_dump_json())
    assert trainer.stdout is not None
    *_, last = [read_fact(line) for line in trainer.stdout]
    assert isinstance(last, Failed)
    assert last.code == "data"


def test_it_works_by_hand_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "assignment.json"
    # A file that a person wrote: without a line end.
    job = assignment(tmp_path, texts(6), training={"epochs": 1}, samples={"prompts": ["the"], "max_new_tokens": 2})
    file.write_text(job.model_dump_json())
    with file.open() as stream:
        done = subprocess.run(COMMAND, stdin=stream, capture_output=True, text=True, timeout=60, check=True)
    facts = [json.loads(line)["fact"] for line in done.stdout.splitlines()]
    assert (facts[0], facts[-1]) == ("ready", "finished")
    assert done.stderr == "", "no progress bars and no chatter in the log"


def test_it_dies_with_the_process_that_started_it() -> None:
    # The pipe stays open in this test, so that only the kernel can tell the trainer.
    reading, writing = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent("""
            import subprocess, sys
            trainer = subprocess.Popen(sys.argv[1:], stdin=0, stdout=subprocess.PIPE)
            trainer.stdout.readline()
            print(trainer.pid, flush=True)
            import time; time.sleep(600)
        """), *COMMAND],
        stdin=reading, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    descriptor = os.pidfd_open(pid)
    parent.kill()
    parent.communicate()
    exited, _, _ = select.select([descriptor], [], [], 5)
    assert exited
    for opened in (descriptor, reading, writing):
        os.close(opened)


def test_prints_of_libraries_do_not_reach_the_facts() -> None:
    program = (
        "import os; from worker.training.conversation import FactStream; from worker.training.facts import Ready;"
        "facts = FactStream(); print('chatter', flush=True); os.system('echo more'); facts.write(Ready())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == '{"fact":"ready"}\n'
    assert done.stderr == "chatter\nmore\n"


def test_the_trainer_knows_no_table_and_no_queue() -> None:
    program = "import sys, worker.training.process; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    forbidden: set[Any] = {"celery", "redis", "sqlmodel", "sqlalchemy", "fastapi", "app", "alembic"}
    assert not forbidden & {name.split(".")[0] for name in loaded}
    assert {name for name in loaded if name.startswith("core.")} == {
        "core.dataset_files",
        "core.dataset_report",
        "core.disk",
        "core.errors",
        "core.failpoints",
        "core.job_spec",
        "core.learning_rate",
        "core.memory_estimate",
        "core.model_shapes",
        "core.model_spec",
        "core.run_plan",
        "core.strict",
        "core.text_lines",
        "core.tokens",
        "core.tokens.arrays",
        "core.tokens.batches",
        "core.tokens.chat",
        "core.tokens.counting",
        "core.tokens.encoding",
        "core.tokens.seeds",
        "core.tokens.sequences",
        "core.tokens.vocabulary",
    }
