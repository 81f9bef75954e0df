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
from worker.fork_server import ForkServer, LifeLine, Limits
from worker.training.assignment import Assignment
from worker.training.facts import Fact, Failed, read_fact

COMMAND = [sys.executable, "-m", "worker.training"]


class Trainer:
    """A trainer forked as a worker has it forked, ready for its assignment."""

    def __init__(self, fork_server: ForkServer) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        life_line, theirs = os.pipe()
        theirs_error = os.dup(2)
        self.stdin, self.stdout = os.fdopen(ours_in, "w"), os.fdopen(ours_out)
        self.life_line = LifeLine(life_line)
        given = [theirs_in, theirs_out, theirs_error, theirs, os.open("/", os.O_RDONLY)]
        fork_server.fork(given)
        for descriptor in given:
            os.close(descriptor)
        pid = self.life_line.pid(60)
        assert pid
        self.pid = pid
        assert self.next_fact() == "ready"

    def next_fact(self) -> str:
        return read_fact(self.stdout.readline()).fact

    def say(self, line: str) -> None:
        self.stdin.write(line + "\n")
        self.stdin.flush()

    def wait_for(self, fact: str) -> None:
        while self.next_fact() != fact:
            pass

    def rest(self) -> list[Fact]:
        """What the trainer still says, up to its end, which must be a good one. Its input stays open."""
        facts = [read_fact(line) for line in self.stdout]
        assert self.life_line.exit_status(60) == 0
        return facts


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    """What forks all trainers that this file talks to: their imports take seconds."""
    server = ForkServer({}, Limits())
    assert server.wait_until_ready(give_up=lambda: False)
    yield server
    server.kill()


@pytest.fixture
def trainer(fork_server: ForkServer) -> Trainer:
    """A trainer ready for its assignment."""
    return Trainer(fork_server)


def long_job(folder: Path) -> Assignment:
    return assignment(folder, ragged_rows(200), training={"epochs": 1000, "batch_size": 4})


@pytest.mark.parametrize("how", ["SIGTERM", 'nonsense\n{"order": "stop"}'])
def test_a_stop_order_saves_and_stops(trainer: Trainer, tmp_path: Path, how: str) -> None:
    trainer.say(long_job(tmp_path).model_dump_json())
    trainer.wait_for("batch")
    os.kill(trainer.pid, signal.SIGINT)  # the terminal's Ctrl-C is the supervisor's: it does nothing here
    if how == "SIGTERM":
        os.kill(trainer.pid, signal.SIGTERM)
    else:
        trainer.say(how)
    assert [fact.fact for fact in trainer.rest()[-2:]] == ["checkpoint", "stopped"]


def test_the_end_of_the_supervisors_pipe_is_the_end(trainer: Trainer, tmp_path: Path) -> None:
    trainer.say(long_job(tmp_path).model_dump_json())
    trainer.wait_for("batch")
    trainer.stdin.close()
    assert trainer.life_line.exit_status(60) == 1


def test_without_an_assignment_it_leaves_quietly(trainer: Trainer) -> None:
    trainer.stdin.close()
    assert trainer.rest() == []


def test_a_bad_assignment_is_a_failed_fact(trainer: Trainer) -> None:
    trainer.say('{"spec": 7}')
    assert [fact.fact for fact in trainer.rest()] == ["failed"]


def test_a_run_that_fails_says_why(trainer: Trainer, tmp_path: Path) -> None:
    trainer.say(assignment(tmp_path, [[1], [2]]).model_dump_json())
    *_, last = trainer.rest()
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
        "core.dataset_look",
        "core.dataset_report",
        "core.disk",
        "core.errors",
        "core.failpoints",
        "core.job_spec",
        "core.learning_rate",
        "core.memory_estimate",
        "core.model_shapes",
        "core.model_spec",
        "core.pieces",
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
