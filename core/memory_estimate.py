"""How much memory a run takes, part by part, from the shape of its model and the size of its largest batch.

What is counted is what the trainer keeps: see `docs/tokenizers.md`, which sets these numbers beside measured ones.
"""

from pydantic import BaseModel, ConfigDict

from core.job_spec import Training
from core.model_shapes import AnyShape, BiasedConfig, Gpt2Config
from core.pieces import query_blocks, rows_of_logits

BYTES_PER_WEIGHT = 4  # weights, gradients and AdamW's two moments are float32, whatever is computed in

# Attention with dropout on the CPU keeps a float32 weight for each pair of positions, and a byte that says whether it
# was dropped; of a block of queries up to their last key, so little more than half of the square.
_BYTES_PER_PAIR = 5
# The way back needs some of what it computes at the same time, and no allocator fills every gap: measured.
_BESIDE_ACTIVATIONS = 1.2
# Between the batches of an update the gradients stay, and lie where the next batch's activations would go.
_BESIDE_GRADIENTS = 1.6
# What the first update brings in that no tensor is: code, threads, buffers of the matrix products. Measured.
_FIRST_UPDATE = {"cpu": 32 * 2**20, "cuda": 0}


class Memory(BaseModel):
    """What the parts of a run take, in bytes; `total` is what they take together at the worst moment.

    Beside it there is what the process takes before it knows any model: its libraries, some 350 MB.
    """

    model_config = ConfigDict(frozen=True)

    device: str
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    total: int


def estimate(
    shape: AnyShape,
    training: Training,
    *,
    parameters: int,
    trained: int,
    vocab_size: int,
    largest_batch: tuple[int, int],
    device: str = "cpu",
) -> Memory:
    """Return what a run takes whose largest batch has so many rows, padded to so many positions each.

    `parameters` are all weights of the model, `trained` those that have gradients.
    """
    rows, length = largest_batch
    lanes = _lanes(training, rows, device)
    positions, width = rows * length, _width(shape)
    half = training.precision in ("bf16", "fp16") or (training.precision == "auto" and device == "cuda")
    layers = [positions * _floats_per_position(shape) * (2 if half else 4) + rows * _pairs(shape, length, device)]
    layers *= _layers(shape)
    if training.gradient_checkpointing:  # what went into each; and the one at hand, computed again, with its gradients
        layers = [2 * layers[0], *(positions * width * 4 for _ in layers)]
    ends = 4 * positions * width * 4  # the embeddings, the last norm, and the gradient of what goes into the logits
    one_batch = training.gradient_accumulation_steps == 1
    activations = int((sum(layers) + ends) * (_BESIDE_ACTIVATIONS if one_batch else _BESIDE_GRADIENTS))
    in_lane = positions // lanes
    # Of the logits only a piece exists at a time, and the next one before the last is gone.
    piece = min(in_lane, rows_of_logits(vocab_size, device)) * vocab_size * 4
    # A second one, unless all rows are in the first.
    pieces = 2 if in_lane * vocab_size * 4 > piece else 1
    # The gradient of the embeddings, made before it is added; and on the CPU their copy, packed for the product.
    embeddings = vocab_size * width * BYTES_PER_WEIGHT * (1 if half or device != "cpu" else 2)
    logits = lanes * (pieces * piece + embeddings)
    weights = parameters * BYTES_PER_WEIGHT
    gradients, optimizer = lanes * trained * BYTES_PER_WEIGHT, 2 * trained * BYTES_PER_WEIGHT
    return Memory(
        device=device,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        logits=logits,
        total=weights + gradients + optimizer + activations + logits + _FIRST_UPDATE[device],
    )


def _lanes(training: Training, rows: int, device: str) -> int:
    """Return how many threads share the rows, each with gradients of its own: two where the trainer may make lanes."""
    alone = training.compile or training.gradient_checkpointing or training.precision == "fp16"
    return 1 if device != "cpu" or alone or rows * training.gradient_accumulation_steps == 1 else 2


def _layers(shape: AnyShape) -> int:
    return shape.n_layer if isinstance(shape, Gpt2Config) else shape.num_hidden_layers


def _width(shape: AnyShape) -> int:
    return shape.n_embd if isinstance(shape, Gpt2Config) else shape.hidden_size


def _floats_per_position(shape: AnyShape) -> int:
    """Return how many numbers a layer keeps of each position for the way back, beside those of attention's pairs."""
    width = _width(shape)
    if isinstance(shape, Gpt2Config):
        inner = shape.n_inner or 4 * width
        # Into the norm and out of it, twice; query, key, value; attended, twice; the MLP's inner layer before and after
        # its activation; a byte for each number of the two that dropout goes over.
        return 9 * width + 2 * inner + (width // 2 if shape.resid_pdrop else 0)
    attention = width + 2 * shape.key_value_width
    if isinstance(shape, BiasedConfig):
        return 6 * width + attention + 2 * shape.intermediate_size
    # A norm by the root mean square keeps what it normalised too; a gated MLP has two inner layers, and their product.
    return 8 * width + attention + 4 * shape.intermediate_size


def _pairs(shape: AnyShape, length: int, device: str) -> int:
    """Return the bytes that attention keeps of each row's pairs of positions."""
    if isinstance(shape, Gpt2Config):
        heads, dropout = shape.n_head, shape.attn_pdrop
    else:
        heads, dropout = shape.num_attention_heads, shape.attention_dropout
    if not dropout or device != "cpu":
        return 0
    blocks = query_blocks(length)
    return int(heads * length * length * (1 + 1 / blocks) / 2 * _BYTES_PER_PAIR)
