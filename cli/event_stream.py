"""A job's events over the WebSocket, each exactly once: a lost connection is taken up again behind the last event."""

import json
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import CloseCode
from websockets.sync.client import connect

from cli.client import Client, Json, Unanswered, refusal

# A server that was restarted is back within seconds; one that is away for longer will not be waited for.
_GIVE_UP_AFTER_SECONDS = 300.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0


def events(client: Client, job_id: str, lost: Callable[[str], None]) -> Iterator[Json]:
    """Yield the job's events from its first to the end of its log. `lost` hears of every lost connection.

    Raises Refused where the server turns the watcher away, Unanswered where it stays away.
    """
    cursor, heard_at, pause = "", time.monotonic(), _FIRST_PAUSE_SECONDS
    while True:
        try:
            for event in _one_connection(client, job_id, cursor):
                if event is None:
                    return
                cursor, heard_at, pause = event["id"], time.monotonic(), _FIRST_PAUSE_SECONDS
                yield event
            reason = "the server closed the connection"
        except InvalidStatus as error:
            if error.response.status_code < 500:
                raise refusal(error.response.status_code, bytes(error.response.body or b"")) from error
            reason = f"status {error.response.status_code}"
        except (OSError, WebSocketException) as error:
            reason = str(error) or type(error).__name__
        if time.monotonic() - heard_at > _GIVE_UP_AFTER_SECONDS:
            raise Unanswered(
                f"The connection to {client.url} was lost ({reason}) and did not come back. The job goes on "
                f"without a watcher: `epochd watch {job_id}` takes it up again."
            )
        lost(reason)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _one_connection(client: Client, job_id: str, cursor: str) -> Iterator[Json | None]:
    """Yield events until the connection ends, and None where it ends because the log does."""
    address = f"ws{client.url.removeprefix('http')}/jobs/{quote(job_id, safe='')}/stream"
    with connect(
        f"{address}?after={cursor}" if cursor else address,
        additional_headers=client.headers,
        proxy=True if client.uses_proxy else None,
        max_size=None,
    ) as socket:
        for message in socket:
            text = message if isinstance(message, str) else message.decode()
            # Not splitlines(): a line separator inside a JSON string is part of the text.
            yield from (json.loads(line) for line in text.split("\n") if line)
        if socket.close_code == CloseCode.NORMAL_CLOSURE:
            yield None
