"""`python -m worker.training`: a process that says `ready`, takes one assignment, trains and exits.

Facts are lines on standard output, the log is on standard error. It works without any service:
`python -m worker.training < assignment.json`.
"""

import os
import signal

from worker.training import allocator, orphan

supervised = orphan.is_supervised()
if supervised:
    orphan.die_with_parent()
# A terminal sends Ctrl-C to the whole foreground group; it is the supervisor's to answer.
signal.signal(signal.SIGINT, signal.SIG_IGN)
# The trainer works on local paths only: nothing may wait for a network, or write progress bars into the log.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Threads that wait for each other give their core away instead of spinning on it. On 2 cores: three to five times as
# fast beside other work (a load of 6), at most 2 % slower alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

allocator.keep_freed_memory()

# Only now: these imports take seconds, and read the environment above.
from worker.training.process import main  # noqa: E402

if __name__ == "__main__":
    main(supervised=supervised)
