"""Reading dataset files: the same rows for who checks and who trains, and every fault with its line."""

import hashlib
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import text_lines
from core.dataset_files import DataFile, Format, Known, Row, Split, holds_ids, lines, read_rows
from core.dataset_look import MAX_FAULTS, inspect, inspecting
from core.errors import Corrupt, Fault, InvalidInput

_COMPLETION = '{"prompt": "a", "completion": "b"}'
_CONVERSATION = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
_ONE_OF_EACH_KIND = ('{"text": "a"}', '{"input_ids": [1]}', _COMPLETION, _CONVERSATION)


@pytest.fixture
def write(tmp_path: Path):
    """Return a function that writes a file and says how to read it."""

    def write(content: bytes | str, format_: Format = "jsonl", split: Split = "blank_line") -> DataFile:
        path = tmp_path / f"corpus.{format_}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return DataFile(path=path, format=format_, split=split)

    return write


def _faults(file: DataFile) -> list[Fault]:
    with pytest.raises(InvalidInput) as caught:
        inspect(file)
    if caught.value.faults:
        with pytest.raises(InvalidInput):
            list(read_rows(file))
    return caught.value.faults


def _texts(file: DataFile) -> list[str | None]:
    return [row.text for row in read_rows(file)]


# .txt ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "split", "rows"),
    [
        ("a\nb\n\nc\n", "blank_line", ["a\nb", "c"]),
        ("a\r\nb\r\n\r\nc", "blank_line", ["a\r\nb", "c"]),
        ("\n \n\t\n  a\n\n\n\n \nb\n\n", "blank_line", ["  a", "b"]),
        ("a\nb\n\nc", "line", ["a", "b", "c"]),
        (" a \r\n\r\nb\r\n", "line", [" a ", "b"]),
        ("a\n\nb\n", "file", ["a\n\nb"]),
        ("\n\na\n", "file", ["a"]),
        ("é漢😀", "blank_line", ["é漢😀"]),
        ("a\u2028b\x0bc\x85d", "line", ["a\u2028b\x0bc\x85d"]),  # only a newline ends a line
    ],
)
def test_a_text_is_split_as_asked(write, content: str, split: Split, rows: list[str]) -> None:
    file = write(content, "txt", split)
    assert _texts(file) == rows
    report = inspect(file)
    assert (report.rows, report.columns, report.largest_id) == (len(rows), ["text"], None)


def test_a_byte_order_mark_is_no_text(write) -> None:
    assert _texts(write(b"\xef\xbb\xbfa", "txt")) == ["a"]
    assert _texts(write(b'\xef\xbb\xbf{"text": "a"}', "jsonl")) == ["a"]
    assert _faults(write(b"\xef\xbb\xbf", "txt")) == []


def test_blank_lines_are_counted_as_skipped_where_a_line_is_a_row(write) -> None:
    report = inspect(write("a\n\n \nb", "txt", "line"))
    assert (report.rows, report.skipped_rows, report.columns) == (2, 2, ["text"])
    assert report.warnings == [{"line": line, "message": "empty, will be skipped"} for line in (2, 3)]


@pytest.mark.parametrize("format_", ["txt", "jsonl"])
@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\r\n\n", b"\xef\xbb\xbf\n"])
@pytest.mark.parametrize("split", ["blank_line", "line", "file"])
def test_a_file_of_nothing_has_no_usable_row(write, content: bytes, format_: Format, split: Split) -> None:
    file = write(content, format_, split)
    with pytest.raises(InvalidInput, match="no usable row"):
        inspect(file)
    assert list(read_rows(file)) == []


# Faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["txt", "jsonl"])
@pytest.mark.parametrize(
    ("bad", "word"),
    [(b"a\x00b", "NUL byte"), (b"caf\xe9", "not UTF-8"), (b"\xed\xa0\x80", "not UTF-8"), (b"\xff\xfe", "not UTF-8")],
)
def test_what_is_not_text_is_refused_at_its_line(write, format_: Format, bad: bytes, word: str) -> None:
    good = b'{"text": "a"}\n'
    (fault,) = _faults(write(good * 2 + bad + b"\n" + good, format_))
    assert fault.loc == ("line", 3)
    assert word in fault.msg


def test_utf_16_is_refused_with_the_way_out(write) -> None:
    (fault,) = _faults(write("hello\n".encode("utf-16"), "txt"))
    assert fault.loc == ("line", 1)
    assert "?encoding=utf-16" in fault.msg


def test_what_is_not_utf_8_is_refused_with_the_way_out(write) -> None:
    (fault,) = _faults(write("你好".encode("gb18030"), "txt"))
    assert "?encoding=gb18030, --encoding" in fault.msg


@pytest.mark.parametrize("format_", ["txt", "jsonl"])
def test_a_line_that_is_too_long_is_told(write, format_: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_ROW_BYTES", 2**20)
    (fault,) = _faults(write('{"text": "a"}\n' + "x" * (2**20 + 1), format_))
    assert fault == Fault(("line", 2), "line 2 is longer than 1 MiB")


def test_all_that_is_found_can_be_heard(write) -> None:
    heard: list[tuple[int, str]] = []
    with pytest.raises(InvalidInput) as caught:
        list(
            inspecting(
                write('{"text": ""}\n' * 30 + "x\n" * 50), max_faults=45, note=lambda *found: heard.append(found)
            )
        )
    assert len(caught.value.faults) == 45
    assert [line for line, _ in heard] == list(range(1, 76))


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{", "is not JSON: EOF while parsing an object at column 1"),
        ("nonsense", "is not JSON"),
        ('{"text": "a"} {"text": "b"}', "is not JSON"),
        ("{'text': 'a'}", "is not JSON"),
        ('{"text": "a", "x": NaN}', "is not JSON"),
        ('{"text": "a", "x": Infinity}', "is not JSON"),
        ('{"text": "\\ud800"}', "is not JSON"),
        ('{"text": "a\tb"}', "is not JSON"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "is not JSON"),
        ('{"x": ' * 100_000 + "1" + "}" * 100_000, "is not JSON"),
        ('{"input_ids": [' + "9" * 10_000 + "]}", ""),
        ("[]", "is not a JSON object"),
        ("null", "is not a JSON object"),
        ('"text"', "is not a JSON object"),
        ("{}", 'either "text", "input_ids", "prompt" and "completion", or "messages"'),
        ('{"Text": "a"}', 'either "text", "input_ids"'),
        ('{"text": "a", "input_ids": [1]}', 'either "text", "input_ids"'),
        ('{"text": "a", "messages": []}', 'either "text", "input_ids"'),
        ('{"prompt": "a"}', '"prompt" and "completion"'),
        ('{"completion": "a"}', '"prompt" and "completion"'),
        ('{"text": 1}', "not a string"),
        ('{"text": null}', "not a string"),
        ('{"text": ["a"]}', "not a string"),
        ('{"input_ids": "12"}', "whole numbers"),
        ('{"input_ids": null}', "whole numbers"),
        ('{"input_ids": {"0": 1}}', "whole numbers"),
        ('{"input_ids": [1.0]}', "whole numbers"),
        ('{"input_ids": ["1"]}', "whole numbers"),
        ('{"input_ids": [true]}', "whole numbers"),
        ('{"input_ids": [-1]}', "whole numbers"),
        ('{"input_ids": [[1]]}', "whole numbers"),
        ('{"input_ids": [2147483648]}', "whole numbers"),
        ('{"input_ids": [1, 2], "labels": [1]}', "2 input_ids and 1 labels"),
        ('{"input_ids": [1], "labels": null}', "labels that are not"),
        ('{"input_ids": [1], "labels": [-1]}', "labels that are not"),
        ('{"input_ids": [1], "labels": [-100.0]}', "labels that are not"),
        ('{"input_ids": [1], "labels": [false]}', "labels that are not"),
    ],
)
def test_a_bad_row_is_told_with_its_line_and_what_is_wrong(write, line: str, word: str) -> None:
    good = '{"input_ids": [1]}' if "input_ids" in line else '{"text": "a"}'
    (fault,) = _faults(write(f"{good}\n\n{line}\n{good}\n"))
    assert fault.loc == ("line", 3)
    assert fault.msg.startswith("line 3 ")
    assert word in fault.msg
    assert len(fault.msg) < 300


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('{"prompt": null, "completion": "a"}', "a prompt or a completion that is not a string"),
        ('{"prompt": "a", "completion": ["b"]}', "a prompt or a completion that is not a string"),
        ('{"prompt": "a", "completion": ""}', "blank completion"),
        ('{"prompt": "a", "completion": " \\n\\u3000"}', "blank completion"),
        ('{"messages": "hello"}', "messages that are not a list"),
        ('{"messages": {"role": "user", "content": "a"}}', "messages that are not a list"),
        ('{"messages": ["hello"]}', "a message 1 whose role is none of system, user, assistant"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]}',
            "a message 2 whose role",
        ),
        ('{"messages": [{"role": ["user"], "content": "a"}]}', "a message 1 whose role"),
        ('{"messages": [{"content": "a"}]}', "a message 1 whose role"),
        ('{"messages": [{"role": "user", "content": null}]}', "a message 1 whose content is not a string"),
        ('{"messages": [{"role": "user"}]}', "a message 1 whose content is not a string"),
        ('{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', "a message 1 whose content"),
        ('{"messages": []}', "no assistant message that follows another"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "no assistant message that follows another"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "no assistant message that follows another"),
    ],
)
def test_a_bad_completion_or_conversation_is_told_with_its_line(write, line: str, word: str) -> None:
    good = _COMPLETION if "prompt" in line else _CONVERSATION
    (fault,) = _faults(write(f"{good}\n{line}\n{good}\n"))
    assert fault.loc == ("line", 2)
    assert fault.msg.startswith("line 2 has ")
    assert word in fault.msg


def test_the_kind_of_rows_must_not_change(write) -> None:
    for first in _ONE_OF_EACH_KIND:
        for second in _ONE_OF_EACH_KIND:
            if first != second:
                (fault,) = _faults(write(f"{first}\n{second}\n{first}\n"))
                assert fault.loc == ("line", 2)
                assert "where the rows before have" in fault.msg


def test_the_first_twenty_faults_are_told(write) -> None:
    faults = _faults(write('{"text": "a"}\n' + '{"text": 1}\n' * 50))
    assert [fault.loc for fault in faults] == [("line", number) for number in range(2, MAX_FAULTS + 2)]


def test_the_first_twenty_warnings_are_kept_and_all_are_counted(write) -> None:
    report = inspect(write('{"text": ""}\n' * 50 + '{"text": "a"}'))
    assert (report.rows, report.skipped_rows, len(report.warnings)) == (1, 50, MAX_FAULTS)


# .jsonl --------------------------------------------------------------------------------------------------------------


def test_a_text_that_is_json_lines_is_told(write) -> None:
    for content in ('{"text": "a"}\n{"text": "b"}\n', '\n{"prompt": "a", "completion": "b"}\n\nmore\n'):
        (warning,) = inspect(write(content, "txt")).warnings
        assert warning["line"] == 1 + content.startswith("\n")
        assert ".jsonl" in warning["message"]
    for content in ("[1, 2]\n", '{"a": 1}\n', "{text}\n", 'words\n{"text": "a"}\n'):
        assert inspect(write(content, "txt")).warnings == []


def test_rows_of_token_ids(write) -> None:
    file = write(
        '{"input_ids": [0, 2147483647]}\r\n'
        '{"input_ids": []}\r\n'
        '{"input_ids": [5, 6, 7], "labels": [-100, 6, 9], "note": "x"}\r\n'
    )
    assert list(read_rows(file)) == [
        Row(input_ids=[0, 2**31 - 1], labels=[0, 2**31 - 1]),
        Row(input_ids=[5, 6, 7], labels=[-100, 6, 9]),
    ]
    report = inspect(file)
    assert (report.rows, report.skipped_rows, report.columns) == (2, 1, ["input_ids"])
    assert report.largest_id == 2**31 - 1
    assert inspect(write('{"input_ids": [1], "labels": [9]}')).largest_id == 9


def test_rows_of_prompts_and_completions(write) -> None:
    file = write('{"prompt": "", "completion": " b\\n", "prompts": 7}\n' + _COMPLETION)
    assert list(read_rows(file)) == [Row(prompt="", completion=" b\n"), Row(prompt="a", completion="b")]
    report = inspect(file)
    assert (report.rows, report.skipped_rows, report.columns) == (2, 0, ["prompt", "completion"])


def test_rows_of_conversations(write) -> None:
    messages = [
        {"role": "system", "content": ""},
        {"role": "assistant", "content": "  b"},
        {"role": "user", "content": "c"},
    ]
    file = write(json.dumps({"messages": [message | {"name": "x"} for message in messages], "id": 1}))
    assert list(read_rows(file)) == [Row(messages=messages)], "a name, or a number, is left alone"
    report = inspect(file)
    assert (report.rows, report.skipped_rows, report.columns) == (1, 0, ["messages"])


def test_the_columns_are_those_of_the_rows_kind(write) -> None:
    for line, columns in (
        ('{"text": "a", "labels": [1], "prompt": "b"}', ["text"]),
        ('{"input_ids": [1], "labels": [1], "prompt": "b"}', ["input_ids", "labels"]),
        ('{"prompt": "a", "completion": "b", "labels": [1]}', ["prompt", "completion"]),
    ):
        assert inspect(write(line)).columns == columns
        assert holds_ids(columns) == ("input_ids" in line)


def test_what_is_not_read_of_a_row_is_left_alone(write) -> None:
    extra = {f"key{number}": number for number in range(1000)}
    report = inspect(write(json.dumps(extra | {"text": "a"})))
    assert (report.rows, report.columns) == (1, ["text"])


def test_text_is_taken_as_it_is(write) -> None:
    texts = ["  a\r\nb  ", "\u2028", "\x00", "\\", "😀"]
    file = write("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert _texts(file) == [text for text in texts if text.strip()]


def test_a_file_that_is_no_longer_the_one_that_was_uploaded_is_told(write) -> None:
    content = b'{"text": "a"}\n{"text": "b"}\n'
    known = Known(
        bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), rows=2, skipped_rows=0, columns=("text",)
    )
    file = write(content).model_copy(update={"known": known})
    assert _texts(file) == ["a", "b"]
    file.path.write_bytes(content.replace(b"b", b"c"))
    with pytest.raises(Corrupt, match=r"corpus\.jsonl is damaged"):
        _texts(file)


def test_a_long_look_shows_how_far_it_is(write) -> None:
    reports = inspecting(write('{"text": "a"}\n' * 2500))
    assert [report.rows for report in reports] == [1000, 2000, 2500]


# Both readers --------------------------------------------------------------------------------------------------------

_SOME_TEXT = st.text(st.sampled_from("ab \t\r\n\x0b\x1c\x85\u2028é😀\ufeff"), max_size=40)
_SOME_ROW = st.one_of(
    st.builds(lambda text: {"text": text}, _SOME_TEXT),
    st.builds(lambda text: {"prompt": text, "completion": text}, _SOME_TEXT),
    st.builds(lambda text: {"messages": [{"role": "user", "content": text}] * 2}, _SOME_TEXT),
    st.just({"text": 1}),
    st.just({}),
)


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        _SOME_TEXT.map(str.encode),
        st.lists(_SOME_ROW.map(lambda row: json.dumps(row).encode()), max_size=6).map(b"\n".join),
        st.binary(max_size=30),
    ),
    format_=st.sampled_from(["txt", "jsonl"]),
    split=st.sampled_from(["blank_line", "line", "file"]),
)
def test_who_trains_reads_exactly_the_rows_that_the_check_counted(
    content: bytes, format_: Format, split: Split
) -> None:
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(content)
        stream.flush()
        file = DataFile(path=Path(stream.name), format=format_, split=split)
        try:
            report = inspect(file)
        except InvalidInput as error:
            if error.faults:
                with pytest.raises(InvalidInput):
                    list(read_rows(file))
            else:
                assert list(read_rows(file)) == []
            return
        rows = list(read_rows(file))
    assert len(rows) == report.rows > 0
    assert all((row.text or row.completion or "").strip() for row in rows)


_SOME_LINE = st.one_of(
    _SOME_ROW.map(lambda row: json.dumps(row).encode()),
    st.sampled_from([b"", b" ", b"nope", b"[1]", b'{"text": "a", "id": 1}', b'{"text": "\xff"}', b'{"text": "a"}, {}']),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_SOME_LINE, max_size=8))
def test_lines_say_the_same_however_many_are_read_at_once(rows: list[bytes]) -> None:
    content = b'{"text": "first"}\n' + b"\n".join(rows)
    file = DataFile(path=Path("unread"), format="jsonl")
    with pytest.MonkeyPatch.context() as patch:
        by_size = []
        for size in (1, 60, 2**20):
            patch.setattr(text_lines, "_BLOCK_BYTES", size)
            by_size.append(list(lines(file, io.BytesIO(content))))
    assert by_size[0] == by_size[1] == by_size[2]


@settings(max_examples=100, deadline=None)
@given(st.lists(_SOME_TEXT, min_size=1, max_size=6))
def test_no_character_that_shows_is_lost(texts: list[str]) -> None:
    with tempfile.NamedTemporaryFile() as stream:
        stream.write("\n\n".join(texts).encode())
        stream.flush()
        for split in ("blank_line", "line", "file"):
            rows = read_rows(DataFile(path=Path(stream.name), format="txt", split=split))
            seen = "".join("".join((row.text or "").split()) for row in rows)
            assert seen == "".join("\n\n".join(texts).removeprefix("\ufeff").split())
