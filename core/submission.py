"""From a client's spec to one that can run: every reference checked and resolved, and the plan."""

from typing import NamedTuple

from sqlmodel import Session

from core import checkpoints, datasets, job_queries, limits, tokenizers
from core.dataset_files import holds_ids
from core.errors import InvalidInput, NotFound
from core.job_spec import JobSpec, UploadedTokenizer, ValidationDataset
from core.model_shapes import AnyShape
from core.model_spec import EarlierModel, NewModel
from core.models import Dataset, Job, Tokenizer
from core.plan import Base, first_plan
from core.run_plan import RunPlan
from core.settings import Settings


class Prepared(NamedTuple):
    """A spec with every reference resolved, its plan, the store's key of the checkpoint to go on from, if any, and the
    shape of its model, as far as that is known.
    """

    spec: JobSpec
    plan: RunPlan
    base_checkpoint: str | None
    shape: AnyShape | None


def prepare(session: Session, owner_id: str, spec: JobSpec, settings: Settings) -> Prepared:
    """Check a spec against what exists.

    Raises InvalidInput, with the field, where a dataset or a checkpoint is missing or the job could never run.
    """
    limits.check_spec(spec, settings)
    dataset = _referenced_dataset(session, owner_id, spec.dataset, ("dataset",))
    validation = None
    if isinstance(spec.validation, ValidationDataset):
        validation = _referenced_dataset(session, owner_id, spec.validation.dataset, ("validation", "dataset"))
    uploaded = _uploaded(session, owner_id, spec)
    base = base_checkpoint = None
    if isinstance(spec.model, EarlierModel):
        spec, base, base_checkpoint = _resolve_base(session, owner_id, spec, spec.model)
    plan = first_plan(spec, dataset, validation, base, settings, uploaded=uploaded)
    shape = spec.model.config if isinstance(spec.model, NewModel) else base.shape if base else None
    return Prepared(spec, plan, base_checkpoint, shape)


def _referenced_dataset(session: Session, owner_id: str, dataset_id: str, loc: tuple[str, ...]) -> Dataset:
    try:
        return datasets.get(session, owner_id, dataset_id)
    except NotFound as error:
        raise InvalidInput.at(loc, error.detail) from error


def _uploaded(session: Session, owner_id: str, spec: JobSpec) -> Tokenizer | None:
    if not isinstance(spec.tokenizer, UploadedTokenizer):
        return None
    try:
        return tokenizers.get(session, owner_id, spec.tokenizer.upload)
    except NotFound as error:
        raise InvalidInput.at(("tokenizer", "upload"), error.detail) from error


def _resolve_base(session: Session, owner_id: str, spec: JobSpec, model: EarlierModel) -> tuple[JobSpec, Base, str]:
    reference = model.checkpoint
    try:
        job = job_queries.get(session, owner_id, reference.job)
        found = checkpoints.find(session, job.id, reference.epoch)
    except NotFound as error:
        raise InvalidInput.at(("model", "checkpoint"), error.detail) from error
    if (lora := job.spec["model"].get("lora")) and not lora["merge"]:
        raise InvalidInput.at(
            ("model", "checkpoint"),
            f"The checkpoints of {job.id} hold an adapter alone. Train it with lora.merge true, and go on from that.",
        )
    fixed = reference.model_copy(update={"epoch": found.epoch})
    spec = spec.model_copy(update={"model": model.model_copy(update={"checkpoint": fixed})})
    return spec, _base(session, job), checkpoints.store_key(found)


def _base(session: Session, job: Job) -> Base:
    """Return what is known of the model that a job trains."""
    origin: Job | None = job
    while origin and (earlier := origin.spec["model"].get("checkpoint")):
        origin = session.get(Job, earlier["job"])
    if origin is None or "hub" in origin.spec["model"]:
        # Deleted, or from elsewhere: the model's positions and its tokenizer are known where it is loaded.
        return Base(parameters=job.plan["parameters"], positions=None, has_tokenizer=True, shape=None)
    texts = session.get_one(Dataset, origin.dataset_id)
    return Base(
        parameters=job.plan["parameters"],
        positions=origin.spec["sequence"]["max_length"],
        has_tokenizer=origin.spec["tokenizer"] is not None or not holds_ids(texts.columns),
        shape=NewModel.model_validate(origin.spec["model"]).config,
    )
