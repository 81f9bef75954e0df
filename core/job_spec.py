"""What a client asks for: the body of `POST /jobs`, strictly typed, every default a sensible one.

Hyperparameters carry the names transformers uses where it has one. The trainer reads the same class, so this module
reaches nothing but pydantic.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from core.model_spec import Model, NewModel
from core.strict import Fraction, Name, ShortText, Strict, Text


class ValidationFraction(Strict):
    """Hold out this share of the dataset's rows, chosen by the seed (`held_out` says how many)."""

    fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.05

    def held_out(self, rows: int) -> int:
        """Return how many of `rows` rows are held out: at least one, and training keeps at least one."""
        return 0 if rows < 2 else min(max(round(rows * self.fraction), 1), rows - 1)


class ValidationDataset(Strict):
    """Validate on a dataset of its own."""

    dataset: ShortText


# What stands behind every row where the tokenizer is learnt or made of bytes.
END_OF_TEXT = "<|endoftext|>"

SpecialToken = Annotated[Name, StringConstraints(min_length=2, max_length=100, pattern=r"^\S+$")]


class TokenizerTraining(Strict):
    """A byte-level BPE learnt from the dataset. Small data may yield fewer tokens than asked for.

    `special_tokens` are never cut, wherever they stand in a text; the end of text is always there.
    """

    vocab_size: Annotated[int, Field(ge=257, le=262_144)] = 4096
    special_tokens: list[SpecialToken] = Field(default=[], max_length=100)

    @model_validator(mode="after")
    def _special_tokens_fit(self) -> Self:
        if len({END_OF_TEXT, *self.special_tokens}) <= len(self.special_tokens):
            raise ValueError(
                f"special_tokens must differ from each other and from {END_OF_TEXT}, which is there anyway"
            )
        if self.vocab_size < (least := 257 + len(self.special_tokens)):
            raise ValueError(f"vocab_size must be {least} at least: 256 bytes, the end of text and the special tokens")
        return self


class TrainedTokenizer(Strict):
    """Train the tokenizer on the dataset."""

    train: TokenizerTraining = TokenizerTraining()


class UploadedTokenizer(Strict):
    """Use a tokenizer that was uploaded (`POST /tokenizers`)."""

    upload: ShortText


class Sequence(Strict):
    """How rows become what the model sees.

    `document`: a row longer than `max_length` tokens becomes sequences that start `stride` tokens apart
    (default: `max_length`); one shorter than `min_length` tokens is dropped and counted. `packed`: rows are joined and
    cut to full length, and no token looks beyond its own row.
    """

    mode: Literal["document", "packed"] = "document"
    max_length: Annotated[int, Field(ge=2, le=131_072)] = 256
    stride: Annotated[int, Field(ge=1, le=131_072)] | None = None
    min_length: Annotated[int, Field(ge=2, le=131_072)] = 2

    @model_validator(mode="after")
    def _lengths_make_sense(self) -> Self:
        if self.stride is not None and self.mode == "packed":
            raise ValueError("packed rows are cut end to end: leave stride out")
        if self.stride is not None and self.stride > self.max_length:
            raise ValueError(f"stride ({self.stride}) over max_length ({self.max_length}) would leave tokens out")
        if self.min_length > self.max_length:
            raise ValueError(f"min_length ({self.min_length}) must not exceed max_length ({self.max_length})")
        return self


class Training(Strict):
    """The loop's hyperparameters. A window is `gradient_accumulation_steps` batches, the work of one update."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 3
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 16
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=65_536)] = 1
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 3e-4
    lr_scheduler: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.999
    adam_epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-8
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    early_stopping_patience: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="stop after so many epochs in a row whose validation loss was no better"
    )
    early_stopping_threshold: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="by how much a validation loss must fall below the best one to be better"
    )
    log_every: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give warmup_steps or warmup_ratio, not both")
        return self

    def warmup(self, steps: int) -> int:
        """Return the updates of warmup in a run of `steps` updates; of a ratio, rounded up as transformers does it."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return math.ceil((self.warmup_ratio or 0.0) * steps)


class Samples(Strict):
    """Text that the model writes at the end of each epoch."""

    prompts: list[Annotated[Text, StringConstraints(max_length=10_000)]] = Field(default=[], max_length=20)
    max_new_tokens: Annotated[int, Field(ge=1, le=2048)] = 40
    temperature: Annotated[float, Field(ge=0, le=10)] = Field(default=0.8, description="0: always the likeliest token")
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(default=50, description="0: no limit")
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = Field(default=None, description="default: training.seed")


class Checkpoints(Strict):
    """When the weights are published, and how many stay (the best one stays besides)."""

    every_epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    every_steps: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    keep: Annotated[int, Field(ge=1, le=10_000)] = 5


Tag = Annotated[Text, StringConstraints(min_length=1, max_length=100)]


class JobSpec(Strict):
    """A training job. Only `dataset` is required."""

    name: Name = "untitled"
    dataset: ShortText
    validation: ValidationFraction | ValidationDataset | None = ValidationFraction()
    tokenizer: Literal["bytes"] | TrainedTokenizer | UploadedTokenizer | None = Field(
        default=None,
        description="Default: trained on the dataset. None for rows of token ids, or where the model brings its own.",
    )
    model: Model = NewModel()
    sequence: Sequence = Sequence()
    training: Training = Training()
    samples: Samples = Samples()
    checkpoints: Checkpoints = Checkpoints()
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    max_failures: Annotated[int, Field(ge=1, le=1000)] = 3
    tags: dict[Tag, Tag] = Field(default={}, max_length=100)

    @model_validator(mode="after")
    def _early_stopping_has_something_to_go_by(self) -> Self:
        if self.training.early_stopping_patience is not None and self.validation is None:
            raise ValueError("training.early_stopping_patience goes by the validation loss: give validation too")
        return self

    def document(self) -> dict[str, Any]:
        """Return the spec as JSON-ready data, every default filled in."""
        return self.model_dump(mode="json")
