"""The HTTP client: where epochd is, which key opens it, and its errors as sentences."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from cli import data_directory
from core.errors import EpochdError, Fault
from core.settings import load_settings

Json = dict[str, Any]

DEFAULT_URL = "http://127.0.0.1:8000"
_MOST_A_PAGE = 200
_TIMEOUT_SECONDS, _CONNECT_SECONDS = 60.0, 10.0


class Unanswered(EpochdError):
    """No server answered, or the connection broke: the same request may succeed later."""


class Refused(EpochdError):
    """The server answered with an error. `detail` holds its sentence and, line by line, what was wrong where."""

    def __init__(self, status: int, detail: str, faults: Iterable[Fault] = ()) -> None:
        super().__init__("\n".join([detail, *(f"  {_place(fault)}{fault.msg}" for fault in faults)]))
        self.status = status


class Client:
    """A connection to one epochd, as one owner."""

    def __init__(self, url: str, key: str | None, *, timeout: float = _TIMEOUT_SECONDS) -> None:
        self.url = url.rstrip("/")
        if key and not (key.isascii() and key.isprintable()):
            raise EpochdError("The key is no key of epochd's: it holds other characters. Correct EPOCHD_API_KEY.")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        # No proxy stands between a machine and itself, whatever the environment says of the rest of the world.
        try:
            self.uses_proxy = urlsplit(self.url).hostname not in ("127.0.0.1", "localhost", "::1")
        except ValueError as error:
            raise self._no_address() from error
        self._http = httpx.Client(
            base_url=self.url,
            headers=self.headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            trust_env=self.uses_proxy,
            follow_redirects=False,
        )

    @classmethod
    def from_environment(cls, *, timeout: float = _TIMEOUT_SECONDS) -> Self:
        """EPOCHD_URL and EPOCHD_API_KEY; where they are unset, the local stack's own of this data directory.

        `timeout` is how many seconds an answer may take.
        """
        data_dir = load_settings().data_dir
        url = os.environ.get("EPOCHD_URL") or data_directory.found_url(data_dir) or DEFAULT_URL
        return cls(url, os.environ.get("EPOCHD_API_KEY") or data_directory.found_key(data_dir), timeout=timeout)

    def get(self, path: str, **query: Any) -> Json:
        """Return the answer to a GET."""
        return self._answer("GET", path, params=query)

    def post(self, path: str, *, attempts: int = 1, **request: Any) -> Json:
        """Return the answer to a POST; tried again after a broken connection where that can do no harm."""
        for _ in range(attempts - 1):
            try:
                return self._answer("POST", path, **request)
            except Unanswered:
                continue
        return self._answer("POST", path, **request)

    def patch(self, path: str, **request: Any) -> None:
        """Send a PATCH."""
        self._request("PATCH", path, **request)

    def delete(self, path: str) -> None:
        """Send a DELETE."""
        self._request("DELETE", path)

    def pages(self, path: str, **query: Any) -> Iterator[Json]:
        """Yield every item of a list."""
        cursor: str | None = None
        while True:
            page = self.get(path, **query, **({"cursor": cursor} if cursor else {}))
            yield from page["data"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def first(self, path: str, count: int, **query: Any) -> tuple[list[Json], str | None]:
        """Return up to `count` items of a list, and the cursor of those behind them where there are any."""
        found: list[Json] = []
        while True:
            page = self.get(path, limit=min(count - len(found), _MOST_A_PAGE), **query)
            found += page["data"]
            query["cursor"] = page["next_cursor"]
            if len(found) == count or page["next_cursor"] is None:
                return found, page["next_cursor"]

    @contextmanager
    def download(self, path: str, *, start: int) -> Iterator[httpx.Response]:
        """Read a file from byte `start` on. The body comes as it lies on the server, never compressed."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with self._sentences(), self._http.stream("GET", path, headers=headers) as response:
            if response.is_error:
                response.read()
                raise refusal(response.status_code, response.content)
            yield response

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._sentences():
            response = self._http.request(method, path, **request)
        if not response.is_success:
            raise refusal(response.status_code, response.content)
        return response

    def _answer(self, method: str, path: str, **request: Any) -> Json:
        response = self._request(method, path, **request)
        try:
            answer: Json = response.json()
        except ValueError as error:
            raise Refused(response.status_code, f"{self.url} is no epochd: its answer is not JSON.") from error
        return answer

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise self.no_answer() from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._no_address() from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unanswered(f"The connection to {self.url} broke: {reason}. Try again.") from error

    def _no_address(self) -> EpochdError:
        return EpochdError(f"EPOCHD_URL is {self.url!r}, which is no http:// or https:// address.")

    def no_answer(self) -> Unanswered:
        """What to say when nobody listens at the address."""
        return Unanswered(
            f"No epochd answers at {self.url}. Start one with `epochd up`, or name another with EPOCHD_URL."
        )


def refusal(status: int, body: bytes) -> Refused:
    """Turn an error answer into sentences: a problem document, or whatever a proxy in between made of it."""
    try:
        problem = json.loads(body)
        detail = str(problem.get("detail") or problem["title"])
        faults = [Fault(tuple(item["loc"]), str(item["msg"])) for item in problem.get("errors") or []]
    except (ValueError, KeyError, TypeError, AttributeError):
        return Refused(status, f"The server answered with status {status} and no explanation.")
    if status == 401:
        detail += " The CLI takes the key from EPOCHD_API_KEY, or from the file `key` in EPOCHD_DATA_DIR."
    # A single fault often only repeats the sentence above it.
    return Refused(status, detail, [fault for fault in faults if fault.msg != detail or fault.loc])


def _place(fault: Fault) -> str:
    if not fault.loc:
        return ""
    if fault.loc[0] == "line":
        return ""  # the message names the line
    return ".".join(str(step) for step in fault.loc if step != "body") + ": "
