"""A link that can be cut, and can stall: a TCP proxy in front of a server on this machine."""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto

# How psycopg begins and commits: a query of PostgreSQL's simple protocol, in a packet of its own.
_BEGIN, _COMMIT = b"\0BEGIN", b"Q\0\0\0\x0bCOMMIT\0"


class Cut(Enum):
    """Where a COMMIT's link breaks."""

    BEFORE = auto()  # the server never gets it, and rolls back
    AFTER = auto()  # the server has committed, and the client never hears of it


class Proxy:
    """Passes bytes between clients and a port, until it is cut."""

    def __init__(self, port: int) -> None:
        self._target, self._cut, self._flows = port, threading.Event(), threading.Event()
        self._flows.set()
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._at_commit: Callable[[bytes], Cut | None] = lambda _: None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        self._cut.set()
        self.blip()

    def mend(self) -> None:
        """Let connections through again."""
        self._cut.clear()

    def blip(self) -> None:
        """Break every connection there is now."""
        with self._lock:
            broken, self._sockets = self._sockets, []
        for end in broken:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Hold back every byte, and break nothing: both ends wait."""
        self._flows.clear()

    def flow(self) -> None:
        """Pass on what was held back, and what comes."""
        self._flows.set()

    def cut_commits(self, where: Callable[[bytes], Cut | None]) -> None:
        """Ask at every COMMIT, one at a time, whether its link breaks: given what the client said since its BEGIN."""
        self._at_commit = where

    def close(self) -> None:
        """End it."""
        self.cut()
        self.flow()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._cut.is_set():
                    client.close()
                else:
                    threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            with self._lock:
                self._sockets += [client, server]
            other = {client: server, server: client}
            said = b""
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    self._flows.wait()
                    if not data:
                        return
                    if ready is client:
                        said = data if data[4:10] == _BEGIN else said + data
                        if data == _COMMIT and (cut := self._ask(said)):
                            if cut is Cut.AFTER:
                                server.sendall(data)
                                server.recv(65536)  # its answer, which goes no further
                            return
                    other[ready].sendall(data)

    def _ask(self, said: bytes) -> Cut | None:
        with self._lock:
            return self._at_commit(said)
