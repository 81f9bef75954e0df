"""Everything before the first update: data, model, plan, and the state to start or go on from."""

import hashlib
import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from core.errors import DataError
from core.job_spec import JobSpec
from core.model_spec import NewModel
from core.tokens.batches import epoch_batches, padding_share
from core.tokens.sequences import Sequences
from worker.training import build, checkpoints
from worker.training.adapter import Adapter
from worker.training.assignment import Assignment
from worker.training.build import Learner
from worker.training.corpus import Corpus, gather
from worker.training.facts import Planned, Preparing
from worker.training.run_state import RunState
from worker.training.update import MemoryBudget


@dataclass(frozen=True)
class Run:
    """A run ready to go on from `state`. State, budget, weights and optimizer are what changes as it does."""

    spec: JobSpec
    output_dir: Path
    tokenizer: PreTrainedTokenizerFast | None
    training: Sequences
    validation: Sequences | None
    plan: Planned
    learner: Learner
    budget: MemoryBudget
    state: RunState


def prepare(assignment: Assignment) -> Generator[Preparing | Planned, None, Run]:
    """Make a run ready, from its beginning or from a checkpoint; the last fact is the plan.

    Raises DataError or InvalidInput where the data, or what the spec asks of it, cannot be trained on, DiskFull where
    there is no room for its first checkpoint.
    """
    spec, checkpoint = assignment.spec, assignment.resume_from
    model = _loaded_model(assignment)
    corpus = yield from gather(assignment, vocab_size=model.config.vocab_size if model else None)
    model = model or _new_model(spec, corpus)
    adapter = _adapter(spec, model)
    plan = _plan(spec, corpus, model)
    state = RunState(fingerprint=_fingerprint(spec, corpus), steps=plan.steps)
    learner = build.make_learner(model, spec.training, build.pick_device(assignment.device), adapter)
    if checkpoint is not None:
        state = _restored(checkpoint, fresh=state)
        checkpoints.restore_adapter(checkpoint, learner)
        checkpoints.restore_optimizer(checkpoint, learner)
        checkpoints.restore_scale(state, learner)
    yield plan
    assignment.output_dir.mkdir(parents=True, exist_ok=True)
    checkpoints.require_room(assignment.output_dir, learner)
    return Run(
        spec=spec,
        output_dir=assignment.output_dir,
        tokenizer=corpus.tokenizer,
        training=corpus.training,
        validation=corpus.validation,
        plan=plan,
        learner=learner,
        budget=MemoryBudget(state.fitting_positions),
        state=state,
    )


def _loaded_model(assignment: Assignment) -> PreTrainedModel | None:
    folder, spec = assignment.base_model, assignment.spec
    # An adapter's checkpoint does not hold the model that it belongs to.
    if assignment.resume_from and (isinstance(spec.model, NewModel) or spec.model.lora is None):
        folder = assignment.resume_from / "model"
    return build.load_model(folder, max_length=spec.sequence.max_length) if folder else None


def _adapter(spec: JobSpec, model: PreTrainedModel) -> Adapter | None:
    """Put an adapter into the model where the spec asks for one."""
    if isinstance(spec.model, NewModel) or spec.model.lora is None:
        return None
    return Adapter(model, spec.model, spec.model.lora, seed=spec.training.seed)


def _new_model(spec: JobSpec, corpus: Corpus) -> PreTrainedModel:
    if not isinstance(spec.model, NewModel):
        raise DataError("The spec names an earlier model, but none was handed over.", "Hand its path over.")
    return build.new_model(
        spec.model.config,
        vocab_size=corpus.vocab_size,
        max_length=spec.sequence.max_length,
        end_of_text=corpus.tokenizer.eos_token_id if corpus.tokenizer else None,
        seed=spec.training.seed,
    )


def _plan(spec: JobSpec, corpus: Corpus, model: PreTrainedModel) -> Planned:
    """Count the run out."""
    training, sequences = spec.training, corpus.training
    first = epoch_batches(sequences.lengths, batch_size=training.batch_size, seed=training.seed, epoch=1)
    steps = training.epochs * math.ceil(len(first) / training.gradient_accumulation_steps)
    warnings, warmup = list(corpus.warnings), training.warmup(steps)
    if warmup >= steps:
        warnings.append(
            f"The warmup of {warmup} steps is as long as the run ({steps} steps) or longer: "
            "the learning rate never reaches training.learning_rate."
        )
    if build.has_unusable_gpu():
        warnings.append(
            f"This worker has a GPU that torch {torch.__version__} cannot use, so the job trains on the CPU. "
            "Install a build of torch that fits the GPU's driver."
        )
    return Planned(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocab_size=corpus.vocab_size,
        rows=corpus.rows,
        validation_rows=corpus.validation_rows,
        skipped_rows=corpus.skipped_rows,
        sequences=len(sequences),
        dropped_sequences=sequences.dropped,
        batches_per_epoch=len(first),
        steps=steps,
        tokens_per_epoch=int(sequences.loss_tokens.sum()),
        padding=padding_share(sequences.lengths, first),
        warnings=warnings,
    )


def _fingerprint(spec: JobSpec, corpus: Corpus) -> str:
    """Name what makes two runs the same: the data as sequences, and every setting that moves a weight."""
    digest = hashlib.sha256()
    for part in (spec.model, spec.sequence, spec.training.model_copy(update={"log_every": 1})):
        digest.update(part.model_dump_json().encode())
    sequences = corpus.training
    for array in (sequences.starts, sequences.lengths):
        digest.update(array.data)
    # Of the tokens the hash taken when they were written: there may be gigabytes of them.
    digest.update(corpus.content.encode())
    return digest.hexdigest()


def _restored(checkpoint: Path, *, fresh: RunState) -> RunState:
    state = checkpoints.read_state(checkpoint)
    if (state.fingerprint, state.steps) != (fresh.fingerprint, fresh.steps):
        raise DataError(
            f"The checkpoint {checkpoint.name} is of another run: its dataset or its hyperparameters differ.",
            "Resume with the very spec and dataset that the checkpoint was made with.",
        )
    return state
