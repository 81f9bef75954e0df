"""The models and the batch that the benchmarks share: GPT-2s of about 4 and 25 million parameters."""

VOCAB_SIZE = 4096
MAX_LENGTH = 200
BATCH_SIZE = 16
MODEL = {"n_layer": 4, "n_head": 4, "n_embd": 256}
MODELS = {"4m": MODEL, "25m": {"n_layer": 7, "n_head": 8, "n_embd": 512}}


def layer_products(model: dict[str, int]) -> list[tuple[int, int, int]]:
    """Return the weight matrices of a GPT-2 that are multiplied with each token: (inputs, outputs, how many)."""
    layers, width = model["n_layer"], model["n_embd"]
    return [
        (width, 3 * width, layers),  # query, key, value
        (width, width, layers),
        (width, 4 * width, layers),
        (4 * width, width, layers),
        (width, VOCAB_SIZE, 1),  # the logits
    ]


def flops_per_token(model: dict[str, int], lengths: list[int]) -> float:
    """Return the model FLOPs of training on one token of rows that predict `lengths` tokens each.

    6 N + 12 L D T, as in appendix B of the PaLM paper (Chowdhery et al. 2022, after Kaplan et al. 2020, section 2.1): a
    multiply-add is 2, and the backward pass twice the forward. N are the weights in matrix products (the logits are
    one, the looking up of embeddings is none), L the layers, D the width. T is the length of the token's own row, not
    of its padded batch, and is not halved for causality. Dropout, norms, activations and the optimizer count nothing.
    """
    weights = sum(inputs * outputs * count for inputs, outputs, count in layer_products(model))
    mean_length = sum(length * length for length in lengths) / sum(lengths)  # over tokens, not over rows
    return 6 * weights + 12 * model["n_layer"] * model["n_embd"] * mean_length
