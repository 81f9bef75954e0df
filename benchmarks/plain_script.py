"""What a user would run by hand: import, read the text, train a tokenizer, build the model, train one batch.

    python -m benchmarks.plain_script corpus.txt

Prints the first batch's loss. The shape of model and batch is that of `first_batch.SPEC`.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.shapes import BATCH_SIZE, MAX_LENGTH, MODEL, VOCAB_SIZE

ENDS = {"bos_token_id": 0, "eos_token_id": 0}


def main(corpus: Path) -> None:
    """Train one batch of the corpus's first documents."""
    documents = [block for block in corpus.read_text().split("\n\n") if block.strip()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    rows = [encoding.ids[:MAX_LENGTH] for encoding in tokenizer.encode_batch(documents)]
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
