from __future__ import annotations

import hashlib
import json
import re

import pytest

from ftc import ClassPartition, InputError
from ftc.partition import HeadColumns, PartitionManifest, digest_samples

NAMES = ("mug", "bed", "pen", "fan", "toy")
SAMPLES = {"train": {"count": 2, "sha256": digest_samples(["b 0", "a 2"])}}


@pytest.fixture
def manifest():
    return PartitionManifest.of(ClassPartition(5, [4, 0], [1, 2]), NAMES, SAMPLES)


def test_manifest_names_the_classes(manifest):
    assert (manifest.seen, manifest.absent) == (("mug", "toy"), ("bed", "pen"))
    assert manifest.partition(HeadColumns(NAMES)) == ClassPartition(5, [0, 4], [1, 2])


def test_file_gives_the_manifest_back(manifest, tmp_path):
    path = tmp_path / "runs" / "partition.json"
    manifest.write(path)
    assert PartitionManifest.read(path) == manifest
    assert json.loads(path.read_text()) == manifest.model_dump(mode="json", by_alias=True)
    assert [p.name for p in path.parent.iterdir()] == ["partition.json"]


def test_columns_may_be_others(manifest):
    columns = ("toy", "cup", "pen", "mug", "fan", "bed")
    assert manifest.partition(HeadColumns(columns)) == ClassPartition(6, [0, 3], [2, 5])


def test_unknown_classes_are_listed(manifest):
    with pytest.raises(InputError, match="classes toy, pen are no class names"):
        manifest.partition(HeadColumns(("mug", "bed", "fan")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("a", "b", "a"), ("b",), ()), "a names two columns"),
        ((("a", "b"), ("c",), ("d",)), "classes c, d are no class names"),
        ((("a", "b"), ("a",), ("a",)), "is seen as well"),
        ((("a", "b"), (), ("a",)), "no column"),
        ((("a", "b"), ("a", "a"), ()), "listed twice"),
    ],
)
def test_manifests_that_contradict_themselves(arguments, message):
    with pytest.raises(ValueError, match=message):
        PartitionManifest(**dict(zip(("class_names", "seen", "absent"), arguments, strict=True)))


def test_every_column_wants_a_name():
    with pytest.raises(InputError, match="class_names: 2 for a head of 3; give one a column"):
        PartitionManifest.of(ClassPartition(3, [0]), ("a", "b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 9}, "schema 9, this version reads 1"),
        ({"seen": "mug"}, "(seen: input should be a valid array)"),
        ({"absent": None}, "(absent: input should be a valid array)"),
        ({"class_names": [1, 2]}, "(class_names.0: input should be a valid string)"),
        ({"samples": {"train": {"count": 2}}}, "(samples.train.sha256: field required)"),
        ({"samples": {"train": {"count": True, "sha256": ""}}}, "(samples.train.count: input should be"),
        ({"samples": []}, "(samples: input should be an object)"),
        ({"seen": ["cup"]}, "classes cup are no class names"),
    ],
)
def test_files_that_say_something_else(manifest, tmp_path, change, message):
    path = tmp_path / "partition.json"
    path.write_text(json.dumps(manifest.model_dump(mode="json", by_alias=True) | change))
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}"):
        PartitionManifest.read(path)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"{", b"\xff", b"[" * 100_000, b'"x"'])
def test_files_that_are_no_manifests(tmp_path, content):
    path = tmp_path / "partition.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a partition manifest"):
        PartitionManifest.read(path)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        PartitionManifest.read(tmp_path / "partition.json")
    with pytest.raises(InputError, match="not a partition manifest"):
        PartitionManifest.read(tmp_path)


def test_digest_is_of_the_sorted_lines():
    lines = ["Art/b c.jpg 1", "Art/a.jpg 0", "Art/é.jpg 0"]
    expected = hashlib.sha256("Art/a.jpg 0\nArt/b c.jpg 1\nArt/é.jpg 0\n".encode()).hexdigest()
    assert digest_samples(lines) == digest_samples(iter(lines[::-1])) == expected
    different = [lines[:2], [*lines, lines[0]], ["Art/a.jpg 0Art/b c.jpg 1", lines[2]]]
    assert expected not in {digest_samples(other) for other in different}
    assert len(digest_samples(["\udcff.jpg 0"])) == 64
