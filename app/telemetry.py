"""What a Prometheus asks for: the jobs of all owners as SQL counts them, and what this process serves."""

from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.live import Feeds
from core import job_queries
from core.unit_of_work import UnitOfWork

_LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Of so many running jobs at most, the newest: every job that is told apart makes series that a Prometheus has to keep.
_JOBS_TOLD_APART = 100
_OF_A_JOB = {
    "epochd_job_steps_per_second": ("steps_per_second", "Updates of a running job in a second."),
    "epochd_job_tokens_per_second": ("tokens_per_second", "Tokens with loss of a running job in a second."),
    "epochd_job_trainer_memory_bytes": ("memory_bytes", "Memory of a running job's trainer."),
}


class Traffic:
    """What went out of this process since it started."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter(
            "epochd_http_responses", "Answers of this process by status.", ["status"], registry=registry
        )
        self._bytes = Counter("epochd_http_response_bytes", "Bytes in the bodies of answers.", registry=registry)
        self._streamed = Counter("epochd_websocket_bytes", "Bytes sent over WebSockets.", registry=registry)
        self._lag = Histogram(
            "epochd_event_lag_seconds",
            "From when a watched event was made, by its worker's clock, to when this process could send it.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )

    def answered(self, status: int) -> None:
        """Count one answer."""
        self._answers.labels(str(status)).inc()

    def sent(self, size: int) -> None:
        """Count what is in it."""
        self._bytes.inc(size)

    def streamed(self, size: int) -> None:
        """Count what went out over a WebSocket."""
        self._streamed.inc(size)

    def heard(self, at: datetime) -> None:
        """Count an event that was made at this time."""
        self._lag.observe(max(0.0, (datetime.now(UTC) - at).total_seconds()))


class _Jobs(Collector):
    """Read anew for every scrape: several processes tell the same."""

    def __init__(self, work: UnitOfWork, feeds: Feeds) -> None:
        self._work, self._feeds = work, feeds

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that registering asks no database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each metric as it is now."""
        with self._work.reading() as session:
            counts = job_queries.count_by_status(session)
            failures = job_queries.count_failures(session)
            wait = job_queries.longest_wait(session)
            running = job_queries.running(session, _JOBS_TOLD_APART)
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
        for name, (key, text) in _OF_A_JOB.items():
            family = GaugeMetricFamily(name, text, labels=["job"])
            for job_id, progress in running:
                if progress.get(key) is not None:
                    family.add_metric([job_id], progress[key])
            yield family
        claims = self._work.live_log.claims()
        if claims is not None:
            yield CounterMetricFamily("epochd_claims", "Jobs that workers took up, since Redis started.", value=claims)


class Telemetry:
    """The numbers of one API process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.traffic = Traffic(self._registry)

    def look_at(self, work: UnitOfWork, feeds: Feeds) -> None:
        """Tell of all jobs, too, and of who watches."""
        self._registry.register(_Jobs(work, feeds))

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)
