"""What a GGUF says of itself, read before its weights."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from memoryd.errors import ModelFileError
from memoryd.models.gguf_header import read_header, read_whole_header

WORDS = ["a", "bé", "", "日本", "e", "f"]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Give a GGUF that has a value of each type."""
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "bert")
    for kind, value in {
        "uint8": 200,
        "int8": -100,
        "uint16": 60_000,
        "int16": -30_000,
        "uint32": 4_000_000_000,
        "int32": -2_000_000_000,
        "uint64": 2**63,
        "int64": -(2**62),
        "float32": 0.5,
        "float64": 0.1,
        "bool": True,
        "string": "日本",
    }.items():
        getattr(writer, f"add_{kind}")(f"x.{kind}", value)
    writer.add_array("x.short", [1, 2, 3])
    writer.add_array("x.long", list(range(100)))
    writer.add_array("x.words", WORDS)
    writer.add_context_length(77)
    writer.add_tensor("small", np.zeros((3, 5), dtype=np.float32))
    writer.add_tensor("large", np.zeros((8, 32), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_values_of_all_types_are_read(written: Path) -> None:
    header = read_header(written)
    values = {key: value for key, value in header.values.items() if key.startswith("x.")}
    assert values == {
        "x.uint8": 200,
        "x.int8": -100,
        "x.uint16": 60_000,
        "x.int16": -30_000,
        "x.uint32": 4_000_000_000,
        "x.int32": -2_000_000_000,
        "x.uint64": 2**63,
        "x.int64": -(2**62),
        "x.float32": 0.5,
        "x.float64": 0.1,
        "x.bool": True,
        "x.string": "日本",
        "x.short": [1, 2, 3],
        "x.long": [],
        "x.words": [],
    }
    assert (header.architecture, header.own("context_length")) == ("bert", 77)
    assert header.own("nothing") is None


def test_weights_are_counted_and_their_type_is_that_of_most(written: Path) -> None:
    header = read_header(written)
    assert (header.parameter_count, header.weight_type) == (3 * 5 + 8 * 32, "F16")


def test_long_lists_are_read_where_all_is_wanted(written: Path) -> None:
    values = read_whole_header(written).values
    assert (values["x.long"], values["x.words"]) == (list(range(100)), WORDS)


def test_a_file_that_has_changed_is_read_again(written: Path) -> None:
    assert read_header(written) is read_header(written)
    content = written.read_bytes()
    written.write_bytes(content.replace(b"bert", b"burt"))
    assert read_header(written).architecture == "burt"


def test_wherever_a_file_is_cut_its_header_is_refused(written: Path) -> None:
    content = written.read_bytes()
    end = content.index(b"small") - 8
    for size in range(0, end, 7):
        written.write_bytes(content[:size])
        for read in (read_header, read_whole_header):
            with pytest.raises(ModelFileError, match="no GGUF that can be read"):
                read(written)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGML" + bytes(40),
        b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62),
        b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99),
        b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 2**60),
        b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 3),
        b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 30),
        b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 99),
        b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 1, 0, 1, b"t", 0, 9999, 0),
    ],
)
def test_nonsense_is_refused_at_once(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="no GGUF that can be read"):
        read_header(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    for read in (read_header, read_whole_header):
        with pytest.raises(ModelFileError, match="can't be read: No such file"):
            read(tmp_path / "x.gguf")
