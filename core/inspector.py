"""Looking through an upload, as its receiver sees it: in a process of its own, unless the file is small and plain."""

import os
import signal
import subprocess
import sys

from core.errors import InvalidInput
from core.inspection import TOO_LARGE, Order, Outcome, inspect_upload
from core.plain_form import is_plain

# Text of this size is looked through sooner than a process starts, and reading it line by line can do no harm.
_SMALL_BYTES = 2**18


def look_through(order: Order) -> Outcome:
    """Return what was found in a usable file; its plain form is there then.

    Raises InvalidInput where it is not usable, or not within the limits, and OSError where the disk is full.
    """
    small = is_plain(order.format, order.encoding) and order.path.stat().st_size <= _SMALL_BYTES
    outcome = inspect_upload(order) if small else _in_a_process(order)
    if outcome.errno is not None:
        raise OSError(outcome.errno, outcome.detail)
    if outcome.report is None:
        raise InvalidInput(outcome.detail, outcome.faults)
    return outcome


def _in_a_process(order: Order) -> Outcome:
    done = subprocess.run(
        [sys.executable, "-m", "core.inspection"],
        input=order.model_dump_json().encode(),
        stdout=subprocess.PIPE,
        check=False,
        start_new_session=True,
        cwd="/",
        # It gets no key and no address of a database or a queue.
        env={name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")},
    )
    if done.returncode == 0:
        return Outcome.model_validate_json(done.stdout)
    if done.returncode == -signal.SIGXCPU:
        return Outcome(
            detail=f"Reading the file takes longer than the {order.max_seconds} s of computing that this server allows "
            "(EPOCHD_INSPECTION_SECONDS). Upload it in parts."
        )
    if done.returncode == -signal.SIGKILL:  # the kernel, for want of memory
        return Outcome(detail=TOO_LARGE)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Outcome(
            detail=f"The file is damaged, or was made to do damage: reading it ended in {name}. Write it anew."
        )
    raise RuntimeError(f"the process that looks through uploads ended with status {done.returncode}")
