"""Whether the service says truthfully how it is."""

import shutil
import sqlite3

import pytest

from core.settings import Settings
from tests.app.served import ON_SQLITE, Api, serving
from tests.services import RedisServer

pytestmark = ON_SQLITE


def test_without_redis_everything_but_speed_is_there(settings: Settings, own_redis: RedisServer) -> None:
    with serving(settings.model_copy(update={"redis_url": own_redis.url})) as api:
        assert api.http.get("/readyz").json()["status"] == "ready"
        own_redis.kill()
        answer = api.http.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert answer.json()["redis"]["state"] == "unreachable"
        job = api.job()
        assert api.http.post(f"/jobs/{job['id']}/cancel").status_code == 200
        assert api.http.get(f"/jobs/{job['id']}/events").json()["done"]


def test_without_its_store_it_is_not_ready(api: Api, settings: Settings) -> None:
    shutil.rmtree(settings.data_dir / "store")
    answer = api.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "unavailable"
    assert answer.json()["store"]["state"] == "unwritable"
    assert api.http.get("/healthz").json() == {"status": "ok"}


def test_a_database_outage_is_a_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.work.engine.dispose()
    database = api.work.engine.url.database
    assert database
    monkeypatch.setattr(api.work.engine.pool, "_creator", _refuse, raising=False)
    answer = api.http.get("/jobs")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.headers["content-type"] == "application/problem+json"


def _refuse(*_: object) -> None:
    raise sqlite3.OperationalError("unable to open database file")


def test_the_description_is_complete_and_loads_nothing_from_elsewhere(api: Api) -> None:
    document = api.http.get("/openapi.json").json()
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    schemas = document["components"]["schemas"]
    for operation in operations:
        assert operation["summary"]
        if operation["operationId"] != "healthz":
            for status in ("401", "403", "422", "503"):
                assert status in operation["responses"], operation["operationId"]
    references = str(document).split("#/components/schemas/")[1:]
    assert {reference.split("'")[0] for reference in references} <= schemas.keys()
    assert "JobSpec" in schemas
    page = api.http.get("/docs").text
    assert "POST /jobs" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
