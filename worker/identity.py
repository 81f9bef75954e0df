"""The name of this worker process, and whether the process behind such a name is still alive on this machine."""

import os
import socket

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
    return f"{machine_prefix()}{process.pid}:{process.create_time():.2f}"


def is_dead(name: str) -> bool:
    """Say whether the process of this name, of this machine, is gone."""
    pid, created = name.removeprefix(machine_prefix()).split(":")
    try:
        process = psutil.Process(int(pid))
        return f"{process.create_time():.2f}" != created or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
