"""What a trainer is told of its data: enough that it need not look through the files again."""

import hashlib
from pathlib import Path

import pytest

from core import datasets
from core.dataset_files import DataFile, inspect
from core.settings import Settings
from core.store import Store
from tests.house import House
from tests.worker.training.tiny import prepared
from worker.assignments import make_assignment
from worker.training.rows import look_through


def test_a_trainer_is_told_what_the_upload_found_and_where_to_keep_tokens(
    house: House, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b'{"prompt": "a", "completion": "b"}\n\n' * 3
    with store.incoming() as path, house.work.begin() as session:
        path.write_bytes(content)
        file = DataFile(path=path, format="jsonl")
        added = datasets.add(
            session,
            house.owner_id,
            filename="rows.jsonl",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            file=file,
            report=inspect(file),
            store=store,
        )
        dataset_id = added.id
    claim = house.running(dataset=dataset_id, validation={"dataset": dataset_id})
    monkeypatch.chdir(tmp_path)
    assignment = make_assignment(
        house.job(claim.job_id),
        claim,
        house.work,
        store,
        settings=Settings(data_dir=Path("data"), cache_max_bytes=7),
        output_dir=tmp_path / "out",
        warn=lambda *_: None,
        interrupted=lambda: False,
    )
    by_hand = prepared(look_through(DataFile(path=assignment.dataset.path, format="jsonl")))
    assert assignment.dataset.known == by_hand
    assert assignment.validation_dataset == assignment.dataset
    assert assignment.cache_dir == tmp_path / "data" / "cache", "wherever the trainer runs"
    assert assignment.cache_max_bytes == 7
