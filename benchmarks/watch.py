"""How many can watch, how late they hear of a batch, and what they cost the server and the worker.

    python -m benchmarks.watch

One API process; a worker played by its own recorder, in this process, tells batches at a steady rate; a crowd of
WebSocket watchers in a third process (`benchmarks.crowd`) checks that every one hears every event in order. Cases: one
watcher; many jobs with a few watchers each; and one job with ever larger crowds, until the 99th percentile of the lag
passes half a second. A lag is from the moment a batch's event is made to its arrival at the watcher. All of it shares
this machine's cores: `cores` says how busy the API's process and the crowd's were. `tell` is what it takes the worker
to tell one event, which must not depend on how many watch.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.installation import DATABASES, Installation, installation, percentile
from core import jobs
from core.jobs import JobError
from core.models import Job
from worker.recorder import Recorder
from worker.training.facts import Batch

_LIMIT_SECONDS = 0.5


@dataclass(frozen=True)
class Case:
    """So many jobs, each with so many watchers and batches a second."""

    jobs: int
    watchers: int
    rate: float


def measure(installed: Installation, case: Case, seconds: float) -> dict[str, Any]:
    """Play a case, and return what the crowd heard and what it took."""
    dataset = installed.dataset()
    names = [installed.job(dataset) for _ in range(case.jobs)]
    recorders = [_claim(installed) for _ in names]
    installed.client.get(f"/jobs/{names[0]}/events", params={"wait": 0})  # what the first watcher alone would need
    before = installed.process.memory_info().rss
    crowd = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.crowd"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert crowd.stdin is not None
    assert crowd.stdout is not None
    port = installed.client.base_url.port
    json.dump({"port": port, "key": installed.key, "jobs": names, "watchers": case.watchers}, crowd.stdin)
    crowd.stdin.close()
    if crowd.stdout.readline() != "ready\n":
        raise SystemExit("the crowd was not let in")
    busy = {
        name: _Busy(process) for name, process in (("API", installed.process), ("crowd", psutil.Process(crowd.pid)))
    }
    told, took, behind = _tell(recorders, case, seconds)
    shares = {name: process.share() for name, process in busy.items()}
    memory = installed.process.memory_info().rss - before
    for recorder, claim in recorders:
        recorder.flush()
        with installed.work.begin() as session:
            jobs.fail(session, claim, JobError("internal", "The measurement is over.", "There is nothing to do."))
    heard: dict[str, Any] = json.loads(crowd.stdout.readline())
    crowd.wait(60)
    everyone = case.jobs * case.watchers
    whole = heard["complete"] == everyone and heard["heard"] == told * case.watchers
    return heard | {"whole": whole, "memory": memory / everyone, "shares": shares, "took": took, "behind": behind}


def _claim(installed: Installation) -> tuple[Recorder, jobs.Claim]:
    with installed.work.begin() as session:
        claim = jobs.claim(session, worker="benchmark", claim_id="benchmark", lease_seconds=3600)
    assert claim is not None
    with installed.work.reading() as session:
        return Recorder(claim, session.get_one(Job, claim.job_id), installed.work), claim


def _tell(recorders: list[tuple[Recorder, jobs.Claim]], case: Case, seconds: float) -> tuple[int, list[float], float]:
    """Tell batches at the case's rate, flush as a supervisor does; how many, the time for each, and how late it got."""
    took, started, total, behind = list[float](), time.perf_counter(), int(seconds * case.rate), 0.0
    for number in range(1, total + 1):
        for place, (recorder, _) in enumerate(recorders):
            due = started + (number - 1 + place / len(recorders)) / case.rate
            behind = max(behind, time.perf_counter() - due)
            time.sleep(max(0.0, due - time.perf_counter()))
            begun = time.perf_counter()
            recorder.write(_batch(number))
            took.append(time.perf_counter() - begun)
            recorder.flush_if_due(lambda: None)
    return total * len(recorders), took, behind


def _batch(number: int) -> Batch:
    loss = 2 + 8 / (1 + number / 50)
    numbers = {"loss": loss, "accuracy": 0.31, "learning_rate": 0.00098, "grad_norm": 0.84, "tokens_per_second": 3646.1}
    return Batch(epoch=1, batch=number, step=number, tokens=3072, **numbers)


class _Busy:
    """How much of one core a process uses from now on."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._since, self._before = process, time.perf_counter(), process.cpu_times()

    def share(self) -> float:
        """Return it."""
        now = self._process.cpu_times()
        used = now.user + now.system - self._before.user - self._before.system
        return used / (time.perf_counter() - self._since)


def _print(case: Case, result: dict[str, Any]) -> None:
    shares = ", ".join(f"{name} {share:.2f}" for name, share in result["shares"].items())
    print(
        f"{case.jobs:4} jobs x {case.watchers:5} watchers, {case.rate:g} batches/s each: "
        f"lag {result['median'] * 1000:.1f} ms (median), {result['p99'] * 1000:.0f} ms (99 %), "
        f"{result['longest'] * 1000:.0f} ms (longest); {'all heard all' if result['whole'] else 'EVENTS ARE MISSING'}; "
        f"{result['memory'] / 1000:.0f} kB each; cores: {shares}; tell {percentile(result['took'], 50) * 1000:.2f} ms, "
        f"at most {result['behind'] * 1000:.0f} ms late",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each case")
    parser.add_argument("--crowds", type=int, nargs="*", default=[500, 1000, 2000, 3000, 4000, 6000, 8000])
    parser.add_argument("--jobs", type=int, default=200, help="with 5 watchers each; 0 leaves this case out")
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    one, many = Case(1, 1, 20), Case(asked.jobs, 5, 0.5)
    for case in [one, *([many] if asked.jobs else [])]:
        _print(case, _in_a_new_installation(case, asked.seconds, asked.database))
    for watchers in asked.crowds:
        case = Case(1, watchers, 20)
        result = _in_a_new_installation(case, asked.seconds, asked.database)
        _print(case, result)
        if not result["whole"] or result["p99"] > _LIMIT_SECONDS:
            print(f"it breaks between there and the crowd before: over {_LIMIT_SECONDS * 1000:.0f} ms, or not whole")
            break


def _in_a_new_installation(case: Case, seconds: float, database: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, installation(database, Path(folder)) as installed:
        return measure(installed, case, seconds)


if __name__ == "__main__":
    main()
