"""What ``python -m ftc.prepare`` lays out, and what it refuses and leaves behind then."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import huggingface_hub
import pytest

from ftc.benchmarks.catalogue import BENCHMARKS, check_present
from ftc.benchmarks.prepare import prepare
from ftc.errors import InputError
from ftc.prepare import main
from tests import replicas
from tests.commands import run_module

REVISION = "d430d44779e929b335be368ab3456484e5de36bb"
DOMAINS = BENCHMARKS["office_home"].domains


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything a user can have; tests only read it."""
    folder = tmp_path_factory.mktemp("world")
    replicas.office_home_archive(folder / "office_home")
    replicas.office_home_hub(folder / "hub" / "flwrlabs--office-home" / "snapshots" / REVISION)
    replicas.imagenet_r_archive(folder / "imagenet_r")
    replicas.imagenet_r_hub(folder / "hub" / "axiong--imagenet-r" / "snapshots" / REVISION)
    replicas.imagenet_sketch_archive(folder / "imagenet_sketch")
    sketch = replicas.imagenet_sketch_hub(folder / "packed")
    sketch.rename(folder / "hub" / "sketch")
    (folder / "hub" / "songweig--imagenet_sketch" / "snapshots").mkdir(parents=True)
    (folder / "hub" / "sketch").rename(folder / "hub" / "songweig--imagenet_sketch" / "snapshots" / REVISION)
    replicas.vtab_hub(folder / "hub" / "tanganke--dtd" / "snapshots" / REVISION, "dtd")
    replicas.wilds_folder(folder / "wilds")
    replicas.paper_clone(folder / "clone")
    return folder


@pytest.fixture
def hub(world: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hub at its library's boundary; collects what was asked of it."""
    asked: list[str] = []

    def snapshot_download(repo_id: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        assert repo_type == "dataset"
        asked.append(f"{repo_id} {' '.join(allow_patterns)}")
        return str(world / "hub" / repo_id.replace("/", "--") / "snapshots" / REVISION)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def tree(folder: Path) -> dict[str, bytes]:
    files = (f for f in folder.rglob("*") if f.is_file() and f.name != "prepared.json")
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


def lines(folder: Path, name: str) -> list[tuple[str, int]]:
    text = (folder / "image_list" / name).read_text()
    return [(path, int(label)) for path, label in (line.rsplit(" ", 1) for line in text.splitlines())]


def test_archive_becomes_domains_classes_and_lists(world: Path, tmp_path: Path):
    said = prepare("office_home", tmp_path, world / "office_home")
    assert "240 images" in said and "of our own (70/30 of every class), not official ones" in said
    folder = tmp_path / "office_home"
    assert sorted(f.name for f in folder.iterdir()) == sorted([*DOMAINS, "image_list", "prepared.json"])
    original = world / "office_home" / "OfficeHomeDataset_10072016" / "Real World" / "Drill" / "00001.jpg"
    assert (folder / "Real_World" / "Drill" / "00001.jpg").samefile(original)

    labels = {name: label for label, name in enumerate(sorted(replicas.OFFICE_HOME))}
    listed: Counter[str] = Counter()
    for domain in DOMAINS:
        for part, share in (("training", 7), ("testing", 3)):
            entries = lines(folder, f"{domain}_{part}.txt")
            assert Counter(path.split("/")[1] for path, _ in entries) == dict.fromkeys(labels, share)
            assert all(path.startswith(f"{domain}/") for path, _ in entries)
            assert all(labels[path.split("/")[1]] == label for path, label in entries)
            listed.update(path for path, _ in entries)
    assert listed == {name: 1 for name in tree(folder) if name.endswith(".jpg")}

    manifest = json.loads((folder / "prepared.json").read_text())
    assert manifest["lists"] == "own" and manifest["total"] == 240
    assert manifest["images"]["Real_World"] == dict.fromkeys(labels, 10)
    assert sorted(manifest["sha256"]) == sorted(f.name for f in (folder / "image_list").iterdir())


def test_hub_and_archive_give_the_same(world: Path, tmp_path: Path, hub: list[str]):
    for name in ("office_home", "imagenet_r", "imagenet_sketch"):
        prepare(name, tmp_path / "archive", world / name)
        prepare(name, tmp_path / "hub")
        assert tree(tmp_path / "hub" / name) == tree(tmp_path / "archive" / name)
    assert hub == [
        "flwrlabs/office-home *.parquet",
        "axiong/imagenet-r *.parquet",
        "songweig/imagenet_sketch *.zip",
    ]
    manifest = json.loads((tmp_path / "hub" / "office_home" / "prepared.json").read_text())
    assert manifest["origin"] == {"hub": "flwrlabs/office-home", "revision": REVISION}
    assert manifest["file_names"] == "original"


def test_imagenet_lists_have_the_labels_of_imagenet(world: Path, tmp_path: Path):
    prepare("imagenet_sketch", tmp_path, world / "imagenet_sketch")
    folder = tmp_path / "imagenet_sketch"
    training, testing = lines(folder, "S_training.txt"), lines(folder, "S_testing.txt")
    assert (len(training), len(testing)) == (48, 12)
    assert {path.split("/")[0]: label for path, label in training} == replicas.WNID_LABELS
    assert all(path.count("/") == 1 for path, _ in training)


@pytest.mark.parametrize("name", ["office_home", "imagenet_r", "imagenet_sketch"])
def test_official_lists_are_taken_from_the_clone(world: Path, tmp_path: Path, name: str):
    assert "official lists" in prepare(name, tmp_path, world / name, lists=world / "clone")
    folder, benchmark = tmp_path / name, BENCHMARKS[name]
    for prefix in benchmark.lists:
        for part in ("training", "testing"):
            official = (world / "clone" / benchmark.official / f"{prefix}_{part}.txt").read_text()
            taken = (folder / "image_list" / f"{prefix}_{part}.txt").read_text()
            assert taken == official.replace("imagenet-r/", "").replace("sketch/", "")
            assert all((folder / path).is_file() for path, _ in lines(folder, f"{prefix}_{part}.txt"))
    assert json.loads((folder / "prepared.json").read_text())["lists"] == "official"


def test_official_list_that_names_a_missing_file_leaves_nothing(world: Path, tmp_path: Path):
    archive = tmp_path / "archive"
    shutil.copytree(world / "office_home", archive)
    (archive / "OfficeHomeDataset_10072016" / "Product" / "Mug" / "00002.jpg").unlink()
    with pytest.raises(InputError, match=r"Product_training\.txt: Product/Mug/00002\.jpg is not .*1 of 42"):
        prepare("office_home", tmp_path / "data", archive, lists=world / "clone")
    assert not (tmp_path / "data").exists()


def test_hub_without_file_names_is_numbered_and_takes_no_official_lists(world: Path, tmp_path: Path):
    tables = replicas.office_home_hub(tmp_path / "tables", images_per_class=2, file_names=False)
    prepare("office_home", tmp_path / "data", tables)
    names = [path.split("/")[-1] for path in tree(tmp_path / "data" / "office_home") if path.endswith("g")]
    assert Counter(names) == {"00001.jpg": 24, "00002.jpg": 24}
    with pytest.raises(InputError, match="no file names of their own, so official lists do not fit"):
        prepare("office_home", tmp_path / "other", tables, lists=world / "clone")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_midway_leaves_nothing(world: Path, tmp_path: Path, monkeypatch, error: BaseException):
    copy = shutil.copy2

    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def break_down(source: Path, target: Path) -> None:
        if "Product" in str(target):
            raise error
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_links)
        patch.setattr(shutil, "copy2", break_down)
        with pytest.raises(type(error)):
            prepare("office_home", tmp_path, world / "office_home")
    assert list(tmp_path.iterdir()) == []
    assert "prepared, 240" in prepare("office_home", tmp_path, world / "office_home")


def test_second_call_does_nothing(world: Path, tmp_path: Path, hub: list[str]):
    prepare("office_home", tmp_path, world / "office_home")
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    assert "is ready, 240 images, lists of our own" in prepare("office_home", tmp_path)
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")} == before and not hub
    with pytest.raises(InputError, match=r"ready with lists of our own; for the official ones move it away"):
        prepare("office_home", tmp_path, lists=world / "clone")
    # The mend that it names.
    (tmp_path / "office_home").rename(tmp_path / "old")
    prepare("office_home", tmp_path, tmp_path / "old", lists=world / "clone")
    assert "official lists" in prepare("office_home", tmp_path, lists=world / "clone")


def test_file_systems_without_links_get_copies(world: Path, tmp_path: Path, monkeypatch):
    def link(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    prepare("imagenet_r", tmp_path, world / "imagenet_r")
    copy = tmp_path / "imagenet_r" / "n01443537" / "art_0.jpg"
    original = world / "imagenet_r" / "imagenet-r" / "n01443537" / "art_0.jpg"
    assert copy.read_bytes() == original.read_bytes() and not copy.samefile(original)


@pytest.mark.parametrize("format", ["zip", "tar", "gztar"])
def test_packed_archives(world: Path, tmp_path: Path, format: str):
    archive = shutil.make_archive(str(tmp_path / "packed"), format, world / "imagenet_r")
    prepare("imagenet_r", tmp_path / "data", Path(archive))
    prepare("imagenet_r", tmp_path / "plain", world / "imagenet_r")
    assert tree(tmp_path / "data" / "imagenet_r") == tree(tmp_path / "plain" / "imagenet_r")
    assert [f.name for f in (tmp_path / "data").iterdir()] == ["imagenet_r"]


def test_broken_and_unsafe_archives_are_refused(tmp_path: Path):
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 and then nothing")
    unsafe = tmp_path / "unsafe.tar"
    with tarfile.open(unsafe, "w") as packed:
        packed.add(broken, "../outside.jpg")
    for archive in (broken, unsafe):
        with pytest.raises(InputError, match=f"{archive.name}: a broken archive"):
            prepare("imagenet_r", tmp_path / "data", archive)
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as packed:
        packed.add(broken, "pictures/broken.zip")
    with pytest.raises(InputError, match=r"^\S*other\.tgz: no folders named by WordNet ids"):
        prepare("imagenet_r", tmp_path / "data", tmp_path / "other.tgz")
    assert not (tmp_path / "data").exists()


def test_vtab_task_is_the_hubs_tables(world: Path, tmp_path: Path, hub: list[str]):
    import datasets

    assert "48 images" in prepare("vtab", tmp_path, task="dtd")
    assert hub == ["tanganke/dtd *.parquet"]
    table = datasets.load_dataset(str(tmp_path / "vtab" / "dtd"), cache_dir=str(tmp_path / "cache"))
    assert sorted(table) == ["test", "train"]
    assert tuple(table["train"].features["label"].names) == replicas.VTAB_LABELS["dtd"]
    manifest = json.loads((tmp_path / "vtab" / "dtd" / "prepared.json").read_text())
    assert manifest["images"] == {"test": 24, "train": 24} and manifest["task"] == "dtd"


@pytest.mark.parametrize("task", BENCHMARKS["vtab"].tasks)
def test_every_vtab_replica_can_be_laid_out(tmp_path: Path, task: str):
    replicas.vtab_hub(tmp_path / "hub", task, images_per_class=1)
    prepare("vtab", tmp_path, tmp_path / "hub", task=task)
    check_present("vtab", tmp_path, task=task)
    counts = json.loads((tmp_path / "vtab" / task / "prepared.json").read_text())["images"]
    assert counts == dict.fromkeys(replicas.VTAB_SPLITS[task], 6)


def test_iwildcam_is_checked_and_linked(world: Path, tmp_path: Path):
    assert "450 images" in prepare("iwildcam", tmp_path, world / "wilds")
    folder = tmp_path / "iwildcam"
    assert len(list((folder / "train").iterdir())) == 450
    counts = json.loads((folder / "prepared.json").read_text())["images"]
    assert sum(counts["test"].values()) == 90 and counts["test"]["empty"] == 18
    check_present("iwildcam", tmp_path, location=5)
    with pytest.raises(InputError, match=r"location=7: no test camera of .*; choose from 4, 5"):
        check_present("iwildcam", tmp_path, location=7)
    (folder / "train" / "test-5-0004.jpg").unlink()
    with pytest.raises(InputError, match=r"test-5-0004\.jpg is not there \(1 of 450 images"):
        prepare("iwildcam", tmp_path / "again", folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("iwildcam", "iwildcam: the hub has no copy; give the original, from https://wilds"),
        ("vtab", "task=None: choose a task of vtab from caltech101, cifar100, dtd"),
        ("vtab --task sun", "task=sun: choose a task of vtab from caltech101"),
        ("office_home --task dtd", "task=dtd: office_home has no tasks; leave it out"),
        ("vtab --task dtd --lists x", "--lists x: vtab has no official lists; leave it out"),
        ("office_home --from nowhere", "--from nowhere: no such file or folder"),
        ("office_home --from notes.txt", "--from notes.txt: neither a folder nor an archive (.zip, "),
        (
            "office_home --from empty",
            "empty: no folders Art, Clipart, Product, Real_World; give the original",
        ),
        ("imagenet_r --from empty", "empty: no folders named by WordNet ids such as n01443537; give"),
        ("vtab --task dtd --from empty", "empty: no parquet file in it; give the hub's files as they are"),
        ("iwildcam --from empty", "empty: no metadata.csv in it; give the folder iwildcam_v2.0 of WILDS"),
        ("imagenet_r --from wnid", "wnid: no image in its class folders; images end in .jpg, "),
        ("imagenet_r --from unknown", "imagenet_r: n99999999 is no class of ImageNet-1k; give the original"),
        ("imagenet_r --from wnid --lists empty", "--lists empty: no asset/ImageNet/image_list in it; give"),
        ("office_home --to taken", "taken/office_home: is there but was not prepared; move it away"),
        ("imagenet", "argument benchmark: invalid choice: 'imagenet' (choose from"),
    ],
)
def test_wrong_input_is_one_line(tmp_path: Path, monkeypatch, capsys, arguments: str, message: str):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "wnid/n01443537", "unknown/n99999999", "taken/office_home/Art"):
        Path(folder).mkdir(parents=True)
    Path("notes.txt").write_text("images are elsewhere")
    Path("unknown/n99999999/a.jpg").write_bytes(replicas.draw(0, 1, 0, 0))
    if "--lists empty" in arguments:
        Path("wnid/n01443537/a.jpg").write_bytes(replicas.draw(0, 1, 0, 0))
    with pytest.raises(SystemExit) as stopped:
        main([*arguments.split()])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("ftc: error: ") and error.count("\n") == 1
    assert message in error
    assert not Path("data").exists()


def test_incomplete_or_foreign_tables_are_refused(world: Path, tmp_path: Path):
    whole = world / "hub" / "flwrlabs--office-home" / "snapshots" / REVISION
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    (part / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match="2 of the 3 files of train; get the others too"):
        prepare("office_home", tmp_path / "data", part)
    with pytest.raises(InputError, match="no column wnid"):
        prepare("imagenet_r", tmp_path / "data", whole)
    escaping = replicas.office_home_hub(tmp_path / "escaping", ("../../Drill", "Mug"), 2)
    with pytest.raises(InputError, match=r"label '\.\./\.\./Drill' names no folder"):
        prepare("office_home", tmp_path / "data", escaping)
    (part / "data" / "train-00001-of-00003.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match=r"train-00001-of-00003\.parquet: a broken table"):
        prepare("office_home", tmp_path / "data", part)
    assert not (tmp_path / "data").exists()


def test_missing_benchmark_names_the_command(world: Path, tmp_path: Path):
    with pytest.raises(InputError) as caught:
        check_present("office_home", tmp_path)
    line = f"python -m ftc.prepare office_home --to {tmp_path}"
    assert str(caught.value) == f"{tmp_path}/office_home: no such folder; get it with: {line}"
    prepare("office_home", tmp_path, world / "office_home")
    check_present("office_home", tmp_path)
    shutil.rmtree(tmp_path / "office_home" / "Clipart")
    check_present("office_home", tmp_path, domains=("Art", "Real_World"))
    with pytest.raises(InputError, match="office_home: no Clipart in it; get it with: python -m"):
        check_present("office_home", tmp_path, domains=("Art", "Clipart"))
    with pytest.raises(
        InputError, match="domain Real World: office_home has no such domain; choose from Art"
    ):
        check_present("office_home", tmp_path, domains=["Real World"])
    with pytest.raises(InputError, match=r"vtab/dtd: no such folder; .* vtab --to '.*a b' --task dtd$"):
        check_present("vtab", tmp_path / "a b", task="dtd")
    with pytest.raises(
        InputError, match=r"iwildcam --to .* --from FOLDER \(the original, from https://wilds"
    ):
        check_present("iwildcam", tmp_path)
    with pytest.raises(InputError, match="benchmark pacs: choose from office_home"):
        check_present("pacs", tmp_path)


def test_without_network_one_line_says_what_to_do(tmp_path: Path):
    # Port 9 discards: nobody listens.
    done = run_module(
        "prepare", tmp_path, "office_home", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path)
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "flwrlabs/office-home: could not be downloaded" in done.stderr
    assert (
        "give the original, from https://www.hemanthdv.org/officeHomeDataset.html, as --from" in done.stderr
    )
    assert not (tmp_path / "data").exists()


def test_command_line_needs_no_torch():
    code = "import sys, ftc.benchmarks.catalogue, ftc.prepare; print({'torch', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "set()"


def test_groups_are_drawn_by_the_command_and_remembered(world, tmp_path):
    options = ["office_home", "--from", str(world / "office_home"), "--to", str(tmp_path)]
    done = run_module("prepare", tmp_path, *options, "--groups", r"(\w+/\w+)/0000[0-3]")
    assert done.returncode == 0 and "of every class, groups on one side" in done.stdout
    folder = tmp_path / "office_home"
    lines = [line for file in (folder / "image_list").glob("Art_*") for line in file.read_text().split("\n")]
    assert len({line.split()[0] for line in lines if line}) == 60
    with pytest.raises(InputError, match="is ready with lists of other groups; move it away"):
        prepare("office_home", tmp_path, groups="other")
    with pytest.raises(InputError, match="--groups x: the official lists are taken as published"):
        prepare("office_home", tmp_path / "2", world / "office_home", world / "clone", groups="x")
    with pytest.raises(InputError, match="--groups x: vtab has no lists of our own"):
        prepare("vtab", tmp_path / "2", groups="x", task="dtd")
    with pytest.raises(InputError, match="--groups: fits no image, such as"):
        prepare("office_home", tmp_path / "2", world / "office_home", groups="/none/")
