"""How seen and absent classes are chosen, whatever the data."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from ftc import ClassPartition, InputError
from ftc.config.partition import PartitionConfig, PartitionContext, PartitionRule
from ftc.partition import HeadColumns, PartitionManifest
from tests.replicas import OFFICE_HOME, paper_clone

NAMES = ("ant", "bear", "cat", "dog", "eel", "fox")
SAMPLES = {"train": {"count": 40, "sha256": "a" * 64}, "test": {"count": 9, "sha256": "b" * 64}}


def split(**values) -> PartitionRule:
    return TypeAdapter(PartitionConfig).validate_python(values)


def drawn(kind="random", **values) -> PartitionRule:
    named = {"seen": None, "absent": None} if kind == "random" else {}
    return split(**{"kind": kind, "seed": 0, "num_seen": 2, "num_absent": None, **named, **values})


def context(names=NAMES, trained=(0, 1, 2, 3), evaluated=(0, 1, 2, 3, 4)) -> PartitionContext:
    means = torch.eye(len(names))
    return PartitionContext(HeadColumns(names), trained, evaluated, SAMPLES, means)


def test_classes_are_drawn_among_those_with_training_images():
    for seed in range(5):
        partition = drawn(seed=seed).build(context())
        assert {*partition.seen, *partition.absent} == {0, 1, 2, 3}
        assert partition.others == (4, 5)
    assert len({drawn(seed=seed).build(context()).seen for seed in range(10)}) > 2
    # All classes having images, the draw is the one that needs no data.
    whole = drawn().build(context(trained=range(6)))
    assert whole == ClassPartition.random(6, 2, seed=0)
    with pytest.raises(InputError, match=r"partition\.num_seen=5: .* do not fit the 4 classes with images"):
        drawn(num_seen=5).build(context())


def test_classes_by_name_or_column():
    partition = drawn(seen=["cat", 0], absent=["fox"]).build(context())
    assert (partition.seen, partition.absent) == ((0, 2), (5,))
    assert drawn(seen=["cat"]).build(context()).absent == (0, 1, 3, 4, 5)
    with pytest.raises(InputError, match=r"partition\.seen=bare: no such class; did you mean bear\? choose"):
        drawn(seen=["bare"]).build(context())
    with pytest.raises(InputError, match=r"partition\.absent=\['cat'\]: column 2 is seen as well"):
        drawn(seen=["cat"], absent=["cat"]).build(context())


NUMBERS = ("1", "2", "3", "4")


def numbered(*seen, names=NUMBERS):
    return drawn(seen=list(seen)).build(context(names, trained=range(4), evaluated=range(4))).seen


def test_numbers_that_are_names_of_other_columns_are_refused():
    message = r'seen=1: column 1 is the class 2, but the class 1 is column 0; write column:1 .* the name: "1"'
    with pytest.raises(InputError, match=message):
        numbered(1, 2)
    assert numbered("1", "2") == (0, 1)
    assert numbered("column:1", "column:2") == (1, 2)
    # No such column, so it is the name; years, or labels that begin at 10.
    assert numbered(4, "1") == (0, 3)
    assert numbered(2019, 2021, names=("2019", "2020", "2021", "2022")) == (0, 2)
    # Names that are their own columns' numbers say the same either way.
    assert numbered(1, "2", names=("0", "1", "2", "3")) == (1, 2)
    # A name wins over a spelling.
    assert numbered("column:1", names=("a", "b", "column:1", "c")) == (2,)


@pytest.mark.parametrize("wrong", [[True, False], [1.5], [None]])
def test_what_is_neither_number_nor_name_is_no_class(wrong):
    with pytest.raises(ValidationError):
        drawn(seen=wrong)


@pytest.mark.parametrize("kind", ["near", "far"])
def test_semantic_splits_have_the_sizes_asked_for(kind):
    partition = drawn(kind, num_absent=1).build(context())
    assert (len(partition.seen), len(partition.absent)) == (2, 1)
    with pytest.raises(InputError, match=r"partition\.num_seen=7"):
        drawn(kind, num_seen=7).check(6)


def test_as_the_data_are():
    rest = split(kind="data", absent="rest").build(context())
    assert (rest.seen, rest.absent) == ((0, 1, 2, 3), (4, 5))
    evaluated = split(kind="data", absent="evaluated").build(context())
    assert (evaluated.absent, evaluated.others) == ((4,), (5,))


@pytest.fixture
def paper(tmp_path):
    paper_clone(tmp_path / "clone")
    published = {
        "benchmark": "OfficeHome",
        "lists": "*.txt",
        "order": "Ar",
        "orders": {"Ar": "OFFICEHOME_SOURCE_AR_CLASSES", "Rw": "OFFICEHOME_SOURCE_RW_CLASSES"},
    }
    repo = str(tmp_path / "clone")
    return {"kind": "paper", "repo": repo, "num_seen": 2, "num_absent": 3, "published": published}


def test_the_published_order_under_any_order_of_columns(paper):
    expected = split(**paper).build(context(OFFICE_HOME))
    assert (len(expected.seen), len(expected.absent)) == (2, 3)
    names = sorted(OFFICE_HOME)
    partition = split(**paper).build(context(names))
    assert {names[c] for c in partition.seen} == {OFFICE_HOME[c] for c in expected.seen}
    assert {names[c] for c in partition.absent} == {OFFICE_HOME[c] for c in expected.absent}
    with pytest.raises(InputError, match=r"paper_repo=.*: class \d \(.*\) has no head column"):
        split(**paper).build(context())


def test_absent_classes_may_be_none(paper):
    assert split(**paper | {"num_absent": 0}).build(context(OFFICE_HOME)).absent == ()


PUBLISHED = {
    ("repo", None): "paper_repo=null: give the folder of your clone",
    ("repo", "nowhere"): "paper_repo=nowhere",
    ("num_seen", 5): r"partition\.num_seen=5: with partition\.num_absent=3 more than .* 6 classes",
    ("order", "Cl"): "no class order was published for Cl; choose from Ar, Rw",
}


@pytest.mark.parametrize("change", PUBLISHED)
def test_what_a_clone_cannot_give(paper, change):
    key, value = change
    changed = (
        paper | {"published": paper["published"] | {key: value}} if key == "order" else paper | {key: value}
    )
    with pytest.raises(InputError, match=PUBLISHED[change]):
        split(**changed).check(6)


def test_a_manifest_gives_its_classes_by_name_and_knows_its_samples(tmp_path):
    partition = ClassPartition(6, [1, 2], [4])
    path = tmp_path / "partition.json"
    PartitionManifest.of(partition, NAMES, SAMPLES).write(path)
    by_file = split(kind="file", path=str(path), samples="check")
    assert by_file.build(context()) == partition
    turned = by_file.build(context(NAMES[::-1]))
    assert (turned.seen, turned.absent) == ((3, 4), (1,))
    # A split that the manifest does not know of is no contradiction; other samples are.
    other = {"train": {"count": 39, "sha256": "c" * 64}, "pool": {"count": 1, "sha256": "d" * 64}}
    changed = PartitionContext(HeadColumns(NAMES), (0, 1), (0,), other)
    with pytest.raises(InputError, match=r"its train samples differ \(40, here 39\); .*samples=ignore"):
        by_file.build(changed)
    assert split(kind="file", path=str(path), samples="ignore").build(changed) == partition
    # What a run's name stands for is the content, wherever the file lies.
    moved = path.rename(tmp_path / "moved.json")
    assert split(kind="file", path=str(moved), samples="check").identity()["manifest"]["seen"] == [
        "bear",
        "cat",
    ]
