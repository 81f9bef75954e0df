"""The name of this worker process, and whether the process behind such a name is still alive on this machine."""

import os
import socket
from pathlib import Path

import psutil


def machine_prefix() -> str:
    """Return what the names of all workers start with that share this machine's process ids.

    The PID namespace is part of it: two containers may share a host name, and neither sees the other's processes.
    """
    try:
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:  # no Linux
        namespace = "host"
    return f"{socket.gethostname()}:{namespace}:"


def worker_name() -> str:
    """Return this process's name: unlike a bare process id it is not used again after a restart."""
    process = psutil.Process()
    return f"{machine_prefix()}{process.pid}:{_began(process)}"


def is_of_this_machine(name: str) -> bool:
    """Say whether `is_dead` can tell of the worker of this name."""
    return name.startswith(machine_prefix())


def is_dead(name: str) -> bool:
    """Say whether the process of this name, of this machine, is gone."""
    pid, began = name.removeprefix(machine_prefix()).split(":")
    try:
        process = psutil.Process(int(pid))
        return _began(process) != began or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _began(process: psutil.Process) -> str:
    """Return when a process began, in clock ticks since the boot: as a date it would move when the clock is set."""
    try:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:  # no Linux, or it is gone, which this tells
        return f"{process.create_time():.2f}"
