"""Those who ask: each request goes to one of the APIs, and to another one until there is an answer."""

from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import Event, Lock, Thread
from typing import Any, Self

import httpx

# Far below what an API is frozen for at most: who is not answered asks elsewhere.
_TIMEOUT_SECONDS = 3.0
_PAUSE_SECONDS = 0.3
_LOOK_EVERY_SECONDS = 2.0
_AT_ONCE = 8


class Clients:
    """Submit jobs, ask for things, and look after what failed for want of space; they remember what was answered."""

    def __init__(self, urls: list[str], key: str, *, has_room: Callable[[], bool]) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._apis = [
            httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False) for url in urls
        ]
        self._has_room = has_room
        self._turn = count()
        self._lock = Lock()
        self._over, self.settling = Event(), Event()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="client")
        self._asked: list[Future[None]] = []
        self._operator = Thread(target=self._look_after, name="operator", daemon=True)
        self._submitted: dict[str, str] = {}  # the job's id: the name of its spec
        self._ids: defaultdict[str, set[str]] = defaultdict(set)  # what was answered under each Idempotency-Key
        self.answers: Counter[str] = Counter()  # "cancel 200" and the like
        self.cancelled: set[str] = set()  # a cancel of these was accepted
        self.refused: list[str] = []  # what no client should be told

    def __enter__(self) -> Self:
        self._operator.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._operator.join()
        self._pool.shutdown()
        for asked in self._asked:
            asked.result()  # raises what went wrong on this side
        for api in self._apis:
            api.close()

    @property
    def idle(self) -> bool:
        """Whether everything that was asked has its answer."""
        return all(asked.done() for asked in self._asked)

    @property
    def jobs(self) -> dict[str, str]:
        """The jobs submitted so far, and the name of each one's spec."""
        with self._lock:
            return dict(self._submitted)

    @property
    def doubles(self) -> list[str]:
        """The keys under which more than one job was made."""
        return [f"{key}: {sorted(ids)}" for key, ids in self._ids.items() if len(ids) > 1]

    def submit(self, number: int, name: str, spec: dict[str, Any]) -> None:
        """Have two clients submit the same job at once, under the same Idempotency-Key."""
        for _ in range(2):
            self._asked.append(self._pool.submit(self._submit, f"job-{number}", name, spec))

    def ask_for(self, what: str, victim: int) -> str | None:
        """Ask for something (`cancel`, `pause`, `checkpoints`) of one of the latest jobs, and return which it is."""
        job_ids = list(self.jobs)[-6:]
        if not job_ids:
            return None
        job_id = job_ids[victim % len(job_ids)]
        self._asked.append(self._pool.submit(self._ask, what, job_id))
        return job_id

    def resume(self, job_id: str) -> None:
        """Ask for the end of a pause."""
        self._asked.append(self._pool.submit(self._ask, "resume", job_id))

    def _submit(self, key: str, name: str, spec: dict[str, Any]) -> None:
        answer = self._answer("POST", "/jobs", json=spec, headers={"Idempotency-Key": key})
        if answer is None:
            return
        if not answer.is_success:
            self.refused.append(f"a submit was answered {answer.status_code}: {answer.text}")
            return
        with self._lock:
            self.answers[f"submit {answer.status_code}"] += 1
            self._ids[key].add(answer.json()["id"])
            self._submitted[answer.json()["id"]] = name

    def _ask(self, what: str, job_id: str) -> None:
        answer = self._answer("POST", f"/jobs/{job_id}/{what}")
        if answer is None:
            return
        with self._lock:
            self.answers[f"{what} {answer.status_code}"] += 1
            if what == "cancel" and answer.is_success:
                self.cancelled.add(job_id)
            if not answer.is_success and answer.status_code != 409:
                self.refused.append(f"{what} of {job_id} was answered {answer.status_code}: {answer.text}")

    def _look_after(self) -> None:
        """Retry what failed for want of space, where there is some; resume what is paused when all is to end."""
        while not self._over.wait(_LOOK_EVERY_SECONDS):
            if self._has_room():
                for job in self._listed("failed"):
                    if job["error"]["code"] == "disk_full":
                        self._ask("retry", job["id"])
            if self.settling.is_set():
                for job in self._listed("paused"):
                    self._ask("resume", job["id"])

    def _listed(self, status: str) -> list[dict[str, Any]]:
        answer = self._answer("GET", "/jobs", params={"status": status, "limit": 200})
        return answer.json()["data"] if answer is not None and answer.is_success else []

    def _answer(self, method: str, path: str, **request: Any) -> httpx.Response | None:
        """Return the first answer that is one; None where all is over before."""
        while not self._over.is_set():
            api = self._apis[next(self._turn) % len(self._apis)]
            try:
                answer = api.request(method, path, **request)
                if answer.status_code == 500:
                    self.refused.append(f"{method} {path} was answered 500, X-Request-Id {_request_id(answer)}")
                elif answer.status_code != 503:
                    return answer
            except httpx.TransportError:
                pass  # killed, frozen, or on its way up
            self._over.wait(_PAUSE_SECONDS)
        return None


def _request_id(answer: httpx.Response) -> str:
    return answer.headers.get("X-Request-Id", "-")
