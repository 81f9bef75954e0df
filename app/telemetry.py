"""What a Prometheus asks for: the jobs of all owners as SQL counts them, and what this process serves."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.live import Feeds
from core import job_queries
from core.unit_of_work import UnitOfWork


class Traffic:
    """What went out of this process since it started."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter(
            "epochd_http_responses", "Answers of this process by status.", ["status"], registry=registry
        )
        self._bytes = Counter("epochd_http_response_bytes", "Bytes in the bodies of answers.", registry=registry)

    def answered(self, status: int) -> None:
        """Count one answer."""
        self._answers.labels(str(status)).inc()

    def sent(self, size: int) -> None:
        """Count what is in it."""
        self._bytes.inc(size)


class _Jobs(Collector):
    """Read anew for every scrape: several processes tell the same."""

    def __init__(self, work: UnitOfWork, feeds: Feeds) -> None:
        self._work, self._feeds = work, feeds

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that registering asks no database."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield each metric as it is now."""
        with self._work.reading() as session:
            counts = job_queries.count_by_status(session)
            failures = job_queries.count_failures(session)
            wait = job_queries.longest_wait(session)
        jobs = GaugeMetricFamily("epochd_jobs", "Jobs by status.", labels=["status"])
        for status, number in counts.items():
            jobs.add_metric([str(status)], number)
        yield jobs
        failed = GaugeMetricFamily("epochd_failed_jobs", "Failed jobs by the code of their error.", labels=["code"])
        for code, number in failures.items():
            failed.add_metric([code], number)
        yield failed
        yield GaugeMetricFamily("epochd_queue_oldest_job_age_seconds", "Age of the oldest queued job.", value=wait)
        yield GaugeMetricFamily("epochd_watchers", "Who follows a job at this process.", value=self._feeds.watchers)


class Telemetry:
    """The numbers of one API process."""

    def __init__(self, work: UnitOfWork, feeds: Feeds) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Jobs(work, feeds))
        self.traffic = Traffic(self._registry)

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)
