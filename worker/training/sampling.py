"""What the model makes of a prompt."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerFast, StoppingCriteria

from core.job_spec import Samples
from worker.training.build import Learner
from worker.training.randomness import reseed

# Below it nothing but the likeliest token has a chance, and logits divided by it leave float32's range.
_LOWEST_TEMPERATURE = 1e-6
_LARGEST_LOGIT = 1e30


class _InRange(LogitsProcessor):  # type: ignore[misc]  # transformers has no types for it
    """Keeps logits, which may be infinite in a model that learns too fast, within what a temperature can divide."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - as it is called
        return scores.nan_to_num(-_LARGEST_LOGIT).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)


class _ToldToStop(StoppingCriteria):  # type: ignore[misc]  # transformers has no types for it
    """Ends a continuation at the next token once `should_stop` says so."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:  # noqa: ARG002 - as it is called
        return torch.full((len(input_ids),), self._should_stop(), device=input_ids.device)


def write(
    learner: Learner,
    tokenizer: PreTrainedTokenizerFast,
    samples: Samples,
    *,
    seed: int,
    epoch: int,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[str, str]]:
    """Yield each prompt with its continuation, which follows from the epoch and the samples' own seed, or else `seed`.

    Leaves the model in training mode. Of a prompt too long for the model's positions the tail is used; an empty one
    starts at the beginning of a text. Once `should_stop` says so nothing more is yielded.
    """
    own_seed = seed if samples.seed is None else samples.seed
    learner.model.train(mode=False)
    try:
        for number, prompt in enumerate(samples.prompts):
            place = own_seed, epoch, number
            text = _continue(learner, tokenizer, prompt, samples, place, should_stop=should_stop)
            if should_stop():
                return
            yield prompt, text
    finally:
        learner.model.train()


def _choice(samples: Samples) -> dict[str, Any]:
    """Say how the next token is chosen, in `generate`'s words."""
    if samples.temperature < _LOWEST_TEMPERATURE:
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
    *,
    should_stop: Callable[[], bool],
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
            logits_processor=[_InRange()],
            stopping_criteria=[_ToldToStop(should_stop)],
            pad_token_id=tokenizer.pad_token_id,
        )
    text = tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
    # A model of bytes may write NUL, which PostgreSQL cannot store in text.
    return str(text).replace("\x00", "\ufffd")
