"""The preview of a dataset over HTTP; what it shows is tested with the code that makes it."""

from pathlib import Path
from typing import Any

from core.tokens.vocabulary import of_bytes
from tests.app.served import ON_SQLITE, Api
from tests.app.test_tokenizers import upload
from tests.worker.training.tiny import texts
from worker.training import tokenizer as trainers

pytestmark = ON_SQLITE


def _preview(api: Api, dataset: str, **params: Any) -> dict[str, Any]:
    answer = api.http.get(f"/datasets/{dataset}/preview", params=params)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def test_rows_are_shown_as_the_model_will_see_them(api: Api, tmp_path: Path) -> None:
    dataset = api.dataset('{"prompt": "one", "completion": " two"}\n')
    shown = _preview(api, dataset, tokenizer="bytes")
    [window] = shown["windows"]
    assert window == {
        "positions": 7,
        "loss_tokens": 5,
        "parts": [
            {
                "row": 1,
                "start": 0,
                "ids": [*b"one two", 256],
                "pieces": [*"one two", "<|endoftext|>"],
                "loss": [False] * 3 + [True] * 5,
            }
        ],
    }
    assert (shown["vocab_size"], shown["left_out"], shown["more_windows"]) == (257, [], 0)
    # The same with the same tokenizer, uploaded, and with that of a job's checkpoint.
    uploaded = upload(api)["id"]
    assert _preview(api, dataset, tokenizer=uploaded)["windows"] == [window]
    worker = api.worker(tokenizer="bytes")
    folder = tmp_path / "model"
    trainers.for_transformers(of_bytes(), max_length=8).save_pretrained(folder)
    answer = api.http.get(f"/datasets/{dataset}/preview?tokenizer={worker.job_id}")
    assert answer.status_code == 422
    assert "no checkpoint latest" in answer.json()["detail"]
    worker.checkpoint(api.store, {path.name: path.read_bytes() for path in folder.iterdir()})
    assert _preview(api, dataset, tokenizer=worker.job_id)["windows"] == [window]


def test_the_default_is_what_a_job_would_do(api: Api) -> None:
    text = "\n".join(f'{{"text": "{row}"}}' for row in texts(50))
    shown = _preview(api, api.dataset(text), rows=3, vocab_size=300)
    assert shown["vocab_size"] == 300
    assert len(shown["rows"]) == 3
    ids = _preview(api, api.dataset('{"input_ids": [7, 8, 9]}\n'), max_length=2)
    assert [window["parts"][0]["ids"] for window in ids["windows"]] == [[7, 8]]
    assert ids["left_out"] == [{"row": 1, "start": 2, "tokens": 1, "reason": "shorter than min_length (2)"}]
    assert ids["vocab_size"] is None


def test_a_tokenizer_that_there_is_not_is_named(api: Api) -> None:
    text, ids = api.dataset(), api.dataset('{"input_ids": [7, 8, 9]}\n')
    for dataset, name, said in [
        (text, "tok_unknown", "no tokenizer tok_unknown"),
        (text, "job_unknown", "no job job_unknown"),
        (text, "words", "A tokenizer is `bytes`"),
        (ids, "train", "no text to train"),
    ]:
        answer = api.http.get(f"/datasets/{dataset}/preview?tokenizer={name}")
        assert answer.status_code == 422, name
        assert said in answer.json()["detail"]
        assert answer.json()["errors"][0]["loc"] == ["query", "tokenizer"]


def test_the_lengths_are_checked_as_a_specs_are(api: Api) -> None:
    dataset = api.dataset()
    for params, name in (({"max_length": 8, "stride": 9}, "query"), ({"max_length": 9000}, "max_length")):
        answer = api.http.get(f"/datasets/{dataset}/preview", params={"tokenizer": "bytes", **params})
        assert answer.status_code == 422
        assert name in answer.json()["errors"][0]["loc"]
