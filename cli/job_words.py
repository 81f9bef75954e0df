"""A job in a few words: for tables and lines."""

from cli.client import Json
from cli.event_text import decimal


def state(job: Json) -> str:
    """Return its state, and what was asked of it."""
    word = f"queued ({job['queue_position']})" if job["queue_position"] else str(job["status"])
    return f"{word}, {job['stop_requested']} asked" if job["stop_requested"] else word


def done(job: Json) -> str | None:
    """Return how much of it is done; None where that is not known."""
    fraction = (job["progress"] or {}).get("fraction")
    return None if fraction is None else f"{fraction:.0%}"


def epoch(job: Json) -> str | None:
    """Return the epoch it is in, of how many."""
    progress = job["progress"]
    return f"{progress['epoch']}/{job['spec']['training']['epochs']}" if progress else None


def loss(job: Json) -> str | None:
    """Return its newest loss."""
    latest = job["latest"]
    return decimal(latest["loss"]) if latest else None


def step(job: Json) -> str | None:
    """Return the update it is at, of how many."""
    at, steps = (job["progress"] or {}).get("step"), job["plan"].get("steps")
    return None if at is None else f"{at:,}/{steps:,}" if steps else f"{at:,}"


def speed(job: Json) -> str | None:
    """Return how fast it runs."""
    tokens = (job["progress"] or {}).get("tokens_per_second")
    return None if tokens is None or job["status"] != "running" else f"{tokens:,.0f}"


def time_left(job: Json) -> str | None:
    """Return how long it still takes."""
    seconds = (job["progress"] or {}).get("eta_seconds")
    return None if seconds is None or job["status"] != "running" else clock(seconds)


def clock(seconds: float) -> str:
    """Return a length of time as 1:02:03, or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def line(job: Json) -> str:
    """Return all that is known of it in one line."""
    parts = [job["id"], job["name"], state(job)]
    for words, known in (
        ("{}", done),
        ("epoch {}", epoch),
        ("step {}", step),
        ("loss {}", loss),
        ("{} left", time_left),
    ):
        value = known(job)
        if value is not None:
            parts.append(words.format(value))
    if job["error"]:
        parts.append(f"{job['error']['code']}: {job['error']['message']} {job['error']['hint']}")
    return "  ".join(parts)
