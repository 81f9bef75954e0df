"""The settings of an installation: environment variables that start with `EPOCHD_`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from core.errors import Unusable
from core.exposure import require_password, require_shelter


class Settings(BaseSettings):
    """Where things are, and the limits of this server. Sizes are bytes, times are seconds."""

    model_config = SettingsConfigDict(env_prefix="EPOCHD_", extra="ignore")

    data_dir: Path = Path(".epochd")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    allowed_hosts: list[str] = ["127.0.0.1", "localhost", "[::1]"]

    # Declares that nobody else reaches the address that the API listens on: a proxy with TLS stands in front, or the
    # port is published on the loopback address alone.
    tls_in_front: bool = False

    # Left unset they follow from data_dir: the embedded SQLite, the local stack's own Redis, a local folder.
    database_url: str = ""
    redis_url: str = ""
    store_url: str = ""

    max_upload_bytes: int = 10 * 2**30
    # Uploads that are under way, of one owner; and how long one that nobody goes on with is kept.
    max_open_uploads: Annotated[int, Field(ge=1)] = 20
    upload_keep_seconds: Annotated[float, Field(gt=0)] = 86_400.0
    # What looking through one upload may take.
    inspection_memory_bytes: Annotated[int, Field(ge=2**29)] = 8 * 2**30
    inspection_seconds: Annotated[int, Field(ge=1)] = 1800
    max_tokenizer_bytes: int = 64 * 2**20
    max_body_bytes: int = 2**20
    max_parameters: int = 2_000_000_000
    max_sequence_length: int = 8192
    max_batch_size: Annotated[int, Field(ge=1)] = 4096
    max_epochs: Annotated[int, Field(ge=1)] = 10_000
    max_tags: Annotated[int, Field(ge=0)] = 20
    # Of one owner: what datasets, tokenizers and checkpoints take; and jobs that have not ended.
    max_storage_bytes: Annotated[int, Field(ge=0)] = 500 * 2**30
    max_live_jobs: Annotated[int, Field(ge=1)] = 1000
    max_page_size: Annotated[int, Field(ge=1)] = 200
    # Who follows jobs with one key at one API process; and what such a process answers at once.
    max_watchers_per_key: Annotated[int, Field(ge=1)] = 1000
    max_requests_at_once: Annotated[int, Field(ge=1)] = 500
    # A client has so long for the head of a request, and again for each 16 KiB of its body.
    slow_client_seconds: Annotated[float, Field(gt=0)] = 30.0
    # A worker keeps tokens and tokenizers for the next job on the same dataset; the longest unused make room.
    cache_max_bytes: Annotated[int, Field(ge=0)] = 20 * 2**30

    # One trainer for each: `all`, `none`, or names and numbers as `nvidia-smi -L` shows them, with commas between.
    gpus: Annotated[str, Field(pattern=r"^\s*[\w-]+(\s*,\s*[\w-]+)*\s*$")] = "all"
    # Where there is no GPU to train on: how many trainers share the cores.
    cpu_slots: Annotated[int, Field(ge=1, le=1024)] = 1
    # Of each trainer, where set: its own memory (not that of a GPU), and files that are open at once.
    trainer_memory_bytes: Annotated[int, Field(ge=2**30)] | None = None
    trainer_open_files: Annotated[int, Field(ge=64)] | None = None
    # How long a worker that cannot be heard keeps its job.
    lease_seconds: float = 90.0
    # A trainer that says nothing for this long is taken for hung.
    stall_seconds: float = 1800.0
    # How long a trainer has to answer a stop request with a checkpoint.
    stop_grace_seconds: float = 10.0
    # Touched by a worker every few seconds while it sees its database: what a container's health check looks at.
    heartbeat_file: Path | None = None

    @property
    def lease_renewal_seconds(self) -> float:
        """How often a supervisor renews its lease: it may fail a few times."""
        return self.lease_seconds / 6

    @property
    def lease_surrender_seconds(self) -> float:
        """A supervisor that could not renew for so long stops its trainer: well before its successor may start."""
        return self.lease_seconds * 2 / 3

    @property
    def database(self) -> str:
        """The SQLAlchemy URL: SQLite in the data directory by default."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'epochd.sqlite3'}"

    @property
    def redis(self) -> str:
        """The Redis URL: the local stack's private socket by default."""
        return self.redis_url or f"unix://{self.data_dir.resolve() / 'redis.sock'}"

    @property
    def store(self) -> str:
        """The URL of the folder that holds datasets and checkpoints."""
        return self.store_url or (self.data_dir.resolve() / "store").as_uri()

    @property
    def cache_dir(self) -> Path:
        """Where a worker keeps what it made of datasets: on this machine's own disk, and worth nothing elsewhere."""
        return self.data_dir.resolve() / "cache"

    @property
    def hub_dir(self) -> Path:
        """Where a worker keeps models that it fetched from the hub; what is deleted here is fetched again."""
        return self.data_dir.resolve() / "hub"

    @property
    def key_file(self) -> Path:
        """Where the first key lies, readable by its owner alone; the CLI finds it here."""
        return self.data_dir / "key"


def load_settings() -> Settings:
    """Read the environment. Raises Unusable naming the variable that is wrong, or that opens a door."""
    try:
        settings = Settings()
    except ValidationError as error:
        faults = "; ".join(f"EPOCHD_{str(f['loc'][0]).upper()}: {f['msg']}" for f in error.errors())
        raise Unusable(f"The settings cannot be used: {faults}. Correct the environment variable.") from error
    except SettingsError as error:
        raise Unusable(
            f"The settings cannot be used: {error}. A list is written as JSON: EPOCHD_ALLOWED_HOSTS='[\"localhost\"]'."
        ) from error
    require_shelter(settings.host, tls_in_front=settings.tls_in_front)
    require_password(settings.redis)
    return settings
