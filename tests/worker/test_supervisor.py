"""What a supervisor makes of troubles that are not its job's."""

from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa

from core.settings import Settings
from core.store import Store
from tests.house import House
from worker import supervisor
from worker.fork_server import ForkServer, Limits
from worker.trainer_process import TrainerProcess


def test_a_database_that_goes_away_before_the_trainer_begins_costs_the_job_nothing(
    house: House, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: Any, **__: Any) -> None:
        raise sa.exc.OperationalError("", None, ConnectionError("the link was cut"))

    monkeypatch.setattr(supervisor, "make_assignment", cut)
    claim = house.running()
    trainer = TrainerProcess(ForkServer({}, Limits()), None)
    supervisor.Supervisor(claim, house.work, store, trainer, settings=settings, drain=Event()).run()
    job = house.job(claim.job_id)
    assert (job.status, job.failures) == ("queued", 0)
    assert house.log(claim.job_id)[-1].data == {"reason": "the database was away"}
