"""What a step frees, the next one gets again without asking the kernel, be it in another thread."""

import subprocess
import sys

import pytest

# A step's worth: four tensors of 24 MB, as large as what glibc gives back to the kernel by itself at most.
_STEPS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from worker.training import allocator

if sys.argv[1] == "kept":
    allocator.keep_freed_memory()

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [b"x" * 24_000_000 for _ in range(4)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with ThreadPoolExecutor(1) as other:
    print(*[other.submit(step).result() if number % 2 else step() for number in range(5)])
"""
_PAGES = 4 * 24_000_000 // 4096


@pytest.mark.parametrize(
    ("kept", "faults_again"), [("kept", range(_PAGES // 10)), ("not", range(_PAGES // 2, 2 * _PAGES))]
)
def test_freed_memory_is_there_for_the_next_step(kept: str, faults_again: range) -> None:
    said = subprocess.run([sys.executable, "-c", _STEPS, kept], check=True, capture_output=True, text=True).stdout
    first, *later = map(int, said.split())
    assert first > _PAGES // 2
    assert all(faults in faults_again for faults in later)
