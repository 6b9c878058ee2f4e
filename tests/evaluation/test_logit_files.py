"""Files of logits, whole and damaged, give the right arrays or one line that says what to mend."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import numpy as safetensors
from safetensors.torch import save_file

from ftc import InputError
from ftc.evaluation.logit_files import read_logits
from ftc.functional.inputs import as_tensor

LOGITS = np.linspace(-2, 2, 12, dtype=np.float32).reshape(4, 3)
TARGET = np.array([0, 2, 1, 0])
WHOLE = {"logits": LOGITS, "target": TARGET, "source_logits": LOGITS + 1}
Arrays = dict[str, np.ndarray]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def huge(shape: tuple[int, ...] = (2**40, 3), dtype: str = "<f4", version: tuple[int, int] = (1, 0)) -> bytes:
    """A short ``.npy`` file whose header tells of terabytes."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    write = np.lib.format.write_array_header_1_0 if version[0] == 1 else np.lib.format.write_array_header_2_0
    write(file, header)
    return file.getvalue() + LOGITS.tobytes()


def structured(content: Arrays) -> np.ndarray:
    table = np.zeros(len(LOGITS), [(name, array.dtype, array.shape[1:]) for name, array in content.items()])
    for name, array in content.items():
        table[name] = array
    return table


def as_npz(content: Arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def as_parquet(columns: dict[str, object]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


WRITERS: dict[str, Callable[[Arrays], bytes]] = {
    ".npz": as_npz,
    ".npy": lambda content: npy(structured(content)),
    ".safetensors": safetensors.save,
    ".parquet": lambda content: as_parquet({name: array.tolist() for name, array in content.items()}),
}


def read(path: Path, content: bytes):
    path.write_bytes(content)
    return read_logits("eval", path)


def check(found, logits=LOGITS, target=TARGET) -> None:
    np.testing.assert_allclose(found.logits.numpy(), logits, rtol=1e-6)
    np.testing.assert_array_equal(found.target.numpy(), target)
    assert found.logits.dtype in (torch.float32, torch.float64)
    assert found.target.dtype == torch.int64


def refused(path: Path, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_logits("eval", path)
    line = str(caught.value)
    # The file, or the one in the folder, then the reason and the mend.
    assert re.match(rf"eval={re.escape(str(path))}(/\w+.npy)?: .*{reason}.*; \w+", line), line
    assert len(line.splitlines()) == 1
    assert len(line) < 600


@pytest.mark.parametrize("suffix", [".NPZ", ".Npy", ".SafeTensors", ".PARQUET"])
def test_suffixes_may_be_in_capitals(suffix, tmp_path):
    check(read(tmp_path / f"data{suffix}", WRITERS[suffix.lower()](WHOLE)))


def test_a_folder_may_have_suffixes_in_capitals(tmp_path):
    for name, array in WHOLE.items():
        (tmp_path / f"{name}.NPY").write_bytes(npy(array))
    check(read_logits("eval", tmp_path))


CONVERTED: dict[str, Arrays] = {
    "big-endian": {"logits": LOGITS.astype(">f4"), "target": TARGET.astype(">i8")},
    "big-endian halves": {"logits": LOGITS.astype(np.float16).astype(">f2"), "target": TARGET.astype(">i2")},
    "long double": {"logits": LOGITS.astype(np.longdouble), "target": TARGET},
    "double": {"logits": LOGITS.astype(np.float64), "target": TARGET},
    "columns first": {"logits": np.asfortranarray(LOGITS), "target": TARGET},
    "whole floats": {"logits": LOGITS, "target": TARGET.astype(np.float32)},
    "whole long doubles": {"logits": LOGITS, "target": TARGET.astype(np.longdouble)},
    "unsigned": {"logits": LOGITS, "target": TARGET.astype(np.uint64)},
}


@pytest.mark.parametrize("case", CONVERTED)
def test_numbers_of_any_kind_are_converted(case, tmp_path):
    content = CONVERTED[case]
    logits = content["logits"].astype(np.float32)
    check(read(tmp_path / "data.npz", as_npz(content)), logits)
    check(read(tmp_path / "data.npy", npy(structured(content))), logits)
    for name, array in content.items():
        (tmp_path / f"{name}.npy").write_bytes(npy(array))
    (tmp_path / "data.npy").unlink()
    check(read_logits("eval", tmp_path), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_half_precision_becomes_float32(dtype, tmp_path):
    logits = torch.tensor(LOGITS).to(dtype)
    path = tmp_path / "data.safetensors"
    save_file({"logits": logits, "target": torch.tensor(TARGET, dtype=torch.uint8)}, path)
    found = read_logits("eval", path)
    assert found.logits.dtype == torch.float32
    check(found, logits.float().numpy())


@pytest.mark.parametrize(
    "column",
    [
        pa.FixedSizeListArray.from_arrays(pa.array(LOGITS.ravel()), 3),
        pa.array(LOGITS.tolist(), pa.large_list(pa.float64())),
        pa.FixedShapeTensorArray.from_numpy_ndarray(LOGITS),
        pa.chunked_array([LOGITS[:1].tolist(), LOGITS[1:].tolist()]),
        pa.array([[9.0] * 3, *LOGITS.tolist()], pa.list_(pa.float32()))[1:],
    ],
)
def test_lists_of_every_kind(column, tmp_path):
    check(read(tmp_path / "data.parquet", as_parquet({"logits": column, "target": TARGET.astype(float)})))


def test_a_folder_named_as_a_partition_adds_no_column(tmp_path):
    folder = tmp_path / "source_logits=1"
    folder.mkdir()
    content = {"logits": LOGITS.tolist(), "target": TARGET}
    assert read(folder / "data.parquet", as_parquet(content)).source_logits is None


DAMAGED_ARRAYS: dict[str, tuple[Arrays, str]] = {
    "text": ({"logits": np.array([["a", "b"]])}, "no numbers that torch has"),
    "bytes": ({"logits": np.array([[b"a"]])}, "no numbers that torch has"),
    "empty text": ({"logits": np.zeros((4, 3), "U0")}, "no numbers that torch has"),
    "dates": ({"logits": np.zeros((4, 3), "M8[s]")}, "no numbers that torch has"),
    "fields": ({"logits": np.zeros(4, [("a", "f4")])}, "no numbers that torch has"),
    "raw": ({"logits": np.zeros((4, 3), "V2")}, "no numbers that torch has"),
    "complex": ({"logits": LOGITS.astype(complex)}, "dtype torch.complex128"),
    "long complex": ({"logits": LOGITS.astype(np.clongdouble)}, "no numbers that torch has"),
    "truth values": ({"logits": LOGITS > 0}, "dtype torch.bool"),
    "whole numbers": ({"logits": LOGITS.astype(np.int8)}, "dtype torch.int8"),
    "0-D": ({"logits": np.float32(1)}, r"logits have shape \(\)"),
    "1-D": ({"logits": LOGITS[0]}, r"logits have shape \(3,\)"),
    "3-D": ({"logits": LOGITS[None]}, r"logits have shape \(1, 4, 3\)"),
    "no rows": ({"logits": LOGITS[:0]}, r"logits have shape \(0, 3\)"),
    "no columns": ({"logits": LOGITS[:, :0]}, r"logits have shape \(4, 0\)"),
    "too long for float64": (
        {"logits": np.full((4, 3), np.finfo(np.longdouble).max)},
        "logits of row 0 are not finite",
    ),
    "other source": ({**WHOLE, "source_logits": LOGITS[:, :2]}, "2 columns of source_logits but 3 of logits"),
    "source of text": ({**WHOLE, "source_logits": LOGITS.astype(str)}, "source_logits: values of type <U"),
    "source not finite": (
        {**WHOLE, "source_logits": np.where(LOGITS < 1.5, LOGITS, np.nan)},
        "source_logits: logits of row 3 are not finite",
    ),
    "source 1-D": ({**WHOLE, "source_logits": TARGET * 0.5}, r"source_logits have shape \(4,\)"),
    "target 0-D": ({**WHOLE, "target": np.array(1)}, r"target has shape \(\)"),
    "target 2-D": ({**WHOLE, "target": TARGET[:, None]}, r"target has shape \(4, 1\)"),
    "target of parts": ({**WHOLE, "target": TARGET + 0.5}, "target of row 0 is 0.5"),
    "target not finite": ({**WHOLE, "target": np.array([0, np.nan, 1, 2])}, "target of row 1 is nan"),
    "target too large": ({**WHOLE, "target": np.array([0, 1, 1e30, 2])}, "target of row 2 is 1e"),
    "target of truth values": ({**WHOLE, "target": TARGET > 0}, "dtype torch.bool"),
    "target complex": ({**WHOLE, "target": TARGET * 1j}, "dtype torch.complex128"),
    "target of text": ({**WHOLE, "target": TARGET.astype(str)}, "target: values of type <U"),
    "short target": ({**WHOLE, "target": TARGET[:2]}, "2 rows of target but 4 of logits"),
    "nothing": ({}, "no array 'logits' in it, only nothing"),
    "objects": ({"logits": np.array([{}], dtype=object)}, "Object arrays cannot be loaded"),
}


@pytest.mark.parametrize("case", DAMAGED_ARRAYS)
def test_arrays_that_are_no_logits_get_one_line(case, tmp_path):
    content, reason = DAMAGED_ARRAYS[case]
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, array in content.items():
        (folder / f"{name}.npy").write_bytes(npy(array))
    refused(folder, reason)
    (tmp_path / "data.npz").write_bytes(as_npz(content))
    refused(tmp_path / "data.npz", reason)


def test_a_structured_array_without_logits(tmp_path):
    (tmp_path / "data.npy").write_bytes(npy(structured({"target": TARGET})))
    refused(tmp_path / "data.npy", "no array 'logits' in it, only target")


def zipped(content: bytes, encrypted: bool = False, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("logits.npy", content)
    found = bytearray(file.getvalue())
    if encrypted:  # the flag in the member's own header and in the directory at the end
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            found[found.index(signature) + offset] |= 1
    return bytes(found)


TERABYTES = "its header tells of an array of shape"
DAMAGED_FILES: dict[str, tuple[str, bytes, str]] = {
    **{f"zero bytes {suffix}": (suffix, b"", "cannot be read") for suffix in WRITERS},
    **{f"text {suffix}": (suffix, b"logits,target\n" * 99, "cannot be read") for suffix in WRITERS},
    **{
        f"half {suffix}": (suffix, write(WHOLE)[: len(write(WHOLE)) // 2], "cannot be read")
        for suffix, write in WRITERS.items()
    },
    "terabytes": (".npy", huge(), TERABYTES),
    "terabytes, version 2": (".npy", huge(version=(2, 0)), TERABYTES),
    "more than can be counted": (".npy", huge((2**70, 2**70)), TERABYTES),
    "negative": (".npy", huge((-1, 3)), TERABYTES),
    "terabytes in .npz": (".npz", zipped(huge()), TERABYTES),
    "terabytes in .npz, compressed": (".npz", zipped(huge(), method=zipfile.ZIP_DEFLATED), TERABYTES),
    "encrypted": (".npz", zipped(npy(LOGITS), encrypted=True), "encrypted"),
    "no array in .npz": (".npz", zipped(b"text"), "cannot be read"),
    ".npz as .npy": (".npy", as_npz(WHOLE), "cannot be read"),
    ".npy as .npz": (".npz", npy(LOGITS), "cannot be read"),
    "deep header": (".npy", huge(dtype="(" * 5000), "cannot be read"),
    "deep JSON": (".safetensors", (200_000).to_bytes(8, "little") + b"[" * 200_000, "cannot be read"),
    "long header": (".safetensors", (2**62).to_bytes(8, "little") + b"{}", "cannot be read"),
    "int8": (".safetensors", safetensors.save({"logits": LOGITS.astype(np.int8)}), "dtype torch.int8"),
    **{
        f"parquet, {name}": (".parquet", as_parquet({"logits": column}), reason)
        for name, column, reason in (
            ("text", ["a", "b"], "column logits holds string"),
            ("lists of text", [["a"], ["b"]], r"column logits holds list<"),
            ("structs", [{"a": 1.0}], "column logits holds struct"),
            ("nested lists", [[[1.0]]], r"column logits holds list<.*list<"),
            ("truth values", [[True]], "column logits holds list<"),
            ("decimals", pa.array([[1]], pa.list_(pa.decimal128(5, 2))), "column logits holds list<"),
            ("nothing but nulls", [None, None], "column logits holds null"),
            ("unequal lists", [[1.0, 2.0], [1.0]], "rows of logits have 1 to 2 values"),
            ("null rows", [[1.0], None], "column logits has empty cells"),
            ("null values", [[1.0, None]], "column logits has empty cells"),
            ("no lists", [1.0, 2.0], r"logits have shape \(2,\)"),
            ("no rows", pa.array([], pa.list_(pa.float32())), r"logits have shape \(0, 0\)"),
            ("whole numbers", [[1, 2]], "dtype torch.int64"),
        )
    },
    "parquet, target with nulls": (
        ".parquet",
        as_parquet({"logits": [[1.0], [2.0]], "target": [1, None]}),
        "column target has empty cells",
    ),
}


@pytest.mark.parametrize("case", DAMAGED_FILES)
def test_damaged_files_get_one_line(case, tmp_path):
    suffix, content, reason = DAMAGED_FILES[case]
    (tmp_path / f"data{suffix}").write_bytes(content)
    refused(tmp_path / f"data{suffix}", reason)
    if suffix == ".npy":
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "target.npy").write_bytes(npy(TARGET))
        (folder / "logits.npy").write_bytes(content)
        with pytest.raises(InputError, match=f"eval={re.escape(str(folder / 'logits.npy'))}: cannot be read"):
            read_logits("eval", folder)


@pytest.mark.parametrize("error", [MemoryError, RecursionError, OSError, KeyError("logits")])
def test_errors_of_readers_become_one_line(error, tmp_path, monkeypatch):
    def read_array(*arguments, **settings):
        raise error

    (tmp_path / "data.npy").write_bytes(npy(LOGITS))
    monkeypatch.setattr(np.lib.format, "read_array", read_array)
    refused(tmp_path / "data.npy", "cannot be read")


def test_what_is_neither_file_nor_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(InputError, match="no such file"):
        read_logits("eval", tmp_path / "pipe.npy")


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "logits.txt"
    path.write_text("0")
    with pytest.raises(InputError, match=r"choose a file that ends in .npz, .npy, .safetensors, .parquet$"):
        read_logits("eval", path)


@settings(max_examples=200)
@given(st.data())
def test_random_and_truncated_files_are_refused_or_right(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(sorted(WRITERS)))
    whole = WRITERS[suffix](WHOLE)
    cut = st.integers(0, len(whole)).map(lambda length: whole[:length])
    content = data.draw(st.one_of(cut, st.binary(), st.binary().map(lambda more: whole[:10] + more)))
    try:
        found = read(tmp_path_factory.getbasetemp() / f"random{suffix}", content)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        check(found)


@settings(max_examples=200)
@given(st.data())
def test_changed_files_raise_nothing_but_input_errors(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(sorted(WRITERS)))
    content = bytearray(WRITERS[suffix](WHOLE))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    try:
        found = read(tmp_path_factory.getbasetemp() / f"changed{suffix}", bytes(content))
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert found.logits.isfinite().all()


@pytest.mark.parametrize(
    "values", [LOGITS[::-1], LOGITS[:, ::-1], structured(WHOLE)["logits"], LOGITS.astype(">f8"), LOGITS.T]
)
def test_views_of_arrays_become_tensors(values):
    np.testing.assert_array_equal(as_tensor(values).numpy(), values)


@pytest.mark.parametrize("values", [["a"], [[1.0], [1.0, 2.0]], object(), np.array(["a"]), None])
def test_what_is_no_array_of_numbers_is_refused(values):
    with pytest.raises(InputError, match=r"no numbers that torch has; give numbers$"):
        as_tensor(values)
