"""Everything before the first update: data, model, plan, and the state to start or go on from."""

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from core.errors import DataError
from core.job_spec import JobSpec
from core.memory_estimate import Memory, estimate
from core.model_shapes import shape_like
from core.model_spec import NewModel
from core.run_plan import Counts, counted, disk_of, steps_of
from core.tokens.counting import count
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
    device = build.pick_device(assignment.device)
    plan = _plan(spec, corpus, model, device)
    state = RunState(fingerprint=_fingerprint(spec, corpus), steps=plan.steps)
    learner = build.make_learner(model, spec.training, device, adapter)
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


def _plan(spec: JobSpec, corpus: Corpus, model: PreTrainedModel, device: torch.device) -> Planned:
    """Count the run out."""
    counts = Counts(
        exact=True,
        vocab_size=corpus.vocab_size,
        rows=corpus.rows,
        validation_rows=corpus.validation_rows,
        skipped_rows=corpus.skipped_rows,
        warnings=corpus.warnings,
        **count(corpus.training, corpus.validation, spec.training),
    )
    every = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    lora = None if isinstance(spec.model, NewModel) else spec.model.lora
    plan = counted(
        spec,
        counts,
        parameters=every,
        memory=_memory(spec, counts, model, device, trained=trained),
        disk=disk_of(
            spec,
            steps=steps_of(spec.training, counts.batches_per_epoch),
            saved=trained if lora and not lora.merge else every,
            trained=trained,
            adapter=lora is not None,
        ),
        warnings=_of_the_device(),
    )
    return Planned.model_validate(plan.model_dump())


def _memory(
    spec: JobSpec, counts: Counts, model: PreTrainedModel, device: torch.device, *, trained: int
) -> Memory | None:
    shape = spec.model.config if isinstance(spec.model, NewModel) else shape_like(model.config)
    if shape is None or device.type not in ("cpu", "cuda"):
        return None
    return estimate(
        shape,
        spec.training,
        parameters=sum(weight.numel() for weight in model.parameters()),
        trained=trained,
        vocab_size=counts.vocab_size,
        largest_batch=counts.largest_batch,
        device=device.type,
    )


def _of_the_device() -> list[str]:
    if not build.has_unusable_gpu():
        return []
    return [
        f"This worker has a GPU that torch {torch.__version__} cannot use, so the job trains on the CPU. "
        "Install a build of torch that fits the GPU's driver."
    ]


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
