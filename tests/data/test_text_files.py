"""Text that users write: its encoding, its line ends, its numbers, and JSON of any kind."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftc import InputError
from ftc.benchmarks.catalogue import read_table
from ftc.data.columns import columns_of_file
from ftc.data.groups import group_finder
from ftc.data.listing import read_fields, read_list
from ftc.files import printable, read_text

# A file's name → the text in it, a function that reads it, and what it reads.
FILES: dict[str, tuple[str, Callable[[Path], Any], Any]] = {
    "names.txt": ("Käse\nBrot\n", lambda path: columns_of_file(path).names, ("Käse", "Brot")),
    "names.json": ('["Käse",\n"Brot"]', lambda path: columns_of_file(path).names, ("Käse", "Brot")),
    "list.txt": ("Käse/1 2.jpg 0\n\nb.jpg -1\n", read_list, [("Käse/1 2.jpg", 0), ("b.jpg", -1)]),
    "groups.txt": ("Käse.jpg k\n", lambda path: group_finder(str(path))("Käse.jpg"), "k"),
    "table.csv": ("name,y\nKäse,0\n", lambda path: read_table(path, ["name"]), [{"name": "Käse", "y": "0"}]),
}


@pytest.mark.parametrize("name", FILES)
def test_byte_order_marks_and_line_ends_are_no_text(tmp_path, name):
    text, read, expected = FILES[name]
    for content in (text, text.replace("\n", "\r\n"), text.rstrip("\n")):
        for mark in (b"", codecs.BOM_UTF8):
            (tmp_path / name).write_bytes(mark + content.encode())
            assert read(tmp_path / name) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("name", FILES)
def test_other_encodings_are_named(tmp_path, name, encoding):
    text, read, _ = FILES[name]
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (tmp_path / name).write_bytes(mark + text.encode(encoding))
    kind = "not UTF-8" if encoding == "latin-1" else "UTF-16"
    with pytest.raises(InputError, match=rf"{name}: is {kind} text; save it as UTF-8$"):
        read(tmp_path / name)


# What is no file of groups is a regular expression.
@pytest.mark.parametrize("name", [name for name in FILES if name != "groups.txt"])
def test_files_that_cannot_be_read(tmp_path, name):
    _, read, _ = FILES[name]
    (tmp_path / name).mkdir()
    for path in (tmp_path / name, tmp_path / "gone" / name):
        with pytest.raises(InputError, match=r"read \((Is a directory|No such file|\w+Error)"):
            read(path)


def test_utf_16_without_a_mark(tmp_path):
    (tmp_path / "list.txt").write_bytes("a.jpg 0".encode("utf-16-le"))
    with pytest.raises(InputError, match="is UTF-16 text"):
        read_text(tmp_path / "list.txt")


@pytest.mark.parametrize("label", ["²", "٣", "1.0", "--1", "+1", "1_0", "0x1", "9" * 5000, "nan"])
def test_labels_are_whole_numbers_of_ascii_digits(tmp_path, label):
    (tmp_path / "list.txt").write_text(f"a.jpg 0\nb.jpg {label}\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"list\.txt: line 2 is 'b\.jpg .*'; write one image a line"
    ) as caught:
        read_list(tmp_path / "list.txt")
    assert "\n" not in str(caught.value)


NAMES = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.tuples(NAMES, st.integers(-9, 9)), min_size=1), st.sampled_from(["\n", "\r\n"]))
def test_a_line_holds_every_name_without_a_line_feed(tmp_path_factory, lines, end):
    # Blanks and carriage returns at either end belong to the line.
    lines = [(f"x{name}.jpg", label) for name, label in lines]
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    path.write_bytes("".join(f"{name} {label}{end}" for name, label in lines).encode())
    assert read_list(path) == lines
    assert read_fields(path, "NAME GROUP") == [(name, str(label)) for name, label in lines]


@given(st.text(st.characters()))
def test_printable_names_are_one_line_of_utf_8_and_stay_so(name):
    escaped = printable(name)
    assert escaped.encode() and len(escaped.splitlines()) == 1 if name else not escaped
    assert printable(escaped) == escaped


JSON = {
    "[" * 100_000: r"not a file of names \(RecursionError\)",
    '{"a": ' * 100_000: r"not a file of names \(RecursionError\)",
    '{"a": 0, "b": 1, "a": 2}': "'a' is named twice; name it once",
    '["a", "b", "a"]': "a names two columns",
    '{"caf\\u00e9": 0, "cafe\\u0301": 1}': "names two columns",
    '["a", 1]': "neither a name a line nor",
    '["a", null]': "neither a name a line nor",
    '{"a": 0, "b": true}': "neither a name a line nor",
    '{"a": 0, "b": 1.0}': "neither a name a line nor",
    '["\\ud800"]': r"not a file of names \(UnicodeEncodeError\)",
    f'{{"a": {"9" * 5000}}}': "not a file of names",
    '"a"': "neither a name a line nor",
    "": r"not a file of names \(JSONDecodeError\)",
}


@pytest.mark.parametrize("content", JSON, ids=lambda content: content[:30])
def test_json_that_names_no_columns(tmp_path, content):
    (tmp_path / "names.json").write_text(content)
    with pytest.raises(InputError, match=JSON[content]) as caught:
        columns_of_file(tmp_path / "names.json")
    assert "\n" not in str(caught.value)
