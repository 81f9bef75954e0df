"""`epochd logs`: what a job's trainers wrote, once or as it comes."""

import pytest

from cli import trainer_logs
from cli.client import Client
from core import jobs
from tests.app.served import Api
from tests.cli.conftest import Main
from tests.house import LOST


def test_each_attempt_is_shown_and_what_is_left_out_is_said(on_api: Main, api: Api) -> None:
    worker = api.worker()
    silent = on_api("logs", worker.job_id)
    assert (silent.status, silent.out, "written nothing" in silent.err) == (0, "", True)
    worker.write(1000, "999 \x1b[2J\nthousand")
    worker.requeue_and_claim()
    worker.write(1, "again")
    shown = on_api("logs", worker.job_id)
    assert shown.out == "999 \N{REPLACEMENT CHARACTER}[2J\nthousand\nagain\n"
    assert shown.err == "attempt 1\n(998 lines before these are not kept)\nattempt 2\n"
    assert on_api("logs", "job_of_nobody").status == 1


def test_what_comes_is_followed_to_the_end_of_the_job(on_api: Main, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_logs, "_PAUSE_SECONDS", 0.0)
    worker, get = api.worker(), Client.get

    def at_the_end() -> None:
        worker.write(9, "six\nseven\neight\nnine")
        with api.work.begin() as session:
            jobs.fail(session, worker.claim, LOST)

    happens = [lambda: None, lambda: worker.write(2, "one\ntwo"), lambda: None, at_the_end]

    def then(self: Client, path: str, **query: object) -> object:
        if not path.endswith("/logs"):
            happens.pop(0)()
        return get(self, path, **query)

    monkeypatch.setattr(Client, "get", then)
    shown = on_api("logs", worker.job_id, "--follow")
    assert shown.out.split() == ["one", "two", "six", "seven", "eight", "nine"]
    assert "(3 lines before these are not kept)" in shown.err
    assert happens == []
