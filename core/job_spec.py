"""What a client asks for: the body of `POST /jobs`, strictly typed, every default a sensible one.

Hyperparameters carry the names transformers uses where it has one. The trainer reads the same class, so this module
imports nothing but pydantic.
"""

from typing import Annotated, Any, Literal, Self
from unicodedata import category

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator


def _without_nul(text: str) -> str:
    # PostgreSQL cannot store NUL in text; SQLite can. Refused on both, so that they answer alike.
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    return text


def _one_line(text: str) -> str:
    # A name stands in tables and terminals: nothing in it may break a line or steer a screen.
    if any(category(character) in ("Cc", "Zl", "Zp") for character in text):
        raise ValueError("must be one line without control characters")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_without_nul)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    """No coercion, no unknown field, no NaN; frozen, because a spec is a fact."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class ValidationFraction(Strict):
    """Hold out this share of the dataset's rows, chosen by the seed (`held_out` says how many)."""

    fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.05

    def held_out(self, rows: int) -> int:
        """Return how many of `rows` rows are held out: at least one, and training keeps at least one."""
        return 0 if rows < 2 else min(max(round(rows * self.fraction), 1), rows - 1)


class ValidationDataset(Strict):
    """Validate on a dataset of its own."""

    dataset: ShortText


class TokenizerTraining(Strict):
    """A byte-level BPE learnt from the dataset. Small data may yield fewer tokens than asked for."""

    vocab_size: Annotated[int, Field(ge=257, le=262_144)] = 4096


class TrainedTokenizer(Strict):
    """Train the tokenizer on the dataset."""

    train: TokenizerTraining = TokenizerTraining()


class Gpt2Config(Strict):
    """The shape of a GPT-2; vocabulary and positions follow from the tokenizer and `sequence.max_length`."""

    model_type: Literal["gpt2"]
    n_layer: Annotated[int, Field(ge=1, le=200)] = 4
    n_head: Annotated[int, Field(ge=1, le=256)] = 4
    n_embd: Annotated[int, Field(ge=8, le=32_768)] = 256
    n_inner: Annotated[int, Field(ge=8, le=131_072)] | None = None
    activation_function: Literal["gelu_new", "gelu", "relu", "silu"] = "gelu_new"
    resid_pdrop: Fraction = 0.1
    embd_pdrop: Fraction = 0.1
    attn_pdrop: Fraction = 0.1
    layer_norm_epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    initializer_range: Annotated[float, Field(gt=0, lt=1)] = 0.02

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        return self


class LlamaConfig(Strict):
    """The shape of a Llama; vocabulary and positions follow from the tokenizer and `sequence.max_length`."""

    model_type: Literal["llama"]
    hidden_size: Annotated[int, Field(ge=8, le=32_768)] = 256
    intermediate_size: Annotated[int, Field(ge=8, le=131_072)] = 704
    num_hidden_layers: Annotated[int, Field(ge=1, le=200)] = 4
    num_attention_heads: Annotated[int, Field(ge=1, le=256)] = 4
    num_key_value_heads: Annotated[int, Field(ge=1, le=256)] | None = None
    attention_dropout: Fraction = 0.0
    rms_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    rope_theta: Annotated[float, Field(gt=0, le=1e9)] = 10_000.0
    tie_word_embeddings: bool = False
    initializer_range: Annotated[float, Field(gt=0, lt=1)] = 0.02

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        heads, groups = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if self.hidden_size % heads or (self.hidden_size // heads) % 2:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be an even multiple of num_attention_heads ({heads})"
            )
        if heads % groups:
            raise ValueError(f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({groups})")
        return self


ModelConfig = Annotated[Gpt2Config | LlamaConfig, Field(discriminator="model_type")]


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


class Sequence(Strict):
    """How rows become what the model sees.

    `document`: a row longer than `max_length` tokens becomes sequences that start `stride` tokens apart
    (default: `max_length`); one shorter than `min_length` tokens is dropped and counted.
    """

    mode: Literal["document"] = "document"
    max_length: Annotated[int, Field(ge=2, le=131_072)] = 256
    stride: Annotated[int, Field(ge=1, le=131_072)] | None = None
    min_length: Annotated[int, Field(ge=2, le=131_072)] = 2

    @model_validator(mode="after")
    def _lengths_make_sense(self) -> Self:
        if self.stride is not None and self.stride > self.max_length:
            raise ValueError(f"stride ({self.stride}) over max_length ({self.max_length}) would leave tokens out")
        if self.min_length > self.max_length:
            raise ValueError(f"min_length ({self.min_length}) must not exceed max_length ({self.max_length})")
        return self


class Training(Strict):
    """The loop's hyperparameters. A window is `gradient_accumulation_steps` batches, the work of one update."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 3
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
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    log_every: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give warmup_steps or warmup_ratio, not both")
        return self

    def warmup(self, steps: int) -> int:
        """Return the updates of warmup in a run of `steps` updates."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return round((self.warmup_ratio or 0.0) * steps)


class Samples(Strict):
    """Text that the model writes at the end of each epoch."""

    prompts: Annotated[list[Annotated[Text, StringConstraints(max_length=10_000)]], Field(max_length=20)] = []
    max_new_tokens: Annotated[int, Field(ge=1, le=2048)] = 40
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.8


class Checkpoints(Strict):
    """When the weights are published, and how many stay (the best one stays besides)."""

    every_epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    every_steps: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    keep: Annotated[int, Field(ge=1, le=10_000)] = 5


Tag = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_without_nul)]


class JobSpec(Strict):
    """A training job. Only `dataset` is required."""

    name: Annotated[ShortText, AfterValidator(_one_line)] = "untitled"
    dataset: ShortText
    validation: ValidationFraction | ValidationDataset | None = ValidationFraction()
    tokenizer: Literal["bytes"] | TrainedTokenizer | None = Field(
        default=None,
        description="Default: trained on the dataset. None for rows of token ids, or where the model brings its own.",
    )
    model: NewModel | EarlierModel = NewModel()
    sequence: Sequence = Sequence()
    training: Training = Training()
    samples: Samples = Samples()
    checkpoints: Checkpoints = Checkpoints()
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    max_failures: Annotated[int, Field(ge=1, le=1000)] = 3
    tags: Annotated[dict[Tag, Tag], Field(max_length=20)] = {}

    def document(self) -> dict[str, Any]:
        """Return the spec as JSON-ready data, every default filled in."""
        return self.model_dump(mode="json")
