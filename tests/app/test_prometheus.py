"""What a Prometheus is told, read back by its own parser."""

from prometheus_client.parser import text_string_to_metric_families

from core import jobs
from core.jobs import JobError
from tests.app.served import Api
from tests.app.watcher import SocketWatcher


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


def test_it_takes_the_admin_scope(api: Api) -> None:
    refused = api.http.get("/metrics", headers=api.other_key("someone"))
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
