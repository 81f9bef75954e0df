"""Spec files: JSON goes out as it is, YAML as people mean it."""

import io
import json
from pathlib import Path

import pytest

from cli.spec_file import read_spec
from core.errors import InvalidInput


def test_yaml_means_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "dataset: ds_1\ntraining: {learning_rate: 3e-4, epochs: 3, seed: 010}\n"
        "tags: {day: 2026-01-01, on: no}\nvalidation: null\n"
    )

    assert json.loads(read_spec(str(path))) == {
        "dataset": "ds_1",
        "training": {"learning_rate": 3e-4, "epochs": 3, "seed": 10},
        "tags": {"day": "2026-01-01", "on": "no"},
        "validation": None,
    }


def test_json_is_sent_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"dataset": "a", "dataset": "b"}')  # the server has a word to say about that

    assert read_spec(str(path)) == '{"dataset": "a", "dataset": "b"}'


def test_json_too_deep_to_read_here_is_left_to_the_server(tmp_path: Path) -> None:
    path = tmp_path / "spec"
    path.write_text("[" * 100_000 + "]" * 100_000)
    assert read_spec(str(path)) == path.read_text()


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"dataset": "ds_1"}'))

    assert read_spec("-") == '{"dataset": "ds_1"}'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dataset: [", "not YAML at line"),
        ("just words", "holds no spec"),
        ("", "holds no spec"),
        ("dataset: !!python/object/apply:os.system ['true']", "not YAML"),
        ("? [a, b]\n: 1\n", "not YAML"),
        ("a: " + "[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_spec_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)

    with pytest.raises(InvalidInput, match=sentence):
        read_spec(str(path))
