"""A contender of `benchmarks.throughput`: epochd's trainer by itself, timed by when its facts arrive.

    python -m benchmarks.epochd_trainer case.json

An update's fact comes right after it on a CPU, and one update late on a GPU: the time between two facts is that of the
updates between them on both.
"""

import json
import subprocess
import sys
import tempfile

from benchmarks.case import Case, job_spec
from benchmarks.stopwatch import Measurement, Stopwatch


def main(case: Case) -> None:
    """Train until there is enough, and tell what was measured."""
    with (
        tempfile.TemporaryDirectory() as output_dir,
        subprocess.Popen(
            [sys.executable, "-m", "worker.training"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as trainer,
    ):
        try:
            assignment = {
                "spec": job_spec(case, dataset="by hand"),
                "dataset": {"path": case.rows_path, "format": "jsonl"},
                "output_dir": output_dir,
                "device": case.device,
            }
            assert trainer.stdin is not None
            trainer.stdin.write(json.dumps(assignment) + "\n")
            trainer.stdin.flush()
            measured = measure(case, trainer)
        finally:
            trainer.kill()
    measured.tell()


def measure(case: Case, trainer: subprocess.Popen[str]) -> Measurement:
    """Listen until there is enough. Raises RuntimeError where the trainer ends before that."""
    stopwatch, first_loss, tokens = Stopwatch(case, whole_epochs=True), None, 0
    assert trainer.stdout is not None
    for line in trainer.stdout:
        fact = json.loads(line)
        if fact["fact"] == "failed":
            raise RuntimeError(fact["message"])
        if fact["fact"] != "batch":
            continue
        first_loss = first_loss or fact["loss"]
        tokens += fact["tokens"]
        if fact["tokens_per_second"] is not None:  # the last batch of its window
            if stopwatch.update_done(tokens):
                return stopwatch.measurement(first_loss=first_loss, pid=trainer.pid)
            tokens = 0
    raise RuntimeError("the trainer ended before it was measured")


if __name__ == "__main__":
    main(Case.read(sys.argv[1]))
