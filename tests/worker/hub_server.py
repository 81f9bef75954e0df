"""A small hub: a real HTTP server that answers as the Hugging Face hub does for what a model's download asks."""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.worker.training.tiny import GPT2, assignment, last_checkpoint, run, texts

Files = dict[str, bytes]

_API = re.compile(r"/api/models/(?P<name>.+?)(/(?P<what>revision|tree)/(?P<revision>.+?))?/?")
_FILE = re.compile(r"/(?P<name>.+?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Repository:
    """One model: its commits, what each branch points to, and the error that the hub answers with instead, if any."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    error: tuple[int, str] | None = None
    only_files_fail: bool = False
    damaged: frozenset[str] = frozenset()  # files that do not have the hash they are listed with

    def push(self, files: Files, branch: str = "main") -> str:
        """Put a commit on a branch and return its hash."""
        digest = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[digest] = files
        self.branches[branch] = digest
        return digest


class HubServer:
    """Repositories by name. `asked` is every request; `busy` answers that many with 503; `stall` holds the weights."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.busy = 0
        self.stall: Event | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self, body=True)

            def do_HEAD(self) -> None:
                hub._answer(self, body=False)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, files: Files, **fields: Any) -> Repository:
        """Put a model on the hub."""
        self.repositories[name] = Repository(**fields)
        self.repositories[name].push(files)
        return self.repositories[name]

    def fetched(self, suffix: str) -> list[str]:
        """Return the whole files ending so that were asked for."""
        return [line for line in self.asked if line.startswith("GET ") and line.endswith(suffix)]

    def _answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = unquote(urlsplit(request.path).path)
        ranged = request.headers.get("Range", "")
        self.asked.append(f"{request.command} {path}" + (f" {ranged}" if ranged else ""))
        if self.busy:
            self.busy -= 1
            return _send(request, 503, b"busy", body=body)
        match = _API.fullmatch(path) or _FILE.fullmatch(path)
        if match is None:
            return _send(request, 404, b"{}", body=body)
        asked = match.groupdict()
        repository, revision = self.repositories.get(asked["name"]), asked["revision"] or "main"
        commit = repository.branches.get(revision, revision) if repository else ""
        if error := _error(repository, commit, asked.get("file")):
            status, code = error
            return _send(request, status, b"{}", {"X-Error-Code": code}, body=body)
        assert repository
        files = repository.commits[commit]
        if name := asked.get("file"):
            if self.stall and body and name.endswith(".safetensors") and not ranged:
                self.stall.wait()
            return _send_file(request, files[name], commit, ranged, body=body)
        tree = [_entry(path, data, repository) for path, data in files.items()]
        model = {"id": asked["name"], "sha": commit, "siblings": [{"rfilename": path} for path in files]}
        document = json.dumps(tree if asked["what"] == "tree" else model).encode()
        return _send(request, 200, document, {"Content-Type": "application/json"}, body=body)


def _error(repository: Repository | None, commit: str, file: str | None) -> tuple[int, str] | None:
    """Return the status and the code that the hub refuses with, if it does."""
    if repository is None:
        return 401, "RepoNotFound"
    if repository.error and (file or not repository.only_files_fail):
        return repository.error
    if commit not in repository.commits:
        return 404, "RevisionNotFound"
    return (404, "EntryNotFound") if file and file not in repository.commits[commit] else None


def _entry(path: str, data: bytes, repository: Repository) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if path.endswith((".safetensors", ".bin")):
        sha256 = hashlib.sha256(b"another" if path in repository.damaged else data).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
    return entry


def _send_file(request: BaseHTTPRequestHandler, data: bytes, commit: str, ranged: str, *, body: bool) -> None:
    headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
    if match := re.fullmatch(r"bytes=(\d+)-(\d*)", ranged):
        start, end = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return _send(request, 206, data[start : end + 1], headers, body=body)
    return _send(request, 200, data, headers, body=body)


def _send(
    request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str] | None = None, *, body: bool
) -> None:
    try:
        request.send_response(status)
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if body:
            request.wfile.write(data)
    except OSError:
        pass  # whoever asked is gone


def model_files(folder: Path, config: dict[str, Any] | None = None, seed: int = 0) -> Files:
    """A tiny model with the tokenizer of bytes, as `save_pretrained` leaves it."""
    training = {"epochs": 1, "seed": seed}
    trained = run(assignment(folder, texts(8), model={"config": config or GPT2}, training=training))
    files = {path.name: path.read_bytes() for path in (last_checkpoint(trained) / "model").iterdir()}
    shutil.rmtree(folder)
    return files
