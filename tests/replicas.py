"""Tiny benchmarks with the layouts of the real ones, as their sites, the hub and the paper's clone have them.

A class is a shape and a colour, a domain a tint of the background: a small network tells classes apart in
every domain. Equal arguments draw equal files.
"""

from __future__ import annotations

import colorsys
import csv
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

SIDE = 32
DOMAINS = ("Art", "Clipart", "Product", "Real World")
# In the order of the official lists' labels, which is not the alphabet's.
OFFICE_HOME = ("Drill", "Exit_Sign", "Bottle", "Alarm_Clock", "Mug", "Bike")
# Classes of ImageNet-R, of which it has 200; here in the order of ImageNet-1k.
WNIDS = ("n01443537", "n01484850", "n01494475", "n01498041", "n01514859", "n01518878")
WNID_LABELS = dict(zip(WNIDS, (1, 2, 4, 6, 8, 9), strict=True))
SPECIES = ("empty", "meleagris ocellata", "puma concolor", "mazama americana", "canis lupus")

# Of every VTAB task some labels in the hub's spelling, and the hub's split names.
VTAB_LABELS = {
    "caltech101": ("accordion", "airplanes", "background_google", "car_side", "faces_easy", "wild_cat"),
    "cifar100": ("apple", "aquarium_fish", "bed", "lawn_mower", "maple_tree", "whale"),
    "dtd": ("banded", "blotchy", "dotted", "grid", "polka-dotted", "zigzagged"),
    "eurosat": ("AnnualCrop", "Forest", "Highway", "PermanentCrop", "River", "SeaLake"),
    "flowers102": (
        "pink primrose",
        "hard-leaved pocket orchid",
        "sweet pea",
        "colt's foot",
        "rose",
        "mallow",
    ),
    "pets": ("abyssinian", "american_bulldog", "beagle", "bengal", "maine_coon", "pug"),
    "resisc45": ("airplane", "baseball_diamond", "beach", "cloud", "golf_course", "sea_ice"),
    "sun397": ("abbey", "airplane cabin", "alley", "beach", "apse indoor", "youth hostel"),
}
VTAB_SPLITS = {
    task: ("train", "validation", "test")
    if task in ("eurosat", "flowers102", "resisc45")
    else ("train", "test")
    for task in VTAB_LABELS
}

VENDORS = ("apple", "facebook", "google", "twitter")
SKIN_TONES = ("1F3FB", "1F3FC", "1F3FF")
_ROLES = ("cook", "pilot", "judge", "farmer")
_FANTASY = ("elf", "genie", "vampire", "zombie", "mage", "fairy", "merperson", "superhero")
_RESTING = ("in_bed", "in_lotus_position", "bathing")


def _of_all_genders(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{gender}{name}" for name in names for gender in ("", "male-", "female-"))


# Subcategories of Unicode's list, with their category, and our names of emoji; people have skin tones.
EMOJI: dict[tuple[str, str], tuple[str, ...]] = {
    ("Food & Drink", "food-fruit"): tuple(f"fruit_{i}" for i in range(13)),
    ("Activities", "arts & crafts"): tuple(f"art_{i}" for i in range(12)),
    ("Objects", "lock"): tuple(f"lock_{i}" for i in range(11)),
    ("People & Body", "person-role"): _of_all_genders(_ROLES),
    ("People & Body", "person-fantasy"): _of_all_genders(_FANTASY),
    ("People & Body", "person-resting"): _of_all_genders(_RESTING),
    ("Flags", "country-flag"): tuple(f"flag-{i}" for i in range(12)),
    ("Component", "hair-style"): tuple(f"hair_{i}" for i in range(12)),
}
# What a vendor has not drawn.
UNDRAWN = {"facebook": ("fruit_12.png",), "twitter": ("male-cook-1f3ff.png",)}


def draw(label: int, of: int, domain: int, index: int, suffix: str = ".jpg") -> bytes:
    """An encoded image: a coloured shape somewhere on a tinted ground."""
    place = random.Random(f"{label}/{domain}/{index}")
    hue = label / of
    ground = tuple(int(40 + 25 * (domain + channel) % 120) + place.randrange(20) for channel in range(3))
    image = Image.new("RGB", (SIDE, SIDE), ground)
    colour = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.9, 0.95))
    size = SIDE // 2
    left, top = place.randrange(SIDE - size), place.randrange(SIDE - size)
    box = (left, top, left + size, top + size)
    pen = ImageDraw.Draw(image)
    if label % 3 == 0:
        pen.ellipse(box, fill=colour)
    elif label % 3 == 1:
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(left, top + size), (left + size, top + size), (left + size // 2, top)], fill=colour)
    encoded = io.BytesIO()
    image.save(encoded, "PNG" if suffix == ".png" else "JPEG", quality=90)
    return encoded.getvalue()


def office_home_archive(
    folder: Path,
    classes: Sequence[str] = OFFICE_HOME,
    images_per_class: int = 10,
    domains: int = len(DOMAINS),
) -> Path:
    """The original archive, unpacked: a wrapping folder, «Real World» with its space, a table beside."""
    root = folder / "OfficeHomeDataset_10072016"
    for domain, name, file, content in _office_home(classes, images_per_class):
        if domain in DOMAINS[:domains]:
            _write(root / domain / name / file, content)
    (root / "ImageInfo.csv").write_text("Domain,Class,Width,Height\n")
    return root


def office_home_hub(
    folder: Path,
    classes: Sequence[str] = OFFICE_HOME,
    images_per_class: int = 10,
    file_names: bool = True,
) -> Path:
    """The hub's tables, in three files: image, domain and label, its names in the order of the alphabet."""
    import datasets

    names = sorted(classes)
    rows = [
        {"image": _entry(content, file if file_names else None), "domain": domain, "label": names.index(name)}
        for domain, name, file, content in _office_home(classes, images_per_class)
    ]
    features = datasets.Features(
        image=datasets.Image(), domain=datasets.Value("string"), label=datasets.ClassLabel(names=names)
    )
    return _tables(folder, "data", "train", rows, features, files=3)


def _office_home(classes: Sequence[str], images_per_class: int) -> Iterator[tuple[str, str, str, bytes]]:
    for d, domain in enumerate(DOMAINS):
        for label, name in enumerate(classes):
            for index in range(images_per_class):
                yield domain, name, f"{index + 1:05d}.jpg", draw(label, len(classes), d, index)


def paper_clone(
    folder: Path,
    classes: Sequence[str] = OFFICE_HOME,
    wnids: Mapping[str, int] = WNID_LABELS,
    images_per_class: int = 10,
) -> Path:
    """A clone of the paper's released repository: class orders among code, and both folders of lists.

    Its lists name the images that the archives here hold with the same arguments.
    """
    orders = {
        "OFFICEHOME_SOURCE_AR_CLASSES": random.Random(0).sample(range(len(classes)), len(classes)),
        "OFFICEHOME_SOURCE_RW_CLASSES": random.Random(1).sample(range(len(classes)), len(classes)),
        "IMAGENET_TARGET_R_CLASSES": random.Random(2).sample(sorted(wnids.values()), len(wnids)),
        "IMAGENET_TARGET_S_CLASSES": random.Random(3).sample(sorted(wnids.values()), len(wnids)),
    }
    literals = "\n\n".join(f"{name} = torch.tensor({order})" for name, order in orders.items())
    code = (
        f"import torch\n\n{literals}\n\n\n"
        "def get_classes(name, num):\n"
        "    raise RuntimeError('this file is read, never run')\n"
    )
    _write(folder / "py" / "HT_HARDCODED.py", code.encode())
    for domain in DOMAINS:
        place = domain.replace(" ", "_")
        members = {
            label: [f"{place}/{name}/{index + 1:05d}.jpg" for index in range(images_per_class)]
            for label, name in enumerate(classes)
        }
        _write_lists(folder / "asset" / "OfficeHome" / "image_list", place, members, 0.7)
    renditions = {
        label: [f"imagenet-r/{wnid}/{_rendition(index)}" for index in range(images_per_class)]
        for wnid, label in wnids.items()
    }
    _write_lists(folder / "asset" / "ImageNet" / "image_list", "R", renditions, 0.8)
    sketches = {
        label: [f"sketch/{wnid}/sketch_{index}.JPEG" for index in range(images_per_class)]
        for wnid, label in wnids.items()
    }
    _write_lists(folder / "asset" / "ImageNet" / "image_list", "S", sketches, 0.8)
    return folder


def _write_lists(folder: Path, prefix: str, members: Mapping[int, Sequence[str]], share: float) -> None:
    lines: dict[str, list[str]] = {"training": [], "testing": []}
    for label, files in members.items():
        count = int(share * len(files) + 0.5)
        for index, file in enumerate(files):
            lines["training" if index < count else "testing"].append(f"{file} {label}\n")
    for part, entries in lines.items():
        _write(folder / f"{prefix}_{part}.txt", "".join(entries).encode())


def imagenet_r_archive(folder: Path, wnids: Sequence[str] = WNIDS, images_per_class: int = 10) -> Path:
    """ImageNet-R as its authors pack it."""
    root = folder / "imagenet-r"
    for label, wnid in enumerate(wnids):
        for index in range(images_per_class):
            _write(root / wnid / _rendition(index), draw(label, len(wnids), index % 2, index))
    (root / "README.txt").write_text("n01443537 goldfish\n")
    return root


def imagenet_r_hub(folder: Path, wnids: Sequence[str] = WNIDS, images_per_class: int = 10) -> Path:
    """The hub's tables of ImageNet-R: image, wnid and class_name, as one split in five files."""
    import datasets

    rows = [
        {
            "image": _entry(draw(label, len(wnids), index % 2, index), _rendition(index)),
            "wnid": wnid,
            "class_name": f"class {label}",
        }
        for label, wnid in enumerate(wnids)
        for index in range(images_per_class)
    ]
    text = datasets.Value("string")
    features = datasets.Features(image=datasets.Image(), wnid=text, class_name=text)
    return _tables(folder, "test", "test", rows, features, files=5)


def imagenet_sketch_archive(folder: Path, wnids: Sequence[str] = WNIDS, images_per_class: int = 10) -> Path:
    """ImageNet-Sketch as its authors pack it."""
    root = folder / "sketch"
    for label, wnid in enumerate(wnids):
        for index in range(images_per_class):
            _write(root / wnid / f"sketch_{index}.JPEG", draw(label, len(wnids), 2, index))
    return root


def imagenet_sketch_hub(folder: Path, wnids: Sequence[str] = WNIDS, images_per_class: int = 10) -> Path:
    """The hub's copy of ImageNet-Sketch: its archive as it is."""
    root = imagenet_sketch_archive(folder / "unpacked", wnids, images_per_class)
    hub = folder / "hub"
    (hub / "data").mkdir(parents=True)
    with zipfile.ZipFile(hub / "data" / "ImageNet-Sketch.zip", "w") as archive:
        for file in sorted(root.rglob("*.JPEG")):
            archive.write(file, file.relative_to(root.parent))
    return hub


def _rendition(index: int) -> str:
    return f"{('art', 'cartoon', 'toy')[index % 3]}_{index}.jpg"


def vtab_hub(
    folder: Path,
    task: str,
    classes: Sequence[str] | None = None,
    images_per_class: int | Mapping[str, int] = 4,
) -> Path:
    """The hub's tables of a VTAB task, with its columns, splits and spelling of labels.

    Args:
        folder: where they go.
        task: of VTAB.
        classes: label names; by default a few of the task's.
        images_per_class: in every split, or one number a split.
    """
    import datasets

    names = list(classes or VTAB_LABELS[task])
    image, label = ("img", "fine_label") if task == "cifar100" else ("image", "label")
    text, index_of = datasets.Value("string"), datasets.ClassLabel(names=names)
    extra: dict[str, Any] = {
        "cifar100": {"coarse_label": datasets.ClassLabel(names=["even", "odd"])},
        "eurosat": {"image_id": text},
        "resisc45": {"image_id": text},
        "pets": {"image_id": text, "label_cat_dog": datasets.ClassLabel(names=["cat", "dog"])},
    }.get(task, {})
    features = datasets.Features({image: datasets.Image(), label: index_of, **extra})
    for offset, split in enumerate(VTAB_SPLITS[task]):
        count = images_per_class if isinstance(images_per_class, int) else images_per_class[split]
        rows = []
        for number in range(len(names) * count):
            row = {column: number % 2 if "label" in column else f"{split}_{number}" for column in extra}
            content = draw(number % len(names), len(names), 3, 1000 * offset + number, ".png")
            rows.append({image: _entry(content, None), label: number % len(names), **row})
        _tables(folder, "cifar100" if task == "cifar100" else "data", split, rows, features)
    return folder


def wilds_folder(
    folder: Path,
    species: Sequence[str] = SPECIES,
    cameras: Mapping[str, Sequence[int]] | None = None,
    images_per_camera: int = 30,
) -> Path:
    """iWildCam as WILDS unpacks it: its tables, and all images in ``train/``.

    The first camera of a split has twice the images of the others; a burst is three images.
    """
    root = folder / "iwildcam_v2.0"
    cameras = cameras or {
        "train": (0, 1, 2),
        "val": (3,),
        "test": (4, 5),
        "id_val": (0, 1),
        "id_test": (1, 2),
    }
    rows: list[dict[str, Any]] = []
    for split, locations in cameras.items():
        for location in locations:
            count = images_per_camera * (2 if location == locations[0] else 1)
            for index in range(count):
                burst = index // 3
                y = burst % len(species)
                day = f"{1 + burst // 28:02d}-{1 + burst % 28:02d}"
                name = f"{split}-{location}-{index:04d}.jpg"
                content = draw(y, len(species), location, index + 1000 * len(split))
                _write(root / "train" / name, content)
                rows.append(
                    {
                        "": len(rows),
                        "split": split,
                        "location_remapped": location,
                        "location": 500 + location,
                        "sequence_remapped": len(rows) // 3,
                        "seq_id": f"{split}-{location}-{burst}",
                        "seq_num_frames": 3,
                        "datetime": f"2013-{day} 10:{index % 3:02d}:00.000",
                        "y": y,
                        "category_id": 10 * y,
                        "image_id": name.removesuffix(".jpg"),
                        "filename": name,
                    }
                )
    random.Random(0).shuffle(rows)
    _write_table(root / "metadata.csv", rows)
    # WILDS lists the species that it left out, too.
    labels = [*enumerate(species), (99999, "pongo pygmaeus")]
    _write_table(
        root / "categories.csv", [{"y": y, "category_id": 10 * y, "name": name} for y, name in labels]
    )
    (root / "RELEASE_v2.0.txt").write_text("")
    return root


def emoji_packages(folder: Path, order: int = 0) -> Path:
    """The npm packages of emoji as ``npm pack`` writes them, one a vendor; files have our names of the emoji.

    Args:
        folder: where they go.
        order: seeds the order of files in the archives, and that of their lists.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for vendor in VENDORS:
        listed: list[dict[str, Any]] = []
        files = {
            "README.md": b"# emoji-data",
            f"img/{vendor}/sheets/64.png": b"not an image of one emoji",
        }
        for label, ((category, subcategory), names) in enumerate(EMOJI.items()):
            for number, name in enumerate(names):
                tones = SKIN_TONES if category == "People & Body" else ()
                variations = {tone: {"image": f"{name}-{tone.lower()}.png"} for tone in tones}
                listed.append(
                    {
                        "category": category,
                        "subcategory": subcategory,
                        "unified": _code_points(name, label),
                        "image": f"{name}.png",
                        **({"skin_variations": variations} if variations else {}),
                    }
                )
                for tone, file in enumerate([f"{name}.png", *(one["image"] for one in variations.values())]):
                    if file not in UNDRAWN.get(vendor, ()):
                        index = number * (1 + len(SKIN_TONES)) + tone
                        files[f"img/{vendor}/64/{file}"] = _draw_emoji(label, VENDORS.index(vendor), index)
        shuffle = random.Random(order)
        shuffle.shuffle(listed)
        files["emoji.json"] = json.dumps(listed).encode()
        archive = folder / f"emoji-datasource-{vendor}-16.0.0.tgz"
        with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
            for name in shuffle.sample(sorted(files), len(files)):
                member = tarfile.TarInfo(f"package/{name}")
                member.size = len(files[name])
                packed.addfile(member, io.BytesIO(files[name]))
    return folder


def _code_points(name: str, label: int) -> str:
    """An emoji's code points: those of its name without the gender, after the person who has one."""
    gender, _, rest = name.rpartition("-")
    names = [of.rpartition("-")[2] for of in list(EMOJI.values())[label]]
    own = f"{0xF000 + 256 * label + names.index(rest):X}"
    person = {"male": "1F468-200D-", "female": "1F469-200D-"}.get(gender, "")
    return person + own + ("-200D-2642-FE0F" if person and label % 2 else "")


def _draw_emoji(label: int, vendor: int, index: int) -> bytes:
    """An encoded image of 64×64: a coloured shape on a transparent ground."""
    image = Image.new("RGBA", (64, 64))
    colour = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(label / len(EMOJI), 0.9 - 0.1 * vendor, 0.9))
    left, top = index % 20, index // 20
    box = (left, top, left + 40, top + 40)
    pen = ImageDraw.Draw(image)
    if label % 2:
        pen.ellipse(box, fill=colour)
    else:
        pen.rectangle(box, fill=colour)
    encoded = io.BytesIO()
    image.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _tables(
    folder: Path, inside: str, split: str, rows: Sequence[Mapping[str, Any]], features: Any, files: int = 1
) -> Path:
    """Tables as the hub writes them: ``<split>-00000-of-00003.parquet``, features in the metadata."""
    import datasets

    datasets.disable_progress_bars()
    (folder / inside).mkdir(parents=True, exist_ok=True)
    whole = datasets.Dataset.from_list(list(rows), features=features)
    for index in range(files):
        path = folder / inside / f"{split}-{index:05d}-of-{files:05d}.parquet"
        whole.shard(files, index, contiguous=True).to_parquet(path)
    return folder


def _entry(content: bytes, name: str | None) -> dict[str, Any]:
    return {"bytes": content, "path": name}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
