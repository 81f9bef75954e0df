"""What a user would run by hand: import, read the text, train a tokenizer, build the model, train one batch.

    python -m benchmarks.plain_script corpus.txt

Prints the first batch's loss. The shape of model and batch is that of `first_batch.SPEC`.
"""

import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.rows import documents, learn_tokenizer
from benchmarks.shapes import BATCH_SIZE, MAX_LENGTH, MODEL

ENDS = {"bos_token_id": 0, "eos_token_id": 0}


def main(corpus: Path) -> None:
    """Train one batch of the corpus's first documents."""
    texts = documents(corpus.read_text())
    tokenizer = learn_tokenizer(texts)
    rows = [encoding.ids[:MAX_LENGTH] for encoding in tokenizer.encode_batch(texts)]
    batch = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows[:BATCH_SIZE]], batch_first=True, padding_value=-100
    )
    model = GPT2LMHeadModel(GPT2Config(vocab_size=tokenizer.get_vocab_size(), n_positions=MAX_LENGTH, **MODEL, **ENDS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    loss = model(input_ids=batch.clamp(min=0), attention_mask=batch.ge(0), labels=batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    print(loss.item(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
