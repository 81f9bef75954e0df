"""What the model makes of a prompt."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from core.job_spec import Samples
from worker.training.build import Learner
from worker.training.randomness import reseed


def write(
    learner: Learner, tokenizer: PreTrainedTokenizerFast, samples: Samples, *, seed: int, epoch: int
) -> Iterator[tuple[str, str]]:
    """Yield each prompt with its continuation, which follows from the epoch and the samples' own seed, or else `seed`.

    Leaves the model in training mode. Of a prompt too long for the model's positions the tail is used; an empty one
    starts at the beginning of a text.
    """
    own_seed = seed if samples.seed is None else samples.seed
    learner.model.train(mode=False)
    for number, prompt in enumerate(samples.prompts):
        yield prompt, _continue(learner, tokenizer, prompt, samples, (own_seed, epoch, number))
    learner.model.train()


def _choice(samples: Samples) -> dict[str, Any]:
    """Say how the next token is chosen, in `generate`'s words."""
    if not samples.temperature:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": samples.temperature,
        "top_k": samples.top_k,
        "top_p": samples.top_p,
    }


def _continue(
    learner: Learner,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    samples: Samples,
    place: tuple[int, int, int],
) -> str:
    positions = learner.model.config.max_position_embeddings
    new_tokens = min(samples.max_new_tokens, positions - 1)
    # Not every tokenizer has a token for the beginning of a text; the end of the one before is where the next begins.
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids = tokenizer.encode(prompt, add_special_tokens=False)[-(positions - new_tokens) :] or [start]
    inputs = torch.tensor([ids], device=learner.device)
    seed, *rest = place
    reseed(seed, "sample", *rest)
    with torch.no_grad():
        output = learner.model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            **_choice(samples),
            max_new_tokens=new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
    text = tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
    # A model of bytes may write NUL, which PostgreSQL cannot store in text.
    return str(text).replace("\x00", "\ufffd")
