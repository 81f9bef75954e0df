"""What befalls a deployment: each fault, upon whom, and how it is healed; and the schedule, which the seed decides."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import psutil
from redis import RedisError

from tests.chaos.clients import Clients
from tests.chaos.deployment import Deployment, Member, freeze, thaw
from tests.faults.small_disk import MB, fill

_PAUSE_SECONDS = (1.5, 4.5)


@dataclass(frozen=True)
class Scene:
    """What faults can lay hands on."""

    deployment: Deployment
    clients: Clients


class Act(NamedTuple):
    """A fault of the schedule: when, what, whom of those there are then, for how long. `victim` is any number."""

    at: float
    fault: str
    victim: int
    seconds: float


class Blow(NamedTuple):
    """A fault that took place: upon whom, and how to heal it."""

    whom: str
    heal: Callable[[], object] = lambda: None


# A fault returns None where there was nobody to befall: no trainer, no job that could be cancelled.
Strike = Callable[[Scene, Act], Blow | None]


def _one_of(members: list[Member], act: Act) -> Member | None:
    alive = [member for member in members if member.alive]
    return alive[act.victim % len(alive)] if alive else None


# Processes -----------------------------------------------------------------------------------------------------------


def _kill_api(scene: Scene, act: Act) -> Blow | None:
    return _kill(_one_of(scene.deployment.apis, act))


def _kill_worker(scene: Scene, act: Act) -> Blow | None:
    return _kill(_one_of(scene.deployment.workers, act))


def _kill(member: Member | None) -> Blow | None:
    if member is None:
        return None
    member.process.kill()
    return Blow(member.title)


def _kill_trainer(scene: Scene, act: Act) -> Blow | None:
    trainer = _trainer(scene, act)
    if trainer is None:
        return None
    with suppress(psutil.Error):
        trainer.kill()
    return Blow(f"trainer {trainer.pid}")


def _freeze_trainer(scene: Scene, act: Act) -> Blow | None:
    trainer = _trainer(scene, act)
    return _freeze(f"trainer {trainer.pid}", [trainer], act) if trainer else None


def _trainer(scene: Scene, act: Act) -> psutil.Process | None:
    trainers = [trainer for worker in scene.deployment.workers for trainer in worker.trainers()]
    return trainers[act.victim % len(trainers)] if trainers else None


def _freeze_worker(scene: Scene, act: Act) -> Blow | None:
    worker = _one_of(scene.deployment.workers, act)
    return _freeze(f"{worker.title} with its trainers", [worker.process, *worker.trainers()], act) if worker else None


def _freeze_api(scene: Scene, act: Act) -> Blow | None:
    api = _one_of(scene.deployment.apis, act)
    return _freeze(api.title, [api.process], act) if api else None


def _freeze(whom: str, processes: list[psutil.Process], act: Act) -> Blow:
    freeze(processes)
    return Blow(f"{whom}, {act.seconds:.1f} s", lambda: thaw(processes))


def _drain_worker(scene: Scene, act: Act) -> Blow | None:
    worker = _one_of(scene.deployment.workers, act)
    if worker is None:
        return None
    worker.drain()
    return Blow(worker.title)


# What they share -----------------------------------------------------------------------------------------------------


def _flush_redis(scene: Scene, _: Act) -> Blow | None:
    return Blow("everything in it") if _told_redis(lambda: scene.deployment.redis.client().flushall()) else None


def _break_redis_connections(scene: Scene, _: Act) -> Blow | None:
    client = scene.deployment.redis.client()
    told = _told_redis(lambda: client.client_kill_filter(_type="normal", skipme=True))
    return Blow("every connection") if told else None


def _told_redis(command: Callable[[], object]) -> bool:
    try:
        command()
    except RedisError:  # it is down
        return False
    return True


def _kill_redis(scene: Scene, act: Act) -> Blow | None:
    redis = scene.deployment.redis
    if not redis.running:
        return None
    redis.kill()
    return Blow(f"away for {act.seconds:.1f} s", redis.start)


def _restart_postgres(scene: Scene, _: Act) -> Blow:
    scene.deployment.postgres.restart()
    return Blow("every connection")


def _break_links(scene: Scene, act: Act) -> Blow:
    whose, members = _links(scene, act)
    for member in members:
        member.link.blip()
    return Blow(whose)


def _cut_links(scene: Scene, act: Act) -> Blow:
    whose, members = _links(scene, act)
    for member in members:
        member.link.cut()
    return Blow(f"{whose}, {act.seconds:.1f} s", lambda: [member.link.mend() for member in members])


def _stall_links(scene: Scene, act: Act) -> Blow:
    whose, members = _links(scene, act)
    for member in members:
        member.link.stall()
    return Blow(f"{whose}, {act.seconds:.1f} s", lambda: [member.link.flow() for member in members])


def _links(scene: Scene, act: Act) -> tuple[str, list[Member]]:
    """Return whose way to the database it is: one member's, or everybody's."""
    members = scene.deployment.members
    place = act.victim % (len(members) + 2)
    return (members[place].title, [members[place]]) if place < len(members) else ("everybody", members)


def _fill_disk(scene: Scene, act: Act) -> Blow | None:
    disk = scene.deployment.disk
    if not scene.deployment.has_room():
        return None
    with suppress(OSError):  # somebody else took the last of it
        fill(disk, leaving=(act.victim % 3) * MB)
    return Blow(f"{act.victim % 3} MB left, {act.seconds:.1f} s", (disk / "ballast").unlink)


# What clients ask for ------------------------------------------------------------------------------------------------


def _pause(scene: Scene, act: Act) -> Blow | None:
    job_id = scene.clients.ask_for("pause", act.victim)
    return Blow(job_id, lambda: scene.clients.resume(job_id)) if job_id else None


def _cancel(scene: Scene, act: Act) -> Blow | None:
    job_id = scene.clients.ask_for("cancel", act.victim)
    return Blow(job_id) if job_id else None


def _save(scene: Scene, act: Act) -> Blow | None:
    job_id = scene.clients.ask_for("checkpoints", act.victim)
    return Blow(job_id) if job_id else None


class _Fault(NamedTuple):
    strike: Strike
    share: int
    seconds: tuple[float, float] = (0.0, 0.0)


# A lease lasts 6 s, and a trainer may be silent for 20.
_FAULTS = {
    "kill a worker": _Fault(_kill_worker, 3),
    "kill a trainer": _Fault(_kill_trainer, 3),
    "kill an API": _Fault(_kill_api, 2),
    "freeze a worker": _Fault(_freeze_worker, 3, (1, 14)),
    "freeze a trainer": _Fault(_freeze_trainer, 2, (1, 25)),
    "freeze an API": _Fault(_freeze_api, 1, (1, 6)),
    "drain a worker": _Fault(_drain_worker, 2),
    "flush Redis": _Fault(_flush_redis, 1),
    "break Redis connections": _Fault(_break_redis_connections, 1),
    "kill Redis": _Fault(_kill_redis, 1, (0.5, 5)),
    "restart PostgreSQL": _Fault(_restart_postgres, 1),
    "break a database link": _Fault(_break_links, 2),
    "cut a database link": _Fault(_cut_links, 2, (1, 12)),
    "stall a database link": _Fault(_stall_links, 2, (1, 12)),
    "fill the disk": _Fault(_fill_disk, 1, (2, 6)),
    "pause a job": _Fault(_pause, 2, (1, 10)),
    "cancel a job": _Fault(_cancel, 1),
    "save a job": _Fault(_save, 2),
}


def schedule(chance: random.Random, seconds: float) -> list[Act]:
    """Return the faults of so many seconds: every kind comes, again and again, in an order and at times of chance."""
    acts: list[Act] = []
    at, deck = chance.uniform(*_PAUSE_SECONDS), list[str]()
    while at < seconds:
        if not deck:
            deck = [name for name, fault in _FAULTS.items() for _ in range(fault.share)]
            chance.shuffle(deck)
        name = deck.pop()
        acts.append(Act(at, name, chance.randrange(2**16), chance.uniform(*_FAULTS[name].seconds)))
        at += chance.uniform(*_PAUSE_SECONDS)
    return acts


def strike(scene: Scene, act: Act) -> Blow | None:
    """Let a fault of the schedule take place, where it finds somebody."""
    return _FAULTS[act.fault].strike(scene, act)
