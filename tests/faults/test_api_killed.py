"""The API dies around the commit of a job: whoever asks again under the same key gets one job, and it runs."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from sqlmodel import select

from core.models import Dataset, Job
from tests.installation import TINY, Installation
from tests.services import wait_for


@contextmanager
def api(installation: Installation, **environment: str) -> Iterator[httpx.Client]:
    """A real API process, on a unix socket."""
    path = installation.settings.data_dir / "api.sock"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:app", "--uds", str(path)]
    with (installation.settings.data_dir / "api.log").open("a") as log:
        process = subprocess.Popen(
            command, env=installation.environment() | environment, stdout=log, stderr=log, cwd="/"
        )
    key = installation.settings.key_file.read_text().strip()
    client = httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path)),
        base_url="http://localhost",
        headers={"Authorization": f"Bearer {key}"},
    )

    def answers() -> bool:
        try:
            return client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_for(answers, what="the API")
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()


def test_asked_again_it_is_one_job_and_it_runs(installation: Installation, dataset: Dataset, tmp_path: Path) -> None:
    body = {**TINY, "dataset": dataset.id}
    made = {"submit": False, "bell": True, "submitted": True}
    for point in made:
        once = tmp_path / point
        once.touch()
        with api(installation, EPOCHD_FAILPOINT=f"{point}@{once}") as client, pytest.raises(httpx.TransportError):
            client.post("/jobs", json=body, headers={"Idempotency-Key": point})
        assert not once.exists()
    assert _jobs(installation) == 2
    with api(installation) as client, installation.worker():
        answers = {point: client.post("/jobs", json=body, headers={"Idempotency-Key": point}) for point in made}
        assert {point: answer.status_code for point, answer in answers.items()} == {
            point: 200 if made[point] else 201 for point in made
        }
        for answer in answers.values():
            assert installation.wait_for_status(answer.json()["id"], "succeeded", "failed").status == "succeeded"
    assert _jobs(installation) == 3


def _jobs(installation: Installation) -> int:
    with installation.work.reading() as session:
        return session.exec(select(sa.func.count()).select_from(Job)).one()
