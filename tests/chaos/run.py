"""A run of chaos: jobs trained undisturbed, then the same jobs under faults, then a quiet end and the account."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

from sqlmodel import select

from core.job_states import TERMINAL
from core.models import Job
from tests.chaos.account import Account, jobs_account
from tests.chaos.clients import Clients
from tests.chaos.deployment import Deployment, deployed
from tests.chaos.faults import Act, Blow, Scene, schedule, strike
from tests.chaos.watching import Audience
from tests.installation import LONG, TINY

_TICK_SECONDS = 0.05
# One job after the other: however many still wait when the faults are over.
_ENDS_WITHIN_SECONDS = 300.0
_HEARD_WITHIN_SECONDS = 60.0
# Losses are what this is about: none of them may end a job.
_PATIENT = {"max_failures": 1000}
# Dropout is on in each of them; windows of 4 of the 6 batches of an epoch leave a trailing one of 2.
_SPECS: dict[str, dict[str, Any]] = {
    "by epochs": LONG,
    "by steps": {
        "training": {"epochs": 40, "batch_size": 4, "gradient_accumulation_steps": 4, "seed": 1, "warmup_steps": 9},
        "checkpoints": {"every_epochs": 1000, "every_steps": 7, "keep": 2},
    },
    "validated": {
        "validation": {"fraction": 0.2},
        "training": {"epochs": 30, "batch_size": 3, "gradient_accumulation_steps": 2, "lr_scheduler": "cosine"},
        "checkpoints": {"every_epochs": 4},
        "samples": {"prompts": ["the "], "max_new_tokens": 4},
    },
}
Say = Callable[[str], None]


def play(*, seconds: float, jobs: int, seed: int, folder: Path, say: Say) -> Account:
    """Play a run with its data below `folder` and return its account.

    The seed decides which jobs are submitted when, and which faults there are: the same schedule again. What they meet
    differs, with the time that the machine takes for everything.
    """
    chance = random.Random(seed)
    acts = schedule(chance, seconds)
    # Some at once, the last ones early enough to be met by a few faults.
    times = sorted(max(0.0, chance.uniform(-0.3, 0.8)) * seconds for _ in range(jobs))
    submissions = [(at, chance.choice([*_SPECS])) for at in times]
    with deployed(folder) as deployment:
        key = deployment.installation.settings.key_file.read_text().strip()
        audience = Audience(deployment.urls, key)
        with Clients(deployment.urls, key, has_room=deployment.has_room) as clients:
            run = _Run(deployment, clients, audience, say)
            undisturbed = run.undisturbed()
            run.storm(acts, submissions)
            run.settle()
            deaf = audience.leave(_HEARD_WITHIN_SECONDS)
        orphans = deployment.orphans()
        unstopped = deployment.stop()
        run.tell("everything is stopped")
        made = jobs_account(deployment.installation, clients, audience, undisturbed)
        made.happened |= {
            "faults": run.struck.total(),
            **{f"  {name}": run.struck[name] for name in sorted(run.struck)},
        }
        made.broken |= {
            "watchers that did not hear the end": deaf,
            "drains that did not end": [*deployment.overdue, *unstopped],
            "orphaned processes": [str(process) for process in {*orphans, *deployment.marked()}],
        }
        return made


class _Run:
    """The course of a run, all of it in one thread: jobs are submitted, faults strike and heal, the dead are raised."""

    def __init__(self, deployment: Deployment, clients: Clients, audience: Audience, say: Say) -> None:
        self._deployment, self._clients, self._audience, self._say = deployment, clients, audience, say
        self._began = monotonic()
        self._pace = Event()  # never set: what the ticks wait on
        dataset = deployment.installation.add_dataset()
        self._specs = {name: {**TINY, **_PATIENT, "dataset": dataset.id, **spec} for name, spec in _SPECS.items()}
        self._numbers = count()
        self.struck: Counter[str] = Counter()

    def tell(self, what: str) -> None:
        """Say what happened, with the second it happened at."""
        self._say(f"{monotonic() - self._began:7.1f} s  {what}")

    def undisturbed(self) -> dict[str, str]:
        """Train each spec once in peace, and return the hashes of the weights."""
        for name in _SPECS:
            self._submit(name)
        self._wait_for_the_end()
        assert {job.status for job in self._rows()} == {"succeeded"}
        self.tell("trained undisturbed")
        return {name: self._deployment.installation.weights(job_id) for job_id, name in self._clients.jobs.items()}

    def storm(self, acts: list[Act], submissions: list[tuple[float, str]]) -> None:
        """Let jobs and faults come as scheduled, until the last of both; then heal what is not yet healed."""
        scene, heals = Scene(self._deployment, self._clients), list[tuple[float, Blow]]()
        acts, submissions = acts[::-1], submissions[::-1]
        for now in self._ticks():
            while submissions and submissions[-1][0] <= now:
                self._submit(submissions.pop()[1])
            for due in [heal for heal in heals if heal[0] <= now]:
                due[1].heal()
                heals.remove(due)
            if acts and acts[-1].at <= now:
                act = acts.pop()
                if blow := strike(scene, act):
                    self.struck[act.fault] += 1
                    heals.append((now + act.seconds, blow))
                self.tell(f"{act.fault}: {blow.whom if blow else 'nobody there'}")
            if not (acts or submissions):
                break
        for _, blow in heals:
            blow.heal()

    def settle(self) -> None:
        """Wait until every job has ended for good, or should have."""
        self._clients.settling.set()
        self._wait_for_the_end()
        self.tell("settled")

    def _submit(self, name: str) -> None:
        self._clients.submit(next(self._numbers), name, self._specs[name])

    def _wait_for_the_end(self) -> None:
        over, since = 0, 0.0
        for now in self._ticks():
            # Looked at in this order: what is answered now is among the rows.
            idle, rows = self._clients.idle, self._rows()
            ended = sum(map(_is_over, rows))
            if idle and ended == len(rows):
                return
            if ended != over:
                over, since = ended, now
            if now > since + _ENDS_WITHIN_SECONDS:
                self.tell(f"{len(rows) - ended} jobs have not ended, and none does any more")
                return

    def _rows(self) -> list[Job]:
        with self._deployment.installation.work.reading() as session:
            return list(session.exec(select(Job)))

    def _ticks(self) -> Iterator[float]:
        """Yield the seconds since the first tick, several times a second, and see to it that everybody is there."""
        began = monotonic()
        while True:
            self._deployment.tend()
            self._audience.watch([*self._clients.jobs])
            yield monotonic() - began
            self._pace.wait(_TICK_SECONDS)


def _is_over(job: Job) -> bool:
    """Say whether a job has ended for good: what failed for want of space is retried."""
    return job.status in TERMINAL and (job.error is None or job.error["code"] != "disk_full")
