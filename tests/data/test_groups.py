"""Groups of images, and images held out by group, against the rules stated in their docstrings."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftc.data import ArrayReader, ClassFolders, groups_of, hold_out, select
from ftc.data.groups import notes_on_groups
from ftc.errors import InputError

SAMPLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=60)


@given(SAMPLES, st.floats(0.01, 0.9))
def test_images_alone_are_held_out_by_the_exact_share_and_evenly(samples, share):
    targets = torch.tensor([label for label, _ in samples])
    mask = hold_out(targets, [0, 1, 2], share)
    assert not mask[targets == 3].any()
    for column in (0, 1, 2):
        of_class = mask[targets == column]
        n = len(of_class)
        wanted = min(math.ceil(share * n), n - 1) if n else 0
        assert int(of_class.sum()) == wanted
        for end in range(1, n + 1):
            assert abs(int(of_class[:end].sum()) - wanted * end / n) <= 0.5 + 1e-9


@given(SAMPLES, st.floats(0.01, 0.9))
def test_groups_stay_on_one_side_also_where_they_span_classes(samples, share):
    targets = torch.tensor([label for label, _ in samples])
    groups = [None if number == 9 else f"g{number}" for _, number in samples]
    mask = hold_out(targets, [0, 1, 2], share, groups)
    inside = torch.isin(targets, torch.tensor([0, 1, 2]))
    assert not mask[~inside].any()
    for group in {name for name in groups if name is not None}:
        rows = torch.tensor([name == group for name in groups]) & inside
        assert mask[rows].all() or not mask[rows].any()
    for column in targets[inside].unique():
        assert not mask[targets == column].all()


@given(SAMPLES, st.floats(0.01, 0.9))
def test_a_class_of_its_own_groups_is_at_most_a_group_away_from_its_share(samples, share):
    targets = torch.tensor([label for label, _ in samples])
    groups = [f"{label} {number}" for label, number in samples]
    mask = hold_out(targets, [0, 1, 2, 3], share, groups)
    for column in targets.unique().tolist():
        rows = targets == column
        names = [group for group, inside in zip(groups, rows.tolist(), strict=True) if inside]
        wanted = min(math.ceil(share * len(names)), len(names) - 1)
        largest = max(names.count(name) for name in names)
        assert abs(int(mask[rows].sum()) - wanted) <= largest


def test_the_choice_does_not_depend_on_other_classes():
    targets = torch.arange(30) % 3
    whole, one = hold_out(targets, [0, 1, 2], 0.2), hold_out(targets, [1], 0.2)
    assert torch.equal(whole & (targets == 1), one)


def photos(folder: Path, *names: str) -> ClassFolders:
    from PIL import Image

    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return ClassFolders(folder)


def test_a_regular_expression_names_groups_by_its_own_groups_or_its_match(tmp_path):
    reader = photos(tmp_path, "cat/film1-001.png", "cat/film1-002.png", "dog/film2-001.png", "dog/rex.png")
    for choice in (r"(film\d+)-", r"film\d+"):
        assert groups_of(choice, {"train": reader})["train"] == ["film1", "film1", "film2", None]
    several = groups_of(r"(\w+)/film(\d)", {"train": reader})["train"]
    assert several is not None and len(set(several)) == 3


def test_a_file_names_groups_however_its_paths_are_spelt(tmp_path):
    reader = photos(tmp_path / "photos", "cat/a b.png", "cat/c.png", "dog/d.png")
    table = tmp_path / "groups.txt"
    table.write_text("./cat/a b.png one\ncat//c.png one\ndog/e.png two\n")
    assert groups_of(str(table), {"train": reader})["train"] == ["one", "one", None]


@pytest.mark.parametrize(
    "choice, message",
    [
        ("(", r"data\.groups=\(: no such file, and no regular expression"),
        ("x" * 5000, r"data\.groups=x+: fits no image, such as cat/a\.png"),
        ("groups.csv", r"data\.groups=groups\.csv: fits no image, such as cat/a\.png"),
    ],
)
def test_groups_that_are_neither_file_nor_fitting_pattern(tmp_path, choice, message):
    reader = photos(tmp_path, "cat/a.png", "dog/b.png")
    with pytest.raises(InputError, match=message):
        groups_of(choice, {"train": reader})


def test_a_file_that_contradicts_itself(tmp_path):
    reader = photos(tmp_path / "photos", "cat/a.png")
    table = tmp_path / "groups.txt"
    table.write_text("cat/a.png one\n./cat/a.png two\n")
    with pytest.raises(InputError, match=r"cat/a\.png is in group one and in group two"):
        groups_of(str(table), {"train": reader})


def test_a_readers_own_groups_survive_every_selection():
    reader = ArrayReader(np.zeros((4, 2, 2), np.uint8), [0, 1, 0, 1], ("a", "b"))
    assert groups_of(None, {"train": select(reader, torch.tensor([1, 2]))})["train"] is None
    reader.groups = ["w", "x", "y", "z"]  # type: ignore[attr-defined]
    chosen = select(select(reader, torch.tensor([3, 1, 0])), torch.tensor([0, 2]))
    assert groups_of(None, {"train": chosen})["train"] == ["z", "w"]


def test_notes_count_groups_and_say_which_are_evaluated_on_as_well():
    lines = list(notes_on_groups({"train": ["a", "a", "b", None], "test": ["b", "b", "c"], "val": None}))
    assert lines == [
        "data.groups: 2 groups of 1 to 2 images in data.readers.train, and 1 images alone",
        "data.groups: 2 groups of 1 to 2 images in data.readers.test",
        "data.groups: 2 images of data.readers.test are of groups that are trained on; what is measured on "
        "them is too good",
    ]
