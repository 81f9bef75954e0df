"""Which model a job trains: the `model` part of `POST /jobs`.

A config's fields carry the names that transformers gives them. The trainer reads the same classes.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Discriminator, Field, StringConstraints, Tag

from core.model_shapes import Gpt2Config, ModelConfig
from core.strict import Fraction, ShortText, Strict

_REPOSITORY = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
_REVISION = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)

ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,100}$")]


def _repository(text: str) -> str:
    named = _REPOSITORY.fullmatch(text) and not re.search(r"--|\.\.|[.-]/|[.-]$|\.git$", text)
    if not named:
        raise ValueError("must be the name of a model on the hub: `name` or `owner/name`, without a path or a URL")
    return text


def _revision(text: str) -> str:
    if not _REVISION.fullmatch(text) or ".." in text:
        raise ValueError("must be a branch, a tag or a commit")
    return text


class Lora(Strict):
    """Train small matrices beside the model's own, which stay as they are: a LoRA adapter, made with peft.

    The checkpoints hold the adapter alone, or with `merge` the whole model with the adapter added to its weights.
    """

    r: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[int, Field(ge=1, le=65_536)] = 16
    dropout: Fraction = 0.0
    target_modules: Annotated[list[ModuleName], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="default: every linear layer, except the one that gives the logits"
    )
    merge: bool = False


class NewModel(Strict):
    """A model with fresh weights."""

    config: ModelConfig = Gpt2Config(model_type="gpt2")


class CheckpointReference(Strict):
    """A checkpoint of an earlier job. `latest` and `best` are resolved to a number when the job is submitted."""

    job: ShortText
    epoch: Annotated[int, Field(ge=1, le=10_000)] | Literal["latest", "best"] = "latest"


class EarlierModel(Strict):
    """Go on from a checkpoint of an earlier job, with its tokenizer."""

    checkpoint: CheckpointReference
    lora: Lora | None = None


class HubModel(Strict):
    """Go on from a model of the Hugging Face hub, with its tokenizer.

    `revision` becomes a commit when a worker first takes the job up, and stays it.
    """

    hub: Annotated[str, StringConstraints(max_length=96), AfterValidator(_repository)]
    revision: Annotated[str, StringConstraints(max_length=200), AfterValidator(_revision)] = "main"
    lora: Lora | None = None


def _kind(model: Any) -> str:
    # So that a fault is told of the one kind that was meant, not of all three.
    if isinstance(model, BaseModel):
        return type(model).__name__
    meant = {"hub": HubModel, "checkpoint": EarlierModel}
    named = model if isinstance(model, dict) else {}
    return next((kind for field, kind in meant.items() if field in named), NewModel).__name__


Model = Annotated[
    Annotated[NewModel, Tag(NewModel.__name__)]
    | Annotated[EarlierModel, Tag(EarlierModel.__name__)]
    | Annotated[HubModel, Tag(HubModel.__name__)],
    Discriminator(_kind),
]
