"""How fast a checkpoint's file goes out, beside nginx with sendfile on the same file, and what 50 at once take.

    python -m benchmarks.download --megabytes 1000

Needs `nginx` and `curl` on the PATH (Debian: `apt-get install nginx-light curl`). In turn, in one run, `curl` fetches
the file from either server and throws it away: one at a time, and then many at once. Prints medians, their ratio, and
by how much the API's memory grew. Both servers have one process; the clients share the machine with them.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.installation import Growth, Installation, installation
from core import checkpoints, jobs
from core.checkpoint_files import list_files
from core.settings import Settings
from core.store import open_store
from tests.services import free_port, wait_for

_NAME = "model.safetensors"


def publish(installed: Installation, data_dir: Path, megabytes: int) -> tuple[str, Path]:
    """List a checkpoint with one large file; return that file's address and where it lies."""
    job = installed.job(installed.dataset())
    store = open_store(Settings(data_dir=data_dir).store)
    with installed.work.begin() as session:
        claim = jobs.claim(session, worker="benchmark", claim_id="benchmark", lease_seconds=3600)
    assert claim is not None
    with store.incoming() as folder:
        (folder / "model").mkdir(parents=True)
        (folder / "state").mkdir()
        with (folder / "model" / _NAME).open("wb") as stream:
            for _ in range(megabytes):
                stream.write(os.urandom(10**6))
        files, numbers = list_files(folder / "model"), {"loss": 2.0, "accuracy": 0.5, "validation_loss": None}
        row = checkpoints.new(job, claim.fence, step=1, epoch=1, files=files, state_files=[], **numbers)
        store.adopt(folder, checkpoints.store_key(row))
    with installed.work.begin() as session:
        jobs.record(session, claim, [])
        checkpoints.add(session, row)
    found = next((data_dir / "store").rglob(_NAME))
    return f"{installed.client.base_url}/jobs/{job}/checkpoints/1/files/{_NAME}", found


@contextmanager
def nginx(folder: Path, served: Path) -> Iterator[str]:
    """Serve a file with one worker process of nginx, and return its address."""
    program, port = shutil.which("nginx"), free_port()
    if program is None:
        raise SystemExit("nginx is not installed here: `apt-get install nginx-light`.")
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
        events {{ worker_connections 256; }}
        http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {folder}/body;
        proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
        scgi_temp_path {folder}/scgi; server {{ listen 127.0.0.1:{port}; root {served.parent}; }} }}"""
    )
    command = [program, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "nginx.log")]
    process = subprocess.Popen(command)
    try:
        wait_for(lambda: psutil.Process(process.pid).net_connections(), what="nginx")
        yield f"http://127.0.0.1:{port}/{served.name}"
    finally:
        process.terminate()
        process.wait(10)


def fetch(address: str, key: str, size: int, at_once: int = 1) -> float:
    """Fetch a file so many times at once, and return the MB/s of all together."""
    command = ["curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{size_download}", "-H", f"Authorization: {key}", address]
    started = time.perf_counter()
    clients = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    got = [client.communicate()[0] for client in clients]
    seconds = time.perf_counter() - started
    if set(got) != {str(size)}:
        raise RuntimeError(f"{set(got)} bytes came, and not {size}")
    return at_once * size / 1e6 / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--at-once", type=int, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, installation("sqlite", Path(name)) as installed:
        address, served = publish(installed, Path(name), asked.megabytes)
        size = served.stat().st_size
        with nginx(Path(name), served) as other:
            for at_once, repeats in ((1, asked.repeats), (asked.at_once, max(1, asked.repeats // 3))):
                ours, theirs = list[float](), list[float]()
                with Growth(installed.process) as growth:
                    for _ in range(repeats):
                        theirs.append(fetch(other, installed.key, size, at_once))
                        ours.append(fetch(address, installed.key, size, at_once))
                ratio = statistics.median(mine / its for mine, its in zip(ours, theirs, strict=True))
                print(
                    f"{at_once:3} at once: epochd {statistics.median(ours):,.0f} MB/s, nginx "
                    f"{statistics.median(theirs):,.0f} MB/s, ratio {ratio:.2f} (median of pairs); "
                    f"the API's memory grew by {growth.most / 1e6:.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
