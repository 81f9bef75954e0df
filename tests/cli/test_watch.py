"""`epochd submit --watch`, `watch`, `cancel`, `jobs`, in a pipe and in a terminal, against a real stack."""

import os
import pty
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from subprocess import Popen

from tests.stack import PATIENCE_SECONDS, Stack


def _long(stack: Stack, folder: Path) -> str:
    training = {"epochs": 10_000, "batch_size": 4}
    return stack.write_spec(folder, training=training, checkpoints={"every_epochs": 10_000}, samples={})


def test_a_job_in_a_pipe_is_plain_lines_and_status_0(stack: Stack, tmp_path: Path) -> None:
    ended = stack.epochd("submit", stack.write_spec(tmp_path), "--watch")

    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    job = lines[0]
    assert re.fullmatch(r"job_\w{26}", job)
    assert "\x1b" not in ended.stdout
    batch = re.compile(
        r"epoch [12]/2  step (\d+)/(\d+)  loss \d+\.\d{3}  accuracy \d+\.\d%  learning rate \S+  [\d,]+ tokens/s"
    )
    steps = [match for line in lines if (match := batch.fullmatch(line))]
    total = int(steps[0][2])
    assert [int(match[1]) for match in steps] == list(range(1, total + 1))
    assert sum(line.startswith("epoch ") and "validation loss" in line for line in lines) == 2
    assert sum(line.startswith("  The ") for line in lines) == 2
    assert lines[-1] == "succeeded"

    again = stack.epochd("watch", job)
    assert again.returncode == 0
    assert again.stdout.splitlines() == lines[1:]
    assert re.search(rf"{job}  Tiny test  succeeded +100%  2/2", stack.epochd("jobs").stdout)


def test_a_failed_job_is_status_1_and_says_what_to_do(stack: Stack, tmp_path: Path) -> None:
    sequence = {"max_length": 2000, "min_length": 2000}  # longer than any row

    ended = stack.epochd("submit", stack.write_spec(tmp_path, sequence=sequence), "--watch")

    assert ended.returncode == 1
    assert re.search(r"^failed \(data\): .+\n  .+", ended.stdout, re.MULTILINE)


def test_a_cancelled_job_is_status_2(stack: Stack, tmp_path: Path) -> None:
    job = stack.epochd("submit", _long(stack, tmp_path)).stdout.strip()
    watching = stack.start_epochd("watch", job)
    assert watching.stdout
    _read_until("tokens/s", watching.stdout)

    cancelled = stack.epochd("cancel", job)

    assert cancelled.returncode == 0, cancelled.stderr
    rest = watching.stdout.readlines()
    assert watching.wait(PATIENCE_SECONDS) == 2
    assert rest[-1] == "cancelled\n"
    twice = stack.epochd("cancel", job)
    assert twice.returncode == 1
    assert "already cancelled" in twice.stderr


def test_a_watcher_outlives_the_api(stack: Stack, tmp_path: Path) -> None:
    job = stack.epochd("submit", _long(stack, tmp_path)).stdout.strip()
    watching = stack.start_epochd("watch", job)
    assert watching.stdout
    lines = _read_until("tokens/s", watching.stdout)

    stack.running("api")["api"].kill()

    lines += _read_until("connection lost", watching.stdout)
    lines += _read_until("tokens/s", watching.stdout)
    assert stack.epochd("cancel", job).returncode == 0
    lines += watching.stdout.readlines()  # not communicate(), which would pass over what the pipe's reader holds
    assert watching.wait(PATIENCE_SECONDS) == 2
    steps = [int(match[1]) for line in lines if (match := re.search(r"step (\d+)/", line))]
    assert steps == list(range(1, len(steps) + 1))


def test_a_terminal_gets_bars(stack: Stack, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "submit", stack.write_spec(tmp_path), "--watch"]
    ours, theirs = pty.openpty()
    environment = stack.environment | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    with Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as watching:
        os.close(theirs)
        shown = b"".join(_read_all(ours)).decode()

    assert watching.returncode == 0
    assert "━" in shown
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    for part in ("epoch 2/2", "step ", "loss ", "accuracy ", "learning rate ", "tokens/s", "validation loss", "left"):
        assert part in text
    assert "succeeded" in text
    assert max(len(line) for line in re.split(r"[\r\n]+", text)) <= 100


def _read_until(part: str, lines: Iterable[str]) -> list[str]:
    read = []
    for line in lines:
        read.append(line)
        if part in line:
            return read
    raise AssertionError(f"the watching ended before {part!r} was seen: {read}")


def _read_all(descriptor: int) -> list[bytes]:
    chunks = []
    try:
        while chunk := os.read(descriptor, 65_536):
            chunks.append(chunk)
    except OSError:  # how Linux says that the other end of a terminal is closed
        pass
    os.close(descriptor)
    return chunks
