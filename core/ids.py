"""Opaque ids: unguessable, and sorted by the millisecond of their creation."""

import secrets
import time

# Crockford's base 32, lower case: no i, l, o, u, so an id read aloud is not misheard. ASCII order is value order.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """Return e.g. `job_01jd…`: the prefix, 10 characters of time (48 bits of ms), 16 random ones (80 bits)."""
    value = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))
