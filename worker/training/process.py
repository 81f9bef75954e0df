"""The trainer's process from its first fact to its last."""

import traceback

from transformers.utils.logging import disable_progress_bar

from worker.training.conversation import FactStream, Lines, Orders, read_assignment
from worker.training.errors import as_failed
from worker.training.facts import Ready
from worker.training.loop import train


def main(*, supervised: bool) -> None:
    """Say `ready`, read the assignment, train, and tell every fact. Whatever goes wrong becomes a `failed` fact."""
    facts, lines, orders = FactStream(), Lines(), Orders()
    disable_progress_bar()
    try:
        facts.write(Ready())
        assignment = read_assignment(lines)
        if assignment is None:
            return  # there was nothing to read
        orders.heed_sigterm()
        orders.heed(lines, supervised=supervised)
        for fact in train(assignment, orders.should_stop, orders.should_save):
            facts.write(fact)
    except BrokenPipeError:
        raise SystemExit(1) from None  # nobody listens any more
    except Exception as error:  # noqa: BLE001 - the one place where every failure becomes a fact
        failed = as_failed(error)
        if failed.code == "internal":
            traceback.print_exc()  # of every other failure the fact says all there is to say
        facts.write(failed)
