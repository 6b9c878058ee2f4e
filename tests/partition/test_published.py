from __future__ import annotations

import re

import pytest

from ftc import InputError
from ftc.partition.published import label_names, published_lists, published_order

FILE = """import torch, os
raise SystemExit("a stranger's file ran")
# Class order
OFFICEHOME_SOURCE_AR_CLASSES = torch.tensor(
    (([2, 0,
       1])), dtype=torch.int64)
IMAGENET_TARGET_R: torch.Tensor = torch.tensor((7, 5))
N_CLASSES = 65
COMPUTED = torch.tensor([1, len("ab")])
RANGED = torch.tensor(range(3))
NESTED = torch.tensor([[1], [2]])
TWICE = torch.tensor([1, 2, 1])
REAL = torch.tensor([1.0, 2.0])
TRUE = torch.tensor([True, False])
BELOW = torch.tensor([1, -1])
EMPTY = torch.tensor([])
TOUCHED = torch.tensor(os.system("touch ran"))

def f():
    INSIDE = torch.tensor([1])
"""


@pytest.fixture
def repo(tmp_path):
    (tmp_path / "py").mkdir()
    (tmp_path / "py" / "HT_HARDCODED.py").write_text(FILE)
    return tmp_path


@pytest.mark.parametrize("ending", ["", "_CLASSES"])
def test_orders_of_either_name(repo, ending):
    assert published_order(repo, f"OFFICEHOME_SOURCE_AR{ending}") == (2, 0, 1)
    assert published_order(repo, f"IMAGENET_TARGET_R{ending}") == (7, 5)


@pytest.mark.parametrize(
    "name", ["COMPUTED", "RANGED", "NESTED", "TWICE", "REAL", "TRUE", "BELOW", "EMPTY", "TOUCHED"]
)
def test_what_is_no_list_of_ids_is_refused(repo, name, monkeypatch):
    monkeypatch.chdir(repo)
    message = f"paper_repo={repo}: {name} in py/HT_HARDCODED.py is no list of distinct class ids"
    with pytest.raises(InputError, match=re.escape(message)):
        published_order(repo, name)
    assert not (repo / "ran").exists()


@pytest.mark.parametrize("name", ["INSIDE", "N_CLASSES", "OFFICEHOME_SOURCE_CL_CLASSES"])
def test_missing_orders_name_those_found(repo, name):
    with pytest.raises(
        InputError, match=f"no list {name}; lists found: OFFICEHOME_SOURCE_AR_CLASSES, IMAGENET"
    ):
        published_order(repo, name)


@pytest.mark.parametrize("content", ["x = (", "x = " + "(" * 500, "\0"])
def test_broken_files_are_one_line(repo, content):
    (repo / "py" / "HT_HARDCODED.py").write_text(content)
    with pytest.raises(InputError, match="is no Python file") as caught:
        published_order(repo, "X")
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_clone(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"paper_repo={tmp_path}: no file")):
        published_order(tmp_path, "X")
    with pytest.raises(
        InputError, match=re.escape(f"paper_repo={tmp_path}: no folder asset/OfficeHome/image_list")
    ):
        published_lists(tmp_path, "OfficeHome")
    (tmp_path / "py").mkdir()
    (tmp_path / "py" / "HT_HARDCODED.py").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        published_order(tmp_path, "X")
    (tmp_path / "py" / "HT_HARDCODED.py").write_text("")
    with pytest.raises(InputError, match="lists found: none; is it the paper's repository"):
        published_order(tmp_path, "X")


def test_names_come_from_the_paths(tmp_path):
    lists = tmp_path / "asset" / "OfficeHome" / "image_list"
    lists.mkdir(parents=True)
    (lists / "Art_training.txt").write_text("Art/Drill/00001.jpg 0\n\nReal World/Alarm Clock/a b.jpg 12\n")
    (lists / "Art_testing.txt").write_text("Art/Exit_Sign/1.jpg  1\nArt/Drill/00002.jpg 0\n")
    (lists / "Clipart_testing.txt").write_text("Clipart/Mug/1.jpg 0\n")
    found = published_lists(tmp_path, "OfficeHome")
    assert found == lists
    assert list(label_names(found, "Art_*.txt").items()) == [
        (0, "Drill"),
        (1, "Exit_Sign"),
        (12, "Alarm Clock"),
    ]
    message = "Clipart_testing.txt: line 1 calls label 0 Mug, earlier lines Drill"
    with pytest.raises(InputError, match=message):
        label_names(found, "*.txt")


@pytest.mark.parametrize(
    "line", ["Art/Drill/00001.jpg", "00001.jpg 0", "Art/Drill/00001.jpg -1", "0", "a/b.jpg x"]
)
def test_lines_of_another_form_are_named(tmp_path, line):
    (tmp_path / "x.txt").write_text(f"Art/Mug/1.jpg 0\n{line}\n")
    with pytest.raises(InputError, match=re.escape(f"x.txt: line 2 is '{line}'")):
        label_names(tmp_path, "x.txt")


def test_no_list_files(tmp_path):
    with pytest.raises(InputError, match="no list file"):
        label_names(tmp_path, "Art_*.txt")
