"""The model and the batch that the benchmarks share: a GPT-2 of about 4 million parameters."""

VOCAB_SIZE = 4096
MAX_LENGTH = 200
BATCH_SIZE = 16
MODEL = {"n_layer": 4, "n_head": 4, "n_embd": 256}
