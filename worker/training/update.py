"""One update from one window of batches, whatever happens on the way: out of memory, or numbers that are no numbers."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from core.tokens.batches import IntArray
from core.tokens.sequences import Sequences
from worker.training.build import Learner
from worker.training.errors import DoesNotFit, is_out_of_memory
from worker.training.randomness import reseed, reseed_thread
from worker.training.token_loss import TokenLoss


@dataclass
class MemoryBudget:
    """What the search for a size that fits has learnt: at most `positions` (rows x length) at once; None: no limit."""

    positions: int | None = None

    def pieces(self, sequences: Sequences, rows: IntArray) -> list[IntArray]:
        """Cut a batch into pieces that fit, as equal as can be."""
        if self.positions is None:
            return [rows]
        fitting = max(1, self.positions // _longest(sequences, rows))
        return np.array_split(rows, -(-len(rows) // fitting))

    def halve(self, sequences: Sequences, rows: IntArray, *, beside: bool = False) -> None:
        """Learn that a piece did not fit, be it `beside` that of another lane. Raises DoesNotFit for a single row."""
        longest = _longest(sequences, rows)
        if beside:  # alone it is half of what there was at once
            self.positions = len(rows) * longest
            return
        if len(rows) == 1:
            raise DoesNotFit(
                f"A single row of {longest + 1} tokens does not fit into memory.",
                "Lower sequence.max_length or the size of the model, or train on a device with more memory.",
            )
        self.positions = -(-len(rows) // 2) * longest


def _longest(sequences: Sequences, rows: IntArray) -> int:
    return int(sequences.lengths[rows].max()) - 1


@dataclass(frozen=True)
class Numbers:
    """A window's numbers, read back: per batch the sum of token losses and the tokens predicted best; the gradient's
    norm before clipping. `applied` is False where they were not finite and the window was discarded.
    """

    losses: list[float]
    correct: list[int]
    grad_norm: float
    applied: bool


@dataclass(frozen=True)
class Outcome:
    """A window that was computed, its numbers on their way from the device. `splits` says how many positions were found
    to fit, once for each time the window did not.
    """

    values: Tensor  # [2 x batches + 2], on the CPU
    arrival: torch.cuda.Event | None
    splits: list[int]

    def read(self) -> Numbers:
        """Wait until the numbers are here, and for nothing that the device was given to do since; return them."""
        if self.arrival:
            self.arrival.synchronize()
        *per_batch, grad_norm, discarded = self.values.tolist()
        batches = len(per_batch) // 2
        return Numbers(
            losses=per_batch[:batches],
            correct=[int(count) for count in per_batch[batches:]],
            grad_norm=grad_norm,
            applied=not discarded,
        )


@dataclass
class _Attempt:
    """A window's gradients under way; `too_large` is the piece that did not fit, if one did not, `beside` another."""

    losses: list[Tensor] = field(default_factory=list)
    correct: list[Tensor] = field(default_factory=list)
    too_large: IntArray | None = None
    beside: bool = False


def update(
    learner: Learner,
    sequences: Sequences,
    window: list[IntArray],
    *,
    learning_rate: float,
    max_grad_norm: float,
    budget: MemoryBudget,
    dropout: tuple[int, int],
) -> Outcome:
    """Make one update of the weights. `dropout` is (seed, step): all that the window's dropout follows from.

    The gradient is that of the mean loss over all tokens of the window, however it is cut into batches, and is clipped
    once. Where it, or a loss, is not finite, weights and optimizer stay untouched to the last bit (in half precision
    the scale of the gradients then falls: it was too large). Where memory runs out, the whole window is done again in
    smaller pieces, with the same gradient; raises DoesNotFit where a single row is too much.
    """
    splits = []
    while True:
        attempt = _gradients(learner, sequences, window, budget, dropout)
        if attempt.too_large is None:
            break
        # Only here, where the exception and the tensors its traceback held are gone, can their memory be had back.
        learner.optimizer.zero_grad(set_to_none=True)
        budget.halve(sequences, attempt.too_large, beside=attempt.beside)
        splits.append(budget.positions or 0)
        if learner.device.type == "cuda":
            torch.cuda.empty_cache()
    if learner.scaler:
        learner.scaler.unscale_(learner.optimizer)
    norm = _norm([weight.grad for weight in learner.model.parameters() if weight.grad is not None])
    values = torch.stack([*attempt.losses, *attempt.correct, norm]).float()
    discarded = (~torch.isfinite(values).all()).float()
    # As `clip_grad_norm_` does: by a millionth more than the norm, and never by less than one.
    divisor = ((norm + 1e-6) / max_grad_norm).clamp(min=1.0)
    _apply(learner.optimizer, learning_rate, divisor, discarded)
    if learner.scaler:
        learner.scaler.update()
    return _outcome(torch.cat([values, discarded.unsqueeze(0)]), splits)


def _gradients(
    learner: Learner, sequences: Sequences, window: list[IntArray], budget: MemoryBudget, dropout: tuple[int, int]
) -> _Attempt:
    """Add up the window's gradients, until a piece does not fit: in lanes where there are any and memory allows it."""
    tokens = int(sum(sequences.loss_tokens[batch].sum() for batch in window))
    seed, step = dropout
    shares = learner.lanes.share(sequences.lengths, window) if learner.lanes and budget.positions is None else None
    if learner.lanes is None or shares is None:
        reseed(seed, "dropout", step)
        pieces = [budget.pieces(sequences, batch) for batch in window]
        return _add_up(learner, learner.token_loss, sequences, pieces, tokens)

    def in_lane(number: int, token_loss: TokenLoss) -> _Attempt:
        reseed_thread(seed, "dropout", step, number)
        pieces = [[rows] if len(rows) else [] for rows in shares[number]]
        return _add_up(learner, token_loss, sequences, pieces, tokens)

    first, second = learner.lanes.each(in_lane)
    failed = (attempt.too_large for attempt in (first, second) if attempt.too_large is not None)
    if (too_large := max(failed, key=len, default=None)) is not None:
        learner.lanes.drop()
        return _Attempt(too_large=too_large, beside=True)
    learner.lanes.gather()
    return _Attempt(
        losses=[one + other for one, other in zip(first.losses, second.losses, strict=True)],
        correct=[one + other for one, other in zip(first.correct, second.correct, strict=True)],
    )


def _add_up(
    learner: Learner, token_loss: TokenLoss, sequences: Sequences, batches: list[list[IntArray]], tokens: int
) -> _Attempt:
    """Add up the gradients of batches, each in its pieces, as parts of the mean loss over so many tokens."""
    attempt = _Attempt()
    for pieces in batches:
        losses = torch.zeros((), device=learner.device)
        correct = torch.zeros((), dtype=torch.int64, device=learner.device)
        for piece in pieces:
            try:
                loss, hits = token_loss(sequences, piece)
                _scaled(loss / tokens, learner.scaler).backward()  # type: ignore[no-untyped-call]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                attempt.too_large = piece
                return attempt
            losses += loss.detach()
            correct += hits
        attempt.losses.append(losses)
        attempt.correct.append(correct)
    return attempt


def _scaled(loss: Tensor, scaler: torch.amp.GradScaler | None) -> Tensor:
    return scaler.scale(loss) if scaler else loss


def _outcome(values: Tensor, splits: list[int]) -> Outcome:
    """Send a window's numbers on their way."""
    if values.device.type != "cuda":
        return Outcome(values=values, arrival=None, splits=splits)
    # Only into pinned memory is the copy asynchronous.
    here = torch.empty_like(values, device="cpu", pin_memory=True)
    here.copy_(values, non_blocking=True)
    arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types for it
    arrival.record()
    return Outcome(values=here, arrival=arrival, splits=splits)


def _norm(gradients: list[Tensor]) -> Tensor:
    """Return the norm of all gradients together."""
    if gradients[0].device.type == "cuda":
        return get_total_norm(gradients)
    # On the CPU the norm of each takes longer than its product with itself, and is less exact.
    flat = [gradient.flatten() for gradient in gradients]
    return torch.stack([torch.dot(gradient, gradient) for gradient in flat]).sum().sqrt()


def _apply(optimizer: torch.optim.Optimizer, learning_rate: float, divisor: Tensor, discarded: Tensor) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    # As gradient scalers do it, the fused kernel itself divides the gradients, which saves a pass over them, and leaves
    # everything as it was where `discarded` is 1, so that nobody has to wait for the device to know.
    optimizer.grad_scale, optimizer.found_inf = divisor, discarded  # type: ignore[attr-defined]
    try:
        optimizer.step()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DoesNotFit(
            "Beside weights and gradients the optimizer's two numbers for each weight do not fit into memory.",
            "Lower the size of the model, train an adapter (model.lora), or use a device with more memory.",
        ) from error
    optimizer.zero_grad(set_to_none=True)
