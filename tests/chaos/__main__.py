"""`python -m tests.chaos`: some minutes of faults against a deployment of several processes, and the account of it.

A seed gives the same schedule of jobs and faults again; what exactly they meet is the machine's to decide. The exit
status is 1 where a promise was broken, and then the logs of all processes stay where the last line says.
"""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import play


def main() -> int:
    """Play one run and print its account."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long faults come")
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}: {wanted.seconds:.0f} s of faults, {wanted.jobs} jobs", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="epochd-chaos-"))
    account = play(
        seconds=wanted.seconds,
        jobs=wanted.jobs,
        seed=wanted.seed,
        folder=folder,
        say=lambda line: print(line, flush=True),
    )
    print(f"\n{account}")
    if account.clean:
        shutil.rmtree(folder)
        return 0
    print(f"\nNot clean. The logs of all processes are in {folder}; --seed {wanted.seed} plays it again.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
