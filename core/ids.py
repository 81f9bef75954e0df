"""Opaque ids: unguessable, and sorted by the millisecond of their creation; and the hashes of what is secret."""

import hashlib
import secrets
from datetime import UTC, datetime

# Crockford's base 32, lower case: no i, l, o, u, so an id read aloud is not misheard. ASCII order is value order.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str, at: datetime | None = None) -> str:
    """Return e.g. `job_01jd…`: the prefix, 10 characters of time (48 bits of ms), 16 random ones (80 bits).

    The time is this process's, where it is not given.
    """
    milliseconds = int((at or datetime.now(UTC)).timestamp() * 1000)
    value = (milliseconds << 80) | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))


def secret_hash(presented: str) -> str:
    """Return what is stored of a secret of 256 random bits; it needs no slow hash: there is nothing to guess."""
    return hashlib.sha256(presented.encode()).hexdigest()
