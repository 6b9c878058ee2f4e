"""The model card of a deployed model, in the Hub's format: YAML, then prose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ftc.export.facts import Facts
from ftc.export.formats import Format
from ftc.export.verification import ROW, Agreement
from ftc.partition import PartitionManifest
from ftc.results import METRICS, RunRecord, StageRecord

CARD = "README.md"
# What marks a folder as written here: the beginning of the card's prose.
_MARK = "<!-- Written by ftc.deploy. -->"

# Class names of a group that are written out.
_MOST_NAMES = 50

_HOW_TO_USE = """
logits_of_files = logits(["image.jpg"])
print(class_names[logits_of_files[0].argmax()])
"""


def model_card(
    record: RunRecord,
    manifest: PartitionManifest,
    facts: Facts,
    agreements: Mapping[Format, Agreement],
    folder: str,
    licence: str,
    repository: str | None,
) -> str:
    """The text of ``README.md``.

    Args:
        record: the run's record.
        manifest: its classes and samples.
        facts: what the model says of itself.
        agreements: how every format agrees with the model.
        folder: name of the folder, as its users would write it.
        licence: the Hub's name of the licence.
        repository: the Hub's name of the model; None for one that stays here.
    """
    formats = list(agreements)
    sections = (
        _head(licence, formats),
        _MARK,
        f"# {(repository or folder).rpartition('/')[2]}",
        "\n".join(_what(record, facts)),
        "## Classes\n\n" + "\n".join(_classes(manifest, facts)),
        "## Data\n\n" + "\n".join(_data(record, manifest)),
        "## Results\n\n" + "\n".join(_results(record, facts)),
        "## Verification\n\n" + "\n".join(_verification(agreements)),
        "## How to load it\n\n" + "\n\n".join(_loading(facts, formats, folder, repository)),
        "## Limits\n\n" + "\n".join(_limits(record, facts)),
        "## Class by class\n\n" + "\n".join(_per_class(record, facts)),
    )
    return "\n\n".join(sections) + "\n"


def is_deployed(folder: Path) -> bool:
    """Whether a folder was written by ``ftc.deploy``."""
    try:
        return _MARK in (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _head(licence: str, formats: Sequence[Format]) -> str:
    library = "timm" if any(one.name == "timm" for one in formats) else formats[0].name.partition("_")[0]
    tags = "".join(f"- {tag}\n" for tag in ("image-classification", *(one.name for one in formats), "ftc"))
    return (
        f"---\nlicense: {licence}\nlibrary_name: {library}\npipeline_tag: image-classification\n"
        f"tags:\n{tags}---"
    )


def _what(record: RunRecord, facts: Facts) -> Iterator[str]:
    stage = record.stages.calibrated[facts.calibrator]
    groups = facts.classes()
    yield (
        f"An image classifier of {len(facts.class_names)} classes. It was fine-tuned on images of "
        f"{len(groups.seen)} of them (*seen*), and calibrated so that it keeps {len(groups.absent)} others "
        "that its users ask for (*absent*): γ, a constant, is added to the logits of every absent class. "
        "γ is in the bias of the head, so that the model is a plain one."
    )
    yield ""
    yield f"- Run: {record.name}; {record.method or 'no training'}"
    yield f"- Calibrator: {stage.title or facts.calibrator}, which looked at {', '.join(stage.uses)}"
    yield f"- γ = {facts.gamma:.4f} logits; temperature {facts.temperature:.4g}"
    alpha = stage.details.get("alpha")
    if alpha is not None:
        yield f"- Weights: {alpha:g} of the way from the source to the fine-tuned model"
    yield f"- Software: {', '.join(f'{name} {version}' for name, version in record.versions.items())}"


def _classes(manifest: PartitionManifest, facts: Facts) -> Iterator[str]:
    groups = facts.classes()
    meaning = {
        "seen": "with target-domain training images",
        "absent": "without; γ is added to their logits",
        "others": "neither trained on nor asked for in evaluation; their logits are as they were",
    }
    for group, words in meaning.items():
        columns = groups.columns(group)  # type: ignore[arg-type]
        if columns:
            names = ", ".join(facts.class_names[column] for column in columns[:_MOST_NAMES])
            more = ", …" if len(columns) > _MOST_NAMES else ""
            yield f"- **{group}** ({len(columns)}), {words}: {names}{more}"


def _data(record: RunRecord, manifest: PartitionManifest) -> Iterator[str]:
    yield "| split | samples | SHA-256 of the list of samples and labels |"
    yield "|---|--:|---|"
    for split, samples in manifest.samples.items():
        yield f"| {split} | {samples.count:,} | `{samples.sha256}` |"
    yield ""
    counts = ", ".join(f"{count:,} {group}" for group, count in record.num_samples.items() if count)
    yield f"Test images: {counts}. Partition: `{record.partition.sha256}`."


def _results(record: RunRecord, facts: Facts) -> Iterator[str]:
    names = [
        name
        for name in ROW
        if any(stage.metrics.get(name) is not None for _, stage in record.rows() if name in stage.metrics)
    ]
    yield "| percent | " + " | ".join(METRICS[name] for name in names) + " |"
    yield "|---" + "|--:" * len(names) + "|"
    own = record.stages.calibrated[facts.calibrator]
    rows: dict[str, StageRecord | None] = {
        "source model": record.stages.source,
        "fine-tuned, γ = 0": record.stages.fine_tuned,
        f"**this model** ({own.title or facts.calibrator})": own,
    }
    for title, stage in rows.items():
        if stage is not None:
            yield f"| {title} | " + " | ".join(_percent(stage.metrics.get(name)) for name in names) + " |"
    yield ""
    yield (
        "Acc_{A/B}: samples of classes A, the highest logit among classes B; Y all, S seen, U absent "
        "classes; H the harmonic mean of S/Y and U/Y; AUSUC the area under the seen–absent curve."
    )


def _verification(agreements: Mapping[Format, Agreement]) -> Iterator[str]:
    yield (
        "Every file was run on the test images, from image file to label, in a process without ftc, and "
        "compared with the model that the results are of:"
    )
    yield ""
    yield "| file | Y/Y | S/Y | U/Y | largest difference of two logits | same label |"
    yield "|---|--:|--:|--:|--:|--:|"
    for one, found in agreements.items():
        row = " | ".join(_percent(found.row[name]) for name in ("acc_all", "acc_seen", "acc_absent"))
        yield f"| `{one.file}` | {row} | {found.difference:.1e} | {100 * found.agreement:.2f} % |"


def _loading(facts: Facts, formats: Sequence[Format], folder: str, repository: str | None) -> Iterator[str]:
    for one in formats:
        hub = ""
        if repository is not None and one.name == "timm":
            hub = f" From the Hub: `hf-hub:{repository}` in place of `local-dir:{folder}`."
        yield f"With {one.title}:{hub}\n\n```python\n{one.recipe(facts, folder)}{_HOW_TO_USE}```"
    # The pipeline makes every image RGB.
    if any(one.name == "timm" for one in formats) and facts.preprocessing.mode == "RGB":
        yield (
            "With transformers, which opens images in its own way (transparent parts black):\n\n```python\n"
            f'from transformers import pipeline\n\nclassify = pipeline("image-classification", "{folder}")\n'
            'print(classify("image.jpg"))\n```'
        )
    yield (
        "With ftc, which also tells the group of the label and the γ at which it would change:\n\n```bash\n"
        f"python -m ftc.predict model={folder} images=image.jpg\n```"
    )


def _limits(record: RunRecord, facts: Facts) -> Iterator[str]:
    stage = record.stages.calibrated[facts.calibrator]
    if not record.num_samples.get("absent"):
        yield "- No image of an absent class was evaluated: how well it keeps them is not known."
    yield (
        "- γ trades seen for absent classes. It suits the share of absent-class images that the calibrator "
        "assumes or estimates; where the share differs much, choose γ anew."
    )
    if stage.lane == "unlabelled":
        yield "- γ was estimated from unlabelled target images; it may not suit images from elsewhere."
    yield (
        "- Its probabilities are a softmax of logits. How well they are calibrated differs between seen and "
        "absent classes."
    )
    if record.near_copies:
        yield (
            f"- {100 * record.near_copies:.0f} % of the held-out images are nearly copies of training "
            "images; what was estimated on them looks better than it is."
        )
    yield "- Images that are no image of any class get a label all the same."


def _per_class(record: RunRecord, facts: Facts) -> Iterator[str]:
    found = record.per_class
    if found is None or facts.calibrator not in found.calibrated:
        yield "Not recorded by the version of ftc that ran this."
        return
    groups = facts.classes().groups()
    yield "| class | group | test images | fine-tuned, γ = 0 (%) | this model (%) |"
    yield "|---|---|--:|--:|--:|"
    calibrated = found.calibrated[facts.calibrator]
    for row, column in enumerate(found.columns):
        name = found.names[row].replace("|", "\\|")
        numbers = f"{_percent(found.fine_tuned[row])} | {_percent(calibrated[row])}"
        yield f"| {name} | {groups[column]} | {found.num_samples[row]:,} | {numbers} |"


def _percent(value: float | None) -> str:
    return "–" if value is None or value != value else f"{100 * value:.1f}"
