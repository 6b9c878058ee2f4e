"""iWildCam: training cameras against one held-out camera, whose past trains and whose future tests."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch

from ftc.benchmarks.iwildcam import IWildCam
from ftc.data.readers import EncodedReader
from ftc.errors import InputError
from tests import replicas


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return replicas.wilds_folder(tmp_path_factory.mktemp("wilds"))


@pytest.fixture
def rows(root: Path) -> list[dict[str, str]]:
    with (root / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_source_is_all_training_cameras(root: Path, rows: list[dict[str, str]]):
    reader = IWildCam(root, "source")
    assert isinstance(reader, EncodedReader)
    labels = {f"train/{row['filename']}": int(row["y"]) for row in rows if row["split"] == "train"}
    assert dict(zip(reader.files, reader.targets.tolist(), strict=True)) == labels
    assert reader.class_names == replicas.SPECIES and reader.location is None
    assert reader.decode(0).size == (replicas.SIDE, replicas.SIDE)
    assert reader.encoded(0) == (root / reader.name(0)).read_bytes()


def test_target_is_one_held_out_camera_cut_in_time(root: Path, rows: list[dict[str, str]]):
    past, future = IWildCam(root, "train"), IWildCam(root, "test")
    by_file = {f"train/{row['filename']}": row for row in rows}
    # Camera 4 has twice the images of camera 5.
    assert past.location == future.location == 4
    of_camera = {
        f for f, row in by_file.items() if row["split"] == "test" and row["location_remapped"] == "4"
    }
    assert set(past.files) | set(future.files) == of_camera and not set(past.files) & set(future.files)
    assert len(past.files) == len(future.files) == 30
    assert max(by_file[f]["datetime"] for f in past.files) < min(by_file[f]["datetime"] for f in future.files)
    assert past.targets.tolist() == [int(by_file[f]["y"]) for f in past.files]
    assert past.class_names == future.class_names == replicas.SPECIES


@pytest.mark.parametrize(("share", "expected"), [(0.01, 3), (0.5, 15), (0.55, 15), (0.57, 18), (0.99, 27)])
def test_cut_keeps_bursts_whole(root: Path, rows: list[dict[str, str]], share: float, expected: int):
    past = IWildCam(root, "train", location=5, earlier=share)
    future = IWildCam(root, "test", location=5, earlier=share)
    assert len(past.files) == expected and len(future.files) == 30 - expected
    burst = {f"train/{row['filename']}": row["sequence_remapped"] for row in rows}
    assert not {burst[f] for f in past.files} & {burst[f] for f in future.files}


def test_the_order_of_rows_and_equal_counts_change_nothing(root: Path, tmp_path: Path):
    folder = replicas.wilds_folder(tmp_path, cameras={"train": (0,), "test": (7, 4, 5)}, images_per_camera=6)
    _rewrite(folder / "metadata.csv", lambda rows: [r for r in rows if not r["filename"] > "test-7-0005"])
    assert [IWildCam(folder, "train").location, IWildCam(folder, "test").location] == [4, 4]
    before = IWildCam(folder, "train")
    _rewrite(folder / "metadata.csv", lambda rows: rows[::-1])
    after = IWildCam(folder, "train")
    assert before.files == after.files and torch.equal(before.targets, after.targets)


def _rewrite(path: Path, change) -> None:
    with path.open(newline="") as file:
        rows = change(list(csv.DictReader(file)))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _set(column: str, value: str):
    def change(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{**row, column: value} for row in rows]

    return change


def _without(column: str):
    return lambda rows: [{k: v for k, v in row.items() if k != column} for row in rows]


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("metadata.csv", _without("datetime"), r"metadata\.csv: no column datetime"),
        ("metadata.csv", _set("datetime", "noon"), r"metadata\.csv: test-4-.* has datetime 'noon', no time"),
        ("metadata.csv", _set("y", "9"), r"has label 9, but there are 5 classes"),
        ("metadata.csv", _set("split", "train"), "no row with split test"),
        ("metadata.csv", _set("sequence_remapped", "1"), "location=4: its images are one sequence"),
        ("metadata.csv", _set("filename", "x.jpg"), r"train/x\.jpg: no such file"),
        ("categories.csv", lambda rows: rows[1:], r"categories\.csv: its labels leave gaps"),
    ],
)
def test_tables_that_wilds_did_not_publish(root: Path, tmp_path: Path, table: str, change, message: str):
    for name in ("metadata.csv", "categories.csv"):
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / "train").symlink_to(root / "train")
    _rewrite(tmp_path / table, change)
    with pytest.raises(InputError, match=message):
        IWildCam(tmp_path, "train")


def test_wrong_arguments(root: Path, tmp_path: Path):
    with pytest.raises(InputError, match="part=val: choose from source, train, test"):
        IWildCam(root, "val")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"location=0: no test camera of .*; choose from 4, 5"):
        IWildCam(root, "train", location=0)
    with pytest.raises(InputError, match=r"earlier=1\.0: give a share between 0 and 1"):
        IWildCam(root, "train", earlier=1.0)
    with pytest.raises(
        InputError, match=r"metadata\.csv: not a table that can be read \(FileNotFoundError\)"
    ):
        IWildCam(tmp_path, "source")
