"""A process that has done a trainer's imports, and forks trainers: each begins at once, and they share that memory."""

import gc
import logging
import os
import select
import signal
import socket
import struct
import sys
from contextlib import suppress

from worker.training import orphan

_log = logging.getLogger(__name__)

# How a process id, and the status of an exit, go through a trainer's life line.
NUMBER = struct.Struct("=i")

# What is said when the imports are done.
READY = b"r"

# Descriptors of a request: standard input, output and error, the life line, the locked working directory, and where
# there is a GPU its lock.
MOST_DESCRIPTORS = 6


def serve() -> None:
    """Fork a trainer for each request that comes through standard input, a stream socket. Call it with one thread.

    Returns in each trainer. In the fork server itself it never does: it exits with status 0 when the worker hangs up.
    A request is one byte, with the descriptors that `MOST_DESCRIPTORS` tells of. Through its life line (the end of a
    pipe) the worker hears the trainer's process id, and when it has ended its exit status as `subprocess` counts it;
    nothing at all where it could not be forked.
    """
    connection = socket.socket(fileno=os.dup(0))
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    life_lines: dict[int, int] = {}
    # What the imports made is shared with every trainer for as long as nobody writes into it, a collection included.
    gc.collect()
    gc.freeze()
    connection.sendall(READY)
    while True:
        readable, _, _ = select.select([connection.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _tell_of_exits(life_lines)
        if connection.fileno() not in readable:
            continue
        request, descriptors, _, _ = socket.recv_fds(connection, 1, MOST_DESCRIPTORS)
        if not request:
            sys.exit(0)
        fork_server = os.getpid()
        try:
            trainer = os.fork()
        except OSError as error:
            _log.error("no trainer could be forked: %s", error)
        else:
            if trainer == 0:
                for descriptor in (connection.detach(), woken, wakes, *life_lines.values()):
                    os.close(descriptor)
                _become_trainer(fork_server, descriptors)
                return
            life_lines[trainer] = os.dup(descriptors[3])
        for descriptor in descriptors:
            os.close(descriptor)


def _become_trainer(fork_server: int, descriptors: list[int]) -> None:
    """Take up the descriptors of a request, in the process that was forked for it."""
    orphan.die_with_parent()
    if os.getppid() != fork_server:
        os._exit(1)  # it died before that could be asked for
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    *streams, life_line, folder = descriptors[:5]
    os.fchdir(folder)  # and it stays open: its lock lasts as long as this process
    for standard, descriptor in enumerate(streams):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.write(life_line, NUMBER.pack(os.getpid()))
    os.close(life_line)


def _tell_of_exits(life_lines: dict[int, int]) -> None:
    for trainer in list(life_lines):
        ended, status = os.waitpid(trainer, os.WNOHANG)
        if ended:
            life_line = life_lines.pop(trainer)
            with suppress(BrokenPipeError):  # nobody wants to know
                os.write(life_line, NUMBER.pack(os.waitstatus_to_exitcode(status)))
            os.close(life_line)
