"""What uvicorn writes of each request, without the tickets that stand in addresses, nor keys that should not."""

import logging
import re

_SECRET = re.compile(r"(?<=[?&]ticket=)[^&\s]+|(?<=epochd_)[0-9a-f]{8}_[\w-]+")
# The one writes of HTTP requests, the other of WebSockets.
_LOGGERS = ("uvicorn.access", "uvicorn.error")


class _WithoutSecrets(logging.Filter):
    """Lets every record through, and no ticket or key."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True."""
        if isinstance(record.args, tuple):
            record.args = tuple(_SECRET.sub("…", arg) if isinstance(arg, str) else arg for arg in record.args)
        return True


_filter = _WithoutSecrets()


def leave_out_secrets() -> None:
    """Keep secrets out of the access log. Who reads it could be quicker than the page that asked for a ticket."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)
