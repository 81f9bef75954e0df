"""What uvicorn writes of each request, without the tickets that stand in addresses."""

import logging
import re

_TICKET = re.compile(r"([?&]ticket=)[^&\s]+")
# The one writes of HTTP requests, the other of WebSockets.
_LOGGERS = ("uvicorn.access", "uvicorn.error")


class _WithoutTickets(logging.Filter):
    """Lets every record through, and no ticket."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True."""
        if isinstance(record.args, tuple):
            record.args = tuple(_TICKET.sub(r"\1…", arg) if isinstance(arg, str) else arg for arg in record.args)
        return True


_filter = _WithoutTickets()


def leave_out_tickets() -> None:
    """Keep tickets out of the access log. Whoever reads a log could be quicker than the page that asked for one."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)
