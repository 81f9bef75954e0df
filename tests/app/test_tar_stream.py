"""The archive's layout, where no real checkpoint of a test goes: long names and huge files."""

import io
import tarfile
from pathlib import Path

from app.ranged_response import FileSegment
from app.tar_stream import tar_segments


def test_a_long_name_and_padding_survive() -> None:
    files = [("x" * 180, b"a" * 512), ("y", b"b" * 513), ("é", b"")]
    data = b"".join(part for part in tar_segments("folder", files, 7) if isinstance(part, bytes))
    assert len(data) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["folder", *(f"folder/{name}" for name, _ in files)]
        for name, content in files:
            extracted = archive.extractfile(f"folder/{name}")
            assert extracted is not None
            assert extracted.read() == content


def test_a_file_over_8_gib_has_a_header_that_says_so() -> None:
    size = 9 * 2**30 + 1
    segments = tar_segments("folder", [("big", FileSegment(Path("/nowhere"), size))], 7)
    header = segments[1]
    assert isinstance(header, bytes)
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size
    assert sum(map(len, segments)) % 512 == 0
