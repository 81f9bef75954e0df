"""The shapes of models with fresh weights: an allow-list of transformers' small decoders, and their exact sizes.

Vocabulary and positions follow from the tokenizer and `sequence.max_length`; sliding windows are off.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from core.strict import Fraction, Strict

Layers = Annotated[int, Field(ge=1, le=200)]
Heads = Annotated[int, Field(ge=1, le=256)]
Width = Annotated[int, Field(ge=8, le=32_768)]
InnerWidth = Annotated[int, Field(ge=8, le=131_072)]
Small = Annotated[float, Field(gt=0, lt=1)]


class Gpt2Config(Strict):
    """The shape of a GPT-2."""

    model_type: Literal["gpt2"]
    n_layer: Layers = 4
    n_head: Heads = 4
    n_embd: Width = 256
    n_inner: InnerWidth | None = None
    activation_function: Literal["gelu_new", "gelu", "relu", "silu"] = "gelu_new"
    resid_pdrop: Fraction = 0.1
    embd_pdrop: Fraction = 0.1
    attn_pdrop: Fraction = 0.1
    layer_norm_epsilon: Small = 1e-5
    initializer_range: Small = 0.02

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        return self

    def parameters(self, vocab_size: int, positions: int) -> int:
        """Return the exact count of weights, tied ones once."""
        width, inner = self.n_embd, self.n_inner or 4 * self.n_embd
        attention = width * 3 * width + 3 * width + width * width + width
        mlp = width * inner + inner + inner * width + width
        norms = 4 * width
        return (vocab_size + positions) * width + self.n_layer * (attention + mlp + norms) + 2 * width

    def arguments(self, positions: int) -> dict[str, Any]:
        """Return what transformers' config class of this `model_type` takes."""
        return self.model_dump(exclude={"model_type"}) | {"n_positions": positions}


class RotaryConfig(Strict):
    """What the models with rotary positions share; as it stands, without biases and with a gated MLP, a Llama."""

    hidden_size: Width = 256
    intermediate_size: InnerWidth = 704
    num_hidden_layers: Layers = 4
    num_attention_heads: Heads = 4
    attention_dropout: Fraction = 0.0
    rope_theta: Annotated[float, Field(gt=0, le=1e9)] = 10_000.0
    tie_word_embeddings: bool = False
    initializer_range: Small = 0.02

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        width, heads = self.hidden_size, self.num_attention_heads
        if width % heads or width // heads % 2:
            raise ValueError(f"hidden_size ({width}) must be an even multiple of num_attention_heads ({heads})")
        return self

    @property
    def head_width(self) -> int:
        """How wide one head of attention is."""
        return self.hidden_size // self.num_attention_heads

    @property
    def key_value_width(self) -> int:
        """How wide the keys are, and the values."""
        return self.hidden_size

    def parameters(self, vocab_size: int, positions: int) -> int:  # noqa: ARG002 - rotary positions have no weights
        """Return the exact count of weights, tied ones once."""
        embeddings = vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * self._in_layer() + self.hidden_size

    def arguments(self, positions: int) -> dict[str, Any]:
        """Return what transformers' config class of this `model_type` takes."""
        shape = self.model_dump(exclude={"model_type", "rope_theta", "partial_rotary_factor"})
        return shape | {"max_position_embeddings": positions, "rope_parameters": self._rope()}

    def _in_layer(self) -> int:
        width, inner = self.hidden_size, self.intermediate_size
        return self._in_attention() + 3 * width * inner + 2 * width

    def _in_attention(self) -> int:
        return 2 * self.hidden_size * (self.hidden_size + self.key_value_width)

    def _rope(self) -> dict[str, Any]:
        return {"rope_type": "default", "rope_theta": self.rope_theta}


class GroupedConfig(RotaryConfig):
    """Several heads of queries may share one of keys and values."""

    num_key_value_heads: Heads | None = None

    @model_validator(mode="after")
    def _groups_divide_heads(self) -> Self:
        heads, groups = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if heads % groups:
            raise ValueError(f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({groups})")
        return self

    @property
    def key_value_width(self) -> int:
        """How wide the keys are, and the values."""
        return self.head_width * (self.num_key_value_heads or self.num_attention_heads)

    def arguments(self, positions: int) -> dict[str, Any]:
        """Return what transformers' config takes; not every one knows None for as many as there are heads."""
        groups = self.num_key_value_heads or self.num_attention_heads
        return super().arguments(positions) | {"num_key_value_heads": groups}


class PartlyRotaryConfig(RotaryConfig):
    """Only a part of each head is turned by its position."""

    partial_rotary_factor: Annotated[float, Field(gt=0, le=1)] = 0.25

    @model_validator(mode="after")
    def _an_even_part_is_turned(self) -> Self:
        turned = int(self.head_width * self.partial_rotary_factor)
        if turned < 2 or turned % 2:
            raise ValueError(
                f"partial_rotary_factor ({self.partial_rotary_factor}) turns {turned} of the {self.head_width} numbers "
                "of a head: make that an even number, 2 at least"
            )
        return self

    def _rope(self) -> dict[str, Any]:
        return super()._rope() | {"partial_rotary_factor": self.partial_rotary_factor}


class RmsConfig(GroupedConfig):
    """Layers are normalised by their root mean square."""

    rms_norm_eps: Small = 1e-6


class LlamaConfig(RmsConfig):
    """The shape of a Llama."""

    model_type: Literal["llama"]


class MistralConfig(RmsConfig):
    """The shape of a Mistral."""

    model_type: Literal["mistral"]

    def arguments(self, positions: int) -> dict[str, Any]:
        """Return what transformers' config takes; its own default is a sliding window."""
        return super().arguments(positions) | {"sliding_window": None}


class Qwen2Config(RmsConfig):
    """The shape of a Qwen2 or Qwen2.5: queries, keys and values have biases."""

    model_type: Literal["qwen2"]

    def _in_attention(self) -> int:
        return super()._in_attention() + self.hidden_size + 2 * self.key_value_width


class Qwen3Config(RmsConfig):
    """The shape of a Qwen3: the queries and keys of each head are normalised."""

    model_type: Literal["qwen3"]

    def arguments(self, positions: int) -> dict[str, Any]:
        """Return what transformers' config takes."""
        return super().arguments(positions) | {"head_dim": self.head_width}

    def _in_attention(self) -> int:
        return super()._in_attention() + 2 * self.head_width


class Olmo2Config(RmsConfig):
    """The shape of an OLMo 2: queries and keys are normalised, and layers after their work instead of before."""

    model_type: Literal["olmo2"]

    def _in_attention(self) -> int:
        return super()._in_attention() + self.hidden_size + self.key_value_width


class SmolLM3Config(RmsConfig):
    """The shape of a SmolLM3: every fourth layer knows no positions."""

    model_type: Literal["smollm3"]
    tie_word_embeddings: bool = True


class GemmaConfig(RmsConfig):
    """The shape of a Gemma (the first)."""

    model_type: Literal["gemma"]
    tie_word_embeddings: bool = True

    def arguments(self, positions: int) -> dict[str, Any]:
        """Return what transformers' config takes."""
        return super().arguments(positions) | {"head_dim": self.head_width}


class StableLmConfig(GroupedConfig, PartlyRotaryConfig):
    """The shape of a StableLM."""

    model_type: Literal["stablelm"]
    hidden_dropout: Fraction = 0.0
    layer_norm_eps: Small = 1e-5

    def parameters(self, vocab_size: int, positions: int) -> int:
        """Return the exact count of weights: norms have biases."""
        return super().parameters(vocab_size, positions) + (2 * self.num_hidden_layers + 1) * self.hidden_size


class BiasedConfig(RotaryConfig):
    """Biases everywhere, in the norms too, and an MLP without a gate."""

    intermediate_size: InnerWidth = 1024

    def parameters(self, vocab_size: int, positions: int) -> int:
        """Return the exact count of weights."""
        return super().parameters(vocab_size, positions) + self.hidden_size

    def _in_attention(self) -> int:
        return super()._in_attention() + 2 * self.hidden_size + 2 * self.key_value_width

    def _in_layer(self) -> int:
        width, inner = self.hidden_size, self.intermediate_size
        return self._in_attention() + 2 * width * inner + inner + width + 4 * width


class GptNeoXConfig(BiasedConfig, PartlyRotaryConfig):
    """The shape of a GPT-NeoX, such as Pythia."""

    model_type: Literal["gpt_neox"]
    hidden_dropout: Fraction = 0.0
    layer_norm_eps: Small = 1e-5
    use_parallel_residual: bool = True


class PhiConfig(BiasedConfig, GroupedConfig, PartlyRotaryConfig):
    """The shape of a Phi-1, Phi-1.5 or Phi-2: attention and MLP side by side, behind one norm."""

    model_type: Literal["phi"]
    resid_pdrop: Fraction = 0.0
    embd_pdrop: Fraction = 0.0
    layer_norm_eps: Small = 1e-5
    partial_rotary_factor: Annotated[float, Field(gt=0, le=1)] = 0.5

    def parameters(self, vocab_size: int, positions: int) -> int:
        """Return the exact count of weights: the logits have a bias."""
        return super().parameters(vocab_size, positions) + vocab_size

    def _in_layer(self) -> int:
        return super()._in_layer() - 2 * self.hidden_size


class Starcoder2Config(BiasedConfig, GroupedConfig):
    """The shape of a StarCoder2."""

    model_type: Literal["starcoder2"]
    residual_dropout: Fraction = 0.0
    embedding_dropout: Fraction = 0.0
    norm_epsilon: Small = 1e-5
    tie_word_embeddings: bool = True


AnyShape = (
    Gpt2Config
    | GptNeoXConfig
    | LlamaConfig
    | MistralConfig
    | Qwen2Config
    | Qwen3Config
    | PhiConfig
    | StableLmConfig
    | Olmo2Config
    | SmolLM3Config
    | GemmaConfig
    | Starcoder2Config
)
ModelConfig = Annotated[AnyShape, Field(discriminator="model_type")]

_shapes: TypeAdapter[AnyShape] = TypeAdapter(ModelConfig)


def shape_like(config: object) -> AnyShape | None:
    """Return the shape of a model by a config of transformers'; None where it is none that fresh weights could have."""
    kinds = {get_args(kind.model_fields["model_type"].annotation)[0]: kind for kind in get_args(AnyShape)}
    kind = kinds.get(getattr(config, "model_type", ""))
    if kind is None:
        return None
    try:
        return _shapes.validate_python(
            {name: getattr(config, name) for name in kind.model_fields if getattr(config, name, None) is not None}
        )
    except ValidationError:
        return None


# Of models with weights of their own too only these are trained.
MODEL_TYPES: frozenset[str] = frozenset(
    get_args(shape.model_fields["model_type"].annotation)[0] for shape in get_args(AnyShape)
)
