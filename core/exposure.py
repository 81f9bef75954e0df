"""What of an installation can be reached from elsewhere: refused, unless it is told that this is safe."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from core.errors import Unusable


def require_shelter(host: str, *, tls_in_front: bool) -> None:
    """Raise Unusable where the API would listen for other machines and nothing is said to stand between."""
    if not (tls_in_front or _is_loopback(host)):
        raise Unusable(
            f"EPOCHD_HOST={host or '(empty)'} lets other machines reach the API, which speaks no TLS: keys would be "
            "readable on their way. Put a proxy with TLS in front of it (docs/deployment.md shows how) and say so with "
            "EPOCHD_TLS_IN_FRONT=true, or leave EPOCHD_HOST at 127.0.0.1."
        )


def require_password(redis_url: str) -> None:
    """Raise Unusable where the Redis is on another machine and asks for no password: it would serve anyone there."""
    try:
        parts = urlsplit(redis_url)
        host, password = parts.hostname, parts.password
    except ValueError as error:
        raise Unusable("EPOCHD_REDIS_URL is not an address. Use redis://:PASSWORD@HOST:6379/0.") from error
    if parts.scheme == "unix" or password or host is None or _is_loopback(host):
        return
    raise Unusable(
        f"EPOCHD_REDIS_URL names a Redis at {host} without a password: whoever reaches it could read every job's "
        "events and write false ones. Give that Redis a password (requirepass), and put it into the address: "
        "redis://:PASSWORD@HOST:6379/0."
    )


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
