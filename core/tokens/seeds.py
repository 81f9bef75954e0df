"""Every random choice of a run, derived from its seed, its purpose and its place: there is no state to save."""

import hashlib


def derive(seed: int, purpose: str, *place: int) -> int:
    """Return a 63-bit seed for one purpose at one place of the run, e.g. `derive(seed, "dropout", step)`."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{place}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
