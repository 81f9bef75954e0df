"""What a trainer is told of its data: enough that it need not look through the files again."""

import hashlib
from pathlib import Path

import pytest

from core import datasets, tokenizers
from core.dataset_files import DataFile
from core.dataset_look import inspect
from core.errors import Corrupt
from core.jobs import Claim
from core.settings import Settings
from core.store import Store
from core.tokenizer_files import Checked
from core.tokens.vocabulary import of_bytes
from tests.house import House
from tests.worker.training.tiny import prepared
from worker.assignments import make_assignment
from worker.training.assignment import Assignment
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


def _told(house: House, claim: Claim, store: Store, folder: Path) -> Assignment:
    return make_assignment(
        house.job(claim.job_id),
        claim,
        house.work,
        store,
        settings=Settings(data_dir=folder),
        output_dir=folder / "out",
        warn=lambda *_: None,
        interrupted=lambda: False,
    )


def test_a_trainer_is_told_of_an_uploaded_tokenizer_and_of_a_damaged_one_nothing(
    house: House, store: Store, tmp_path: Path
) -> None:
    checked = Checked(format="tokenizer.json", vocab_size=257, end_of_text="<|endoftext|>", lossless=True)
    with store.incoming() as path, house.work.begin() as session:
        path.write_text(of_bytes().to_str())
        uploaded = tokenizers.add(
            session, house.owner_id, filename="t.json", size=1, sha256="s", checked=checked, file=path, store=store
        ).id
    with store.incoming() as path:
        path.write_text('{"text": "a"}')
        store.adopt(path, datasets.store_key(house.dataset_id))
    claim = house.running(tokenizer={"upload": uploaded})
    told = _told(house, claim, store, tmp_path).tokenizer
    assert told is not None
    assert (told.end_of_text, told.path.read_text()) == ("<|endoftext|>", of_bytes().to_str())
    told.path.write_text("{}")
    with pytest.raises(Corrupt, match=f"{uploaded} is damaged"):
        _told(house, claim, store, tmp_path)
