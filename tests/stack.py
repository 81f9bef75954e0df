"""A whole local stack for tests: `epochd up` as a person would start it, with real processes to watch and to kill."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import psutil

from cli.client import Client
from cli.part import dying_with_parent
from tests.services import wait_for

# Generous: other tests may run on the same cores. Nothing waits longer than it must.
PATIENCE_SECONDS = 120.0

TINY_SPEC: dict[str, Any] = {
    "name": "Tiny test",
    "tokenizer": "bytes",
    "model": {"config": {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16}},
    "sequence": {"max_length": 64},
    "training": {"epochs": 2, "batch_size": 4},
    "samples": {"prompts": ["The "], "max_new_tokens": 8},
}
TINY_TEXT = "\n\n".join("the quick brown fox jumps over the lazy dog " * (1 + n % 5) for n in range(24))


class Stack:
    """One `epochd up` on a data directory, on any free port."""

    def __init__(self, data_dir: Path, cwd: Path | None = None) -> None:
        self.data_dir = data_dir
        self.environment = clean_environment(data_dir)
        self._output = Path(tempfile.mkstemp(prefix="epochd-up-")[1])
        self._seen: dict[int, psutil.Process] = {}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "up"],
                env=self.environment,
                cwd=cwd,
                stdout=output,
                stderr=output,
                # Should the tests be killed, it stops in good order.
                preexec_fn=dying_with_parent(signal.SIGTERM),  # noqa: PLW1509
            )

    def ready(self) -> "Stack":
        """Wait until it says that it is ready."""
        self.wait_for(lambda: "epochd is ready" in self.output(), what="a ready stack")
        return self

    @property
    def url(self) -> str:
        """Where its API answers."""
        return (self.data_dir / "url").read_text().strip()

    @property
    def key(self) -> str:
        """Its first key."""
        return (self.data_dir / "key").read_text().strip()

    def output(self) -> str:
        """Return what it said so far."""
        return self._output.read_text()

    def client(self) -> Client:
        """Return an HTTP client with its first key."""
        return Client(self.url, self.key)

    def epochd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the CLI against it, in a pipe."""
        return run_epochd(self.environment, *arguments)

    def start_epochd(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of the CLI and leave it running."""
        command = [sys.executable, "-m", "cli.main", *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.data_dir
        )

    def push(self, text: str = TINY_TEXT) -> str:
        """Upload a text and return the dataset's id."""
        answer = httpx.post(
            f"{self.url}/datasets",
            params={"filename": "tiny.txt"},
            content=text.encode(),
            headers={"Authorization": f"Bearer {self.key}"},
        )
        return str(answer.json()["id"])

    def write_spec(self, folder: Path, **changes: Any) -> str:
        """Write the spec of a tiny job and return the file's name."""
        path = folder / "spec.json"
        path.write_text(json.dumps(TINY_SPEC | {"dataset": self.push()} | changes))
        return str(path)

    def processes(self) -> dict[str, psutil.Process]:
        """Return its live processes by what they are, and remember each of them for `all_gone`."""
        found = {}
        for process in psutil.Process(self.process.pid).children(recursive=True):
            self._seen[process.pid] = process
            found[_kind(process)] = process
        return found

    def running(self, *kinds: str) -> dict[str, psutil.Process]:
        """Return its processes once these run; without names: once all do, what forks trainers included."""
        wanted = set(kinds or ("redis", "api", "worker", "trainer"))
        found: dict[str, psutil.Process] = self.wait_for(
            lambda: seen if (seen := self.processes()).keys() >= wanted else None, what=f"{sorted(wanted)} to run"
        )
        return found

    def all_gone(self) -> bool:
        """Say whether none of the processes seen so far runs any more."""
        return not any(process.is_running() for process in self._seen.values())

    def stop(self, by: signal.Signals = signal.SIGINT) -> int:
        """Stop it and return its exit status."""
        if self.process.poll() is None:
            self.processes()
            self.process.send_signal(by)
        status = self.process.wait(PATIENCE_SECONDS)
        self._output.unlink(missing_ok=True)
        return status

    def wait_for(self, condition: Any, *, what: str) -> Any:
        """Wait for something that needs the stack; fail at once, with what it said, where the stack has ended."""

        def alive_and_true() -> Any:
            assert self.process.poll() is None, f"the stack ended: {self.output()}"
            return condition()

        return wait_for(alive_and_true, seconds=PATIENCE_SECONDS, what=what)


def clean_environment(data_dir: Path) -> dict[str, str]:
    """Return an environment with this data directory, any port, and no other setting of epochd's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
    # A tiny model gains nothing from a second thread.
    return inherited | {"EPOCHD_DATA_DIR": str(data_dir), "EPOCHD_PORT": "0", "OMP_NUM_THREADS": "1"}


def run_epochd(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the CLI to its end."""
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=2 * PATIENCE_SECONDS
    )


def _kind(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return "gone"
    for part, mark in {
        "redis": "redis-server",
        "api": "--stop-seconds",
        "worker": "celery",
        "trainer": "training",
    }.items():
        if mark in command:
            return part
    return command
