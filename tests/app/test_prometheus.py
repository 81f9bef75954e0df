"""What a Prometheus is told, read back by its own parser."""

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from core import jobs
from core.jobs import JobError
from tests.app.served import ON_SQLITE, Api
from tests.app.watcher import SocketWatcher

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana-dashboard.json"


def scraped(api: Api) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and the values of its labels."""
    answer = api.http.get("/metrics")
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_the_numbers_are_those_of_the_jobs_and_of_what_was_served(api: Api) -> None:
    empty = scraped(api)
    assert (empty["epochd_jobs", "queued"], empty["epochd_queue_oldest_job_age_seconds",]) == (0, 0)
    for code in ("out_of_memory", "diverged", "diverged"):
        worker = api.worker()
        with api.work.begin() as session:
            jobs.fail(session, worker.claim, JobError(code, "Why.", "What to do."))
    running = api.worker()
    api.job()
    api.http.delete(f"/jobs/{worker.job_id}")
    watcher = SocketWatcher(api, running.job_id).start()
    watcher.wait_until_heard(running.tell(1))
    told = scraped(api)
    assert {status: told["epochd_jobs", status] for status in ("queued", "running", "failed", "succeeded")} == {
        "queued": 1, "running": 1, "failed": 2, "succeeded": 0,
    }  # fmt: skip
    assert (told["epochd_failed_jobs", "diverged"], told["epochd_failed_jobs", "out_of_memory"]) == (1, 1)
    assert 0 <= told["epochd_queue_oldest_job_age_seconds",] < 60
    assert told["epochd_watchers",] == 1
    assert told["epochd_http_responses_total", "201"] == 5 + 1  # five jobs on one dataset
    assert told["epochd_http_response_bytes_total",] > 1000
    watcher.socket.close()


def test_running_jobs_are_told_apart_and_the_lag_of_what_is_watched_is_counted(api: Api) -> None:
    claims = scraped(api).get(("epochd_claims_total",), 0)
    running = api.worker()
    with api.work.begin() as session:
        jobs.record(session, running.claim, [], progress={"steps_per_second": 2.5, "memory_bytes": 7, "step": 3})
    api.work.live_log.count_claim()
    watcher = SocketWatcher(api, running.job_id, after="1-1").start()
    watcher.wait_until_heard(running.tell(3))
    told = scraped(api)
    assert told["epochd_claims_total",] == claims + 1
    assert told["epochd_job_steps_per_second", running.job_id] == 2.5
    assert told["epochd_job_trainer_memory_bytes", running.job_id] == 7
    assert ("epochd_job_tokens_per_second", running.job_id) not in told
    assert told["epochd_event_lag_seconds_count",] == 3
    assert 0 < told["epochd_event_lag_seconds_sum",] < 30
    size = sum(map(len, watcher.lines))  # and a line end between those of one message
    assert size <= told["epochd_websocket_bytes_total",] < size + len(watcher.lines)
    watcher.socket.close()
    running.succeed(api.store)
    assert ("epochd_job_steps_per_second", running.job_id) not in scraped(api)


@ON_SQLITE
def test_the_dashboard_asks_for_nothing_that_is_not_told(api: Api) -> None:
    running = api.worker()
    speeds = {"steps_per_second": 2.5, "tokens_per_second": 10.0, "memory_bytes": 7}
    with api.work.begin() as session:
        jobs.record(session, running.claim, [], progress=speeds)
    other = api.worker()
    with api.work.begin() as session:
        jobs.fail(session, other.claim, JobError("diverged", "Why.", "What to do."))
    told: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(api.http.get("/metrics").text):
        for sample in family.samples:
            told.setdefault(sample.name, set()).update(sample.labels)
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 8
    for expression in expressions:
        names = re.findall(r"epochd_\w+", expression)
        assert names
        assert set(names) <= told.keys(), expression
        labels = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        labels |= set(re.findall(r"[{,]\s*(\w+)\s*[=!]", expression))
        assert labels - {"instance"} <= set().union(*(told[name] for name in names)), expression
    asked = {name for expression in expressions for name in re.findall(r"epochd_\w+", expression)}
    families = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in told}
    assert {name.removesuffix("_bucket") for name in asked} >= {n for n in families if not n.endswith("_created")}


def test_it_takes_the_admin_scope(api: Api) -> None:
    refused = api.http.get("/metrics", headers=api.other_key("someone"))
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
