"""The account of a run: what was submitted and how it ended, and every promise that was broken, which must be none.

*Trained twice* is a job whose log shows that two holders' work counted, or that work was lost or done again that a
listed checkpoint had secured:
- an attempt does not begin exactly behind the last checkpoint listed before it, or leaves out a batch;
- a move of the log cannot follow the one before it (`docs/states.md`), a second success for one;
- an event was told under a fence after a higher one had begun;
- the curve of a success does not hold each batch once.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from sqlmodel import select

from core.errors import Corrupt
from core.events import Event
from core.job_states import TERMINAL
from core.models import Job
from tests.chaos.clients import Clients
from tests.chaos.watching import Audience, Watcher
from tests.faults.account import (
    every_batch_is_in_the_curve,
    only_what_is_listed_is_there,
    root_of,
    swept,
    the_log_is_one_story,
    verified,
)
from tests.installation import Installation
from tests.moves import LEGAL

_EXPECTED_LOSSES = {"worker_lost", "the database was away", "drained", "disk_full", "retried after it failed"}
_CASES_SHOWN = 10


@dataclass
class Account:
    """What happened, in numbers, and what must not have happened, case by case."""

    happened: dict[str, object] = field(default_factory=dict)
    broken: dict[str, list[str]] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return not any(self.broken.values())

    def __str__(self) -> str:
        lines = [f"{name:<52}{value}" for name, value in self.happened.items()]
        lines += ["", "must be 0:"]
        for name, cases in self.broken.items():
            lines.append(f"{name:<52}{len(cases)}")
            lines += [f"    {case}" for case in cases[:_CASES_SHOWN]]
        return "\n".join(lines)


def jobs_account(
    installation: Installation, clients: Clients, audience: Audience, undisturbed: dict[str, str]
) -> Account:
    """Return the account of the jobs, once nothing runs any more. `undisturbed` is the hash of each spec's weights."""
    with installation.work.reading() as session:
        rows = {job.id: job for job in session.exec(select(Job))}
    logs = {job_id: installation.log(job_id) for job_id in rows}
    return Account(
        {**_ends(rows, logs), "answers": _listed(clients.answers)},
        {
            **_promises_to_clients(rows, clients, audience),
            "failed, also on the way, for more than a full disk": [*_failed(logs)],
            "trained twice": [
                case for job in rows.values() for case in _trained_twice(installation, job, logs[job.id])
            ],
            "events missing or repeated for a watcher": [
                case for watcher in audience.watchers.values() for case in _heard_wrongly(watcher, logs[watcher.job_id])
            ],
            "checkpoints listed that fail their hash": _cases(lambda job_id: verified(installation, job_id), rows),
            "runs whose weights differ": [
                f"{job_id} ({spec})"
                for job_id, spec in clients.jobs.items()
                if rows[job_id].status == "succeeded" and installation.weights(job_id) != undisturbed[spec]
            ],
            "orphaned files": _orphaned_files(installation, rows),
        },
    )


def _ends(rows: dict[str, Job], logs: dict[str, list[Event]]) -> dict[str, object]:
    ends = Counter(job.status for job in rows.values())
    events = [event for log in logs.values() for event in log]
    reasons = Counter(event.data["reason"] for event in events if event.type == "requeued")
    return {
        "jobs in the database": len(rows),
        **{f"  {status}": ends[status] for status in sorted(ends)},
        "attempts": sum(job.attempt for job in rows.values()),
        "queued again": _listed(reasons),
        "events": len(events),
        "  checkpoints": sum(event.type == "checkpoint" for event in events),
    }


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{name}: {counted[name]}" for name in sorted(counted))


def _promises_to_clients(rows: dict[str, Job], clients: Clients, audience: Audience) -> dict[str, list[str]]:
    watchers = audience.watchers.values()
    return {
        "submitted and not there": sorted(clients.jobs.keys() - rows.keys()),
        "made twice, or submitted by nobody": [*clients.doubles, *sorted(rows.keys() - clients.jobs.keys())],
        "not terminal": [f"{job.id} is {job.status}" for job in rows.values() if job.status not in TERMINAL],
        "cancels that were accepted and not kept": [
            f"{job_id} {rows[job_id].status}" for job_id in clients.cancelled if rows[job_id].status != "cancelled"
        ],
        "answers that no client should get": [*clients.refused, *(case for one in watchers for case in one.refused)],
    }


def _failed(logs: dict[str, list[Event]]) -> Iterator[str]:
    """Yield the ends and the losses that no fault of the schedule explains: epochd's own errors for one."""
    for job_id, log in logs.items():
        for event in log:
            code = event.data["code"] if event.type == "failed" else event.data.get("reason")
            expected = {"failed": {"disk_full"}, "requeued": _EXPECTED_LOSSES}.get(event.type)
            if expected is not None and code not in expected:
                yield f"{job_id}: {event.cursor} {event.type} {event.data}"


def _cases(check: Callable[[str], object], job_ids: Iterable[str]) -> list[str]:
    """Return what a check says of those that do not pass it."""
    found = []
    for job_id in job_ids:
        try:
            check(job_id)
        except (AssertionError, Corrupt) as error:
            found.append(f"{job_id}: {error}")
    return found


def _orphaned_files(installation: Installation, rows: dict[str, Job]) -> list[str]:
    """Return what lies in the store after a worker's sweep, and belongs to nothing."""
    unfinished = _cases(lambda _: swept(installation), ["incoming"])
    unlisted = _cases(lambda job_id: only_what_is_listed_is_there(installation, job_id), rows)
    unknown = set(installation.store.names("checkpoints")) - rows.keys()
    beside = {path.name for path in root_of(installation).iterdir()} - {"incoming", "checkpoints", "datasets"}
    return [*unfinished, *unlisted, *unknown, *beside]


def _trained_twice(installation: Installation, job: Job, log: list[Event]) -> Iterator[str]:
    yield from _cases(lambda _: the_log_is_one_story(log), [job.id])
    moves = [event for event in log if event.type in LEGAL or event.type == "succeeded"]
    for before, after in pairwise(moves):
        if after.type not in LEGAL.get(before.type, set()):
            yield f"{job.id}: {after.type} ({after.cursor}) follows {before.type} ({before.cursor})"
    for case in _told_late(log):
        yield f"{job.id}: {case}"
    for case in _begun_elsewhere(log):
        yield f"{job.id}: {case}"
    if job.status == "succeeded":
        yield from _cases(lambda job_id: every_batch_is_in_the_curve(installation, job_id), [job.id])


def _told_late(log: list[Event]) -> Iterator[str]:
    for before, after in pairwise(log):
        # All on one machine, with one clock; who makes a fence grow holds the job's row before it looks at it.
        if after.cursor.fence > before.cursor.fence and before.at > after.at:
            yield f"{before.cursor} was told after {after.cursor}"


def _begun_elsewhere(log: list[Event]) -> Iterator[str]:
    saved, last = 0, 0  # the step of the newest checkpoint, the last batch told
    batch_at = {0: 0}  # of each step: batches may be told between a checkpoint and its listing
    for event in log:
        match event.type:
            case "started":
                if event.data["from_step"] != saved:
                    yield f"{event.cursor} goes on from step {event.data['from_step']}, and {saved} was saved last"
                last = batch_at[saved]
            case "batch":
                if event.data["batch"] != last + 1:
                    yield f"{event.cursor} is batch {event.data['batch']}, and {last + 1} was next"
                last = batch_at[event.data["step"]] = event.data["batch"]
            case "checkpoint":
                saved = event.data["step"]


def _heard_wrongly(watcher: Watcher, log: list[Event]) -> Iterator[str]:
    """Compare what a watcher heard with the log of record.

    It may have heard more: what a worker told and was killed before it had written it down. It comes under no other
    event's id.
    """
    on_record = {str(event.cursor): json.loads(event.to_json()) for event in log}
    heard = [event["id"] for event in watcher.heard]
    places = [tuple(map(int, id_.split("-"))) for id_ in heard]
    if missing := on_record.keys() - set(heard):
        yield f"{watcher.job_id}: never heard {sorted(missing)[:5]} of {len(missing)}"
    if any(after <= before for before, after in pairwise(places)):
        yield f"{watcher.job_id}: heard something twice, or out of order"
    for event in watcher.heard:
        if event != on_record.get(event["id"], event):
            yield f"{watcher.job_id}: heard {event}, and on record is {on_record[event['id']]}"
