"""What the CLI says when the other side is missing, says no, or is no epochd."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.cli.conftest import Main
from tests.stack import Stack


@contextmanager
def _server(status: int, body: bytes) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_nobody_there(epochd: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHD_URL", "http://127.0.0.1:9")

    for command in (["jobs"], ["watch", "job_1"], ["pull", "job_1"], ["cancel", "job_1"], ["datasets", "list"]):
        ended = epochd(*command)
        assert ended.status == 1
        assert ended.err == (
            "epochd: No epochd answers at http://127.0.0.1:9. Start one with `epochd up`, "
            "or name another with EPOCHD_URL.\n"
        )


@pytest.mark.parametrize("address", ["localhost:8000", "http://[bad"])
def test_an_address_that_is_none(epochd: Main, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("EPOCHD_URL", address)

    ended = epochd("jobs")

    assert ended.status == 1
    assert f"EPOCHD_URL is '{address}'" in ended.err


def test_a_key_that_can_be_none(epochd: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHD_API_KEY", "é")

    ended = epochd("jobs")

    assert (ended.status, "Correct EPOCHD_API_KEY" in ended.err) == (1, True)


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (200, b"<html>hello</html>", "is no epochd"),
        (502, b"<html>Bad Gateway</html>", "status 502 and no explanation"),
        (500, b"[]", "status 500 and no explanation"),
        (422, b'{"title": "t", "detail": "No.", "errors": [{"loc": ["a", "b"], "msg": "bad"}]}', "No.\n  a.b: bad"),
        (409, b'{"title": "t", "detail": "\\u001b[2JNo."}', "epochd: \N{REPLACEMENT CHARACTER}[2JNo."),
    ],
)
def test_an_odd_answer(epochd: Main, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, sentence: str) -> None:
    with _server(status, body) as url:
        monkeypatch.setenv("EPOCHD_URL", url)
        ended = epochd("jobs")

    assert ended.status == 1
    assert sentence in ended.err


def test_a_wrong_key_names_where_the_right_one_is_looked_for(on_stack: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHD_API_KEY", "epochd_00000000_wrong")

    ended = on_stack("jobs")

    assert ended.status == 1
    assert "EPOCHD_API_KEY" in ended.err


def test_a_bad_spec_is_answered_field_by_field(on_stack: Main, stack: Stack, tmp_path: Path) -> None:
    spec = stack.write_spec(tmp_path, training={"epochs": 0, "batch_sise": 4})

    ended = on_stack("submit", spec)

    assert ended.status == 1
    assert "training.epochs: " in ended.err
    assert "training.batch_sise: " in ended.err
    assert ended.out == ""


def test_a_bad_dataset_is_answered_line_by_line(on_stack: Main, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n{"text": \n')

    ended = on_stack("datasets", "push", str(path))

    assert ended.status == 1
    assert "line 2 is not JSON" in ended.err


def test_a_dataset_is_pushed_and_listed(on_stack: Main, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("one\n\ntwo\nthree\n")

    ended = on_stack("datasets", "push", str(path), "--split", "line")

    assert ended.status == 0
    assert ended.out.startswith("ds_")
    assert ended.out.count("\n") == 1
    assert "3 rows" in ended.err
    assert f"{ended.out.strip()}  lines.txt  txt     3" in on_stack("datasets", "list").out


def test_a_file_of_another_format_is_refused_before_anything_is_sent(
    epochd: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EPOCHD_URL", "http://127.0.0.1:9")  # where nobody would answer
    (tmp_path / "table.csv").write_text("a,b")

    ended = epochd("datasets", "push", "table.csv")

    assert (ended.status, "'table.csv' is none of these" in ended.err) == (1, True)
