"""How much of its largest tensors the trainer holds at once: the plan counts their memory by the same numbers."""

# Enough logits that the matrix products are large ones, which for a GPU are larger still.
_LOGITS_AT_ONCE = {"cpu": 2**22, "cuda": 2**26}
# Each piece goes through all of the weights, and through their gradients: with a large vocabulary and few rows that is
# a good part of its time.
_LEAST_ROWS = 256
# Larger blocks compute more of what is masked, smaller ones are slow to multiply.
_QUERIES_AT_ONCE = 64


def rows_of_logits(vocab_size: int, device: str) -> int:
    """Return for how many rows there are logits at once, on a device of this type."""
    return max(_LEAST_ROWS, _LOGITS_AT_ONCE[device] // vocab_size)


def query_blocks(length: int) -> int:
    """Return into how many blocks the queries of a row are cut, as equal as can be."""
    return max(1, length // _QUERIES_AT_ONCE)
