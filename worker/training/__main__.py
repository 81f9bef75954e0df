"""`python -m worker.training`: a process that says `ready`, takes one assignment, trains and exits.

Facts are lines on standard output, the log is on standard error. It works without any service:
`python -m worker.training < assignment.json`. With `--fork-server` it forks one such process for each that a worker
asks for.
"""

import gc
import os
import signal
import sys

from worker.training import allocator, fork_server, orphan

forks = sys.argv[1:] == ["--fork-server"]
supervised = orphan.is_supervised()
if supervised:
    orphan.die_with_parent()
# A terminal sends Ctrl-C to the whole foreground group; it is the supervisor's to answer.
signal.signal(signal.SIGINT, signal.SIG_IGN)
# The trainer works on local paths only: nothing may wait for a network, or write progress bars into the log.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Threads that wait for each other give their core away instead of spinning on it. A little slower alone, and many times
# as fast beside other work: threads that spin keep those they wait for from working.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if forks:
    # A process is forked safely while it has one thread, and NumPy's library starts others as it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

allocator.keep_freed_memory()

# Only now: these imports take seconds, and read the environment above. Python would spend a good part of that time on
# looking for garbage among what they make, which is there to stay.
gc.disable()
from worker.training.process import main  # noqa: E402

gc.enable()

if __name__ == "__main__":
    if forks:
        fork_server.serve()
    main(supervised=supervised)
