"""A job's events over the WebSocket, each exactly once: a lost connection is taken up again behind the last event."""

import json
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect

from cli.client import Client, Json, Unanswered, refusal
from cli.patience import LONGEST_PAUSE_SECONDS, Patience

# A server that was restarted is back within seconds; one that is away for longer will not be waited for.
PATIENCE_SECONDS = 300.0


def events(client: Client, job_id: str, lost: Callable[[str], None]) -> Iterator[Json]:
    """Yield the job's events from its first to the end of its log. `lost` hears of every lost connection.

    Raises Refused where the server turns the watcher away, Unanswered where it stays away.
    """
    cursor, patience = "", Patience(PATIENCE_SECONDS)
    while True:
        opened_at = None
        try:
            with _connection(client, job_id, cursor) as socket:
                opened_at = time.monotonic()
                for event in _events(socket):
                    cursor = event["id"]
                    patience.renew()
                    yield event
                if socket.close_code == CloseCode.NORMAL_CLOSURE:
                    return
            reason = "the server closed the connection"
        except InvalidStatus as error:
            if error.response.status_code < 500:
                raise refusal(error.response.status_code, bytes(error.response.body or b"")) from error
            reason = f"status {error.response.status_code}"
        except (OSError, WebSocketException) as error:
            reason = str(error) or type(error).__name__
        if opened_at and time.monotonic() - opened_at > LONGEST_PAUSE_SECONDS:
            patience.renew()  # it held, and only the job said nothing: one that waits in the queue may do so for hours
        lost(reason)
        patience.wait(
            Unanswered(
                f"The connection to {client.url} was lost ({reason}) and did not come back. The job goes on "
                f"without a watcher: `epochd watch {job_id}` takes it up again."
            )
        )


def _connection(client: Client, job_id: str, cursor: str) -> ClientConnection:
    address = f"ws{client.url.removeprefix('http')}/jobs/{quote(job_id, safe='')}/stream"
    return connect(
        f"{address}?after={cursor}" if cursor else address,
        additional_headers=client.headers,
        proxy=True if client.uses_proxy else None,
        max_size=None,
    )


def _events(socket: ClientConnection) -> Iterator[Json]:
    """Yield events until the connection ends."""
    for message in socket:
        text = message if isinstance(message, str) else message.decode()
        # Not splitlines(): a line separator inside a JSON string is part of the text.
        yield from (json.loads(line) for line in text.split("\n") if line)
