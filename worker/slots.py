"""Where trainers run: one slot for each GPU of this worker, or so many on the CPU, each with its fork server."""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

import structlog

from core import gpus
from core.settings import Settings
from worker.fork_server import ForkServer, Limits
from worker.trainer_process import TrainerProcess

_log = structlog.get_logger()


class Slot:
    """One place for one trainer at a time. A fork server waits in it with a trainer's imports done."""

    def __init__(
        self, gpu: str | None, environment: dict[str, str], starter: ThreadPoolExecutor, limits: Limits
    ) -> None:
        self._gpu, self._environment, self._starter, self._limits = gpu, environment, starter, limits
        self._fork_server: ForkServer | None = None
        self._closed = False
        self._lock = Lock()

    def warm_up(self) -> ForkServer | None:
        """See to it that the fork server runs, its imports done or not yet; None once the slot is closed."""
        with self._lock:
            if not (self._closed or (self._fork_server and self._fork_server.alive)):
                # The kernel ends it with the thread that started it: this one lives as long as the worker.
                self._fork_server = self._starter.submit(ForkServer, self._environment, self._limits).result()
            return None if self._closed else self._fork_server

    @contextmanager
    def trainer(self, give_up: Callable[[], bool]) -> Iterator[TrainerProcess | None]:
        """Lend a trainer that can start at once; it is killed at the end, if it was started and still runs.

        Waits for the fork server where that is not ready. None where it died of its imports, where the caller gave up,
        and where a trainer of another worker has this slot's GPU, be it one whose worker is gone.
        """
        fork_server = self.warm_up()
        if not (fork_server and fork_server.wait_until_ready(give_up)):
            yield None
            return
        trainer = TrainerProcess(fork_server, None if self._gpu is None else _gpu_lock(self._gpu))
        took = trainer.take_gpu()
        if not took:
            _log.info("gpu_taken", gpu=self._gpu, effect="no job starts here until the trainer that has it ends")
        try:
            yield trainer if took else None
        finally:
            trainer.kill()

    def close(self) -> None:
        """End the fork server, for good."""
        with self._lock:
            self._closed = True
            if self._fork_server:
                self._fork_server.kill()


class Slots:
    """All slots of this worker. Raises Unusable where the settings name a GPU that is not there."""

    def __init__(self, settings: Settings) -> None:
        found = gpus.named(settings.gpus)
        starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")
        limits = Limits(settings.trainer_memory_bytes, settings.trainer_open_files)
        if found:
            self._all = [Slot(gpu, {"CUDA_VISIBLE_DEVICES": gpu}, starter, limits) for gpu in found]
        else:
            environment = _share_of_cpu(settings)
            self._all = [Slot(None, environment, starter, limits) for _ in range(settings.cpu_slots)]
        self._free = list(self._all)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def free(self) -> int:
        """How many are not in use by this worker."""
        return len(self._free)

    @contextmanager
    def one(self) -> Iterator[Slot | None]:
        """A slot for as long as the block runs; None where all are in use."""
        with self._lock:
            slot = self._free.pop(0) if self._free else None
        try:
            yield slot
        finally:
            if slot:
                with self._lock:
                    self._free.append(slot)

    def warm_up(self) -> None:
        """See to it that the fork server of each runs."""
        for slot in self._all:
            slot.warm_up()

    def close(self) -> None:
        """End every fork server, for good."""
        for slot in self._all:
            slot.close()


def _share_of_cpu(settings: Settings) -> dict[str, str]:
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if settings.gpus == gpus.NONE else {}
    if settings.cpu_slots == 1 or "OMP_NUM_THREADS" in os.environ:
        return hidden
    # Each would else start a thread for every core, and they would take them from each other.
    return hidden | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // settings.cpu_slots))}


def _gpu_lock(gpu: str) -> int:
    """Open the file whose lock means that a trainer is on the GPU: one for all workers of this machine."""
    path = Path(tempfile.gettempdir()) / f"epochd-gpu-{gpu.replace('/', '-')}.lock"
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
