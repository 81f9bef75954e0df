"""What a job's trainers wrote, as a terminal shows it: line by line, and what is new as it comes."""

import time

from cli.client import Client, Json
from cli.patience import Patience
from cli.screen import note, plain
from core.job_states import TERMINAL

_PAUSE_SECONDS = 1.0
_PATIENCE_SECONDS = 300.0


def show(client: Client, job_id: str, *, follow: bool) -> None:
    """Print what there is; with `follow` what comes too, until the job has ended. Raises Refused, Unanswered."""
    patience, shown = Patience(_PATIENCE_SECONDS), dict[int, int]()
    while True:
        # Asked first: of a job that has ended nothing more comes.
        ended = patience.ask(lambda: client.get(f"/jobs/{job_id}"))["status"] in TERMINAL
        attempts = patience.ask(lambda: client.get(f"/jobs/{job_id}/logs"))["data"]
        patience.renew()
        for attempt in reversed(attempts):
            _print_new(attempt, shown)
        if ended or not follow:
            break
        time.sleep(_PAUSE_SECONDS)
    if not shown:
        note("Its trainers have written nothing: all that they had to tell is in `epochd watch`.")


def _print_new(attempt: Json, shown: dict[int, int]) -> None:
    number, lines = attempt["attempt"], attempt["lines"]
    there = attempt["text"].split("\n")
    new = lines - shown.get(number, 0)
    if number not in shown:
        note(f"attempt {number}", "bold")
    if new > len(there):
        note(f"({new - len(there):,} lines before these are not kept)")
    for line in there[max(0, len(there) - new) :] if new else []:
        plain(line)
    shown[number] = lines
