"""From a client's spec to one that can run: every reference checked and resolved, and the plan."""

from typing import Any, NamedTuple

from sqlmodel import Session

from core import checkpoints, datasets, job_queries
from core.errors import InvalidInput, NotFound
from core.job_spec import EarlierModel, JobSpec, ValidationDataset
from core.models import Dataset, Job
from core.plan import Base, first_plan
from core.settings import Settings


class Prepared(NamedTuple):
    """A spec with every reference resolved, its plan, and the store's key of the checkpoint to go on from, if any."""

    spec: JobSpec
    plan: dict[str, Any]
    base_checkpoint: str | None


def prepare(session: Session, owner_id: str, spec: JobSpec, limits: Settings) -> Prepared:
    """Check a spec against what exists.

    Raises InvalidInput, with the field, where a dataset or a checkpoint is missing or the job could never run.
    """
    dataset = _referenced_dataset(session, owner_id, spec.dataset, ("dataset",))
    validation = None
    if isinstance(spec.validation, ValidationDataset):
        validation = _referenced_dataset(session, owner_id, spec.validation.dataset, ("validation", "dataset"))
    base = base_checkpoint = None
    if isinstance(spec.model, EarlierModel):
        spec, base, base_checkpoint = _resolve_base(session, owner_id, spec, spec.model)
    return Prepared(spec, first_plan(spec, dataset, validation, base, limits), base_checkpoint)


def _referenced_dataset(session: Session, owner_id: str, dataset_id: str, loc: tuple[str, ...]) -> Dataset:
    try:
        return datasets.get(session, owner_id, dataset_id)
    except NotFound as error:
        raise InvalidInput.at(loc, error.detail) from error


def _resolve_base(session: Session, owner_id: str, spec: JobSpec, model: EarlierModel) -> tuple[JobSpec, Base, str]:
    reference = model.checkpoint
    try:
        job = job_queries.get(session, owner_id, reference.job)
        found = checkpoints.find(session, job.id, reference.epoch)
    except NotFound as error:
        raise InvalidInput.at(("model", "checkpoint"), error.detail) from error
    fixed = reference.model_copy(update={"epoch": found.epoch})
    origin = _origin(session, job)
    texts = session.get_one(Dataset, origin.dataset_id)
    base = Base(
        parameters=job.plan["parameters"],
        positions=origin.spec["sequence"]["max_length"],
        has_tokenizer=origin.spec["tokenizer"] is not None or "text" in texts.columns,
    )
    spec = spec.model_copy(update={"model": model.model_copy(update={"checkpoint": fixed})})
    return spec, base, checkpoints.store_key(found)


def _origin(session: Session, job: Job) -> Job:
    """Return the job that the model began in, with fresh weights."""
    while earlier := job.spec["model"].get("checkpoint"):
        job = session.get_one(Job, earlier["job"])
    return job
