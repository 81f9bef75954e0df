"""The C library's allocator, told that a training step frees nothing for good: the next one asks for the same again."""

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_INT_MAX = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep what is freed in the process, from now on. Without glibc nothing changes.

    Otherwise the largest tensors of each step go back to the kernel and come again as zeroed pages, one fault for
    every 4 KiB.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)  # one heap for all threads: what one frees is there for all
        libc.mallopt(_M_MMAP_MAX, 0)  # large blocks too come from the heap ...
        libc.mallopt(_M_TRIM_THRESHOLD, _INT_MAX)  # ... whose end is not given back
