"""Those who watch: each follows one job over whichever API answers, and writes down every event that it is sent."""

import json
import random
from threading import Event, Thread
from typing import Any

import httpx
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import CloseCode
from websockets.sync.client import connect

_POLL_SECONDS = 5.0
_TIMEOUT_SECONDS = 3.0
_PAUSE_SECONDS = 0.3
_LOOK_AGAIN_SECONDS = 1.0


class Watcher:
    """Follows a job, by the WebSocket or by long polls, always behind the last event that it heard."""

    def __init__(self, job_id: str, urls: list[str], headers: dict[str, str], over: Event, leave: Event) -> None:
        self.job_id = job_id
        self.heard: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self._urls, self._headers, self._over, self._leave = urls, headers, over, leave
        self._thread = Thread(target=self._watch, name=f"watcher-{job_id}", daemon=True)
        self._thread.start()

    def ended(self, seconds: float) -> bool:
        """Wait for it to have heard the end of the log after all was over, and say whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _watch(self) -> None:
        heard_all = False
        while not (heard_all or self._leave.is_set()):
            # A log that has ended goes on where the job is retried: only an end that was seen after all is the last.
            was_over, ended = self._over.is_set(), False
            try:
                ended = random.choice((self._follow, self._poll))(random.choice(self._urls))
            except InvalidStatus as error:
                self._note(error.response.status_code)
            except httpx.HTTPStatusError as error:
                self._note(error.response.status_code)
            except (OSError, WebSocketException, httpx.TransportError):
                pass  # killed, frozen, or on its way up
            heard_all = was_over and ended
            if ended:
                self._over.wait(_LOOK_AGAIN_SECONDS)
            else:
                self._leave.wait(_PAUSE_SECONDS)

    @property
    def _cursor(self) -> str:
        return self.heard[-1]["id"] if self.heard else ""

    def _follow(self, url: str) -> bool:
        """Hear what a connection brings, and say whether it ended with the log."""
        address = f"ws{url.removeprefix('http')}/jobs/{self.job_id}/stream?after={self._cursor}"
        with connect(
            address,
            additional_headers=self._headers,
            proxy=None,
            open_timeout=_TIMEOUT_SECONDS,
            ping_interval=_TIMEOUT_SECONDS,
            ping_timeout=_TIMEOUT_SECONDS,
            close_timeout=_TIMEOUT_SECONDS,
            max_size=None,
        ) as socket:
            for message in socket:
                self.heard += [json.loads(line) for line in str(message).split("\n")]
            return socket.close_code == CloseCode.NORMAL_CLOSURE

    def _poll(self, url: str) -> bool:
        """Hear what a poll brings, and say whether the log has ended."""
        answer = httpx.get(
            f"{url}/jobs/{self.job_id}/events",
            params={"after": self._cursor, "wait": _POLL_SECONDS},
            headers=self._headers,
            timeout=_POLL_SECONDS + _TIMEOUT_SECONDS,
            trust_env=False,
        )
        page = answer.raise_for_status().json()
        self.heard += page["events"]
        return bool(page["done"])

    def _note(self, status: int) -> None:
        if status != 503:
            self.refused.append(f"a watcher of {self.job_id} was answered {status}")


class Audience:
    """A watcher for each job."""

    def __init__(self, urls: list[str], key: str) -> None:
        self._urls, self._headers = urls, {"Authorization": f"Bearer {key}"}
        self._over, self._leave = Event(), Event()
        self.watchers: dict[str, Watcher] = {}

    def watch(self, job_ids: list[str]) -> None:
        """Have each of the jobs watched, those that are not yet."""
        for job_id in job_ids:
            if job_id not in self.watchers:
                self.watchers[job_id] = Watcher(job_id, self._urls, self._headers, self._over, self._leave)

    def leave(self, seconds: float) -> list[str]:
        """Let the watchers hear each log to its end, and return the jobs of those that could not and were sent away."""
        self._over.set()
        deaf = [watcher.job_id for watcher in self.watchers.values() if not watcher.ended(seconds)]
        self._leave.set()
        return deaf
