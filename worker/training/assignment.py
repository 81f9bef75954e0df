"""What a trainer is told: one JSON line on its standard input, then orders."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from core.dataset_files import DataFile
from core.job_spec import JobSpec


class TokenizerFile(BaseModel):
    """An uploaded tokenizer: its `tokenizer.json`, and which of its tokens stands behind every row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    end_of_text: str


class Assignment(BaseModel):
    """A run to do, in local paths only. How they came here, and where the checkpoints go, is the supervisor's work.

    `tokenizer` is there where the spec names an uploaded one. `base_model` is the folder of a model to start from (of
    an earlier job's checkpoint, or from the hub), and comes together with `resume_from` where only an adapter is
    trained; `resume_from` a checkpoint of this job, whole.
    Each checkpoint appears in `output_dir` as one complete folder with `model/` and `state/` in it. What is made of the
    datasets is kept in `cache_dir`, which all runs of a machine may share, up to `cache_max_bytes`; None: it is not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: JobSpec
    dataset: DataFile
    validation_dataset: DataFile | None = None
    tokenizer: TokenizerFile | None = None
    base_model: Path | None = None
    resume_from: Path | None = None
    output_dir: Path
    cache_dir: Path | None = None
    cache_max_bytes: int = 20 * 2**30
    device: str = "auto"


class Order(BaseModel):
    """After the update in hand: save a checkpoint, then go on (`save`), or say `stopped` and exit (`stop`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Literal["save", "stop"]
