"""The model card of a deployed model, in the Hub's format: YAML, then prose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from ftc.export.facts import Facts
from ftc.export.formats import Format
from ftc.export.verification import ROW, Agreement
from ftc.partition import Group, PartitionManifest
from ftc.results import METRICS, Measured, RunRecord, StageRecord

CARD = "README.md"
# What marks a folder as written here: the beginning of the card's prose.
_MARK = "<!-- Written by ftc.deploy. -->"

# Class names of a group that are written out.
_MOST_NAMES = 50

_HOW_TO_USE = """
logits_of_files = logits(["image.jpg"])
print(class_names[logits_of_files[0].argmax()])
"""


@frozen(eq=False)
class Card:
    """What a model card tells.

    Attributes:
        record: the run's record.
        manifest: its classes and samples.
        facts: what the model says of itself.
        agreements: how every format agrees with the model.
        row: the model's metrics on the test images, fractions by name.
        chosen: how γ was chosen for the deployment, in words; empty where it is the calibrator's.
    """

    record: RunRecord
    manifest: PartitionManifest
    facts: Facts
    agreements: Mapping[Format, Agreement]
    row: Mapping[str, float]
    chosen: str

    def text(self, folder: str, licence: str, repository: str | None) -> str:
        """The text of ``README.md``.

        Args:
            folder: name of the folder, as its users would write it.
            licence: the Hub's name of the licence.
            repository: the Hub's name of the model; None for one that stays here.
        """
        sections = {
            "Classes": self._classes(),
            "Data": self._data(),
            "Results": self._results(),
            "Probabilities": self._probabilities(),
            "Verification": self._verification(),
            "How to load it": self._loading(folder, repository),
            "Limits": self._limits(),
            "Class by class": self._per_class(),
        }
        name = (repository or folder).rpartition("/")[2]
        parts = [_head(licence, list(self.agreements)), _MARK, f"# {name}", "\n".join(self._what())]
        parts += [f"## {title}\n\n" + "\n".join(lines) for title, lines in sections.items()]
        return "\n\n".join(parts) + "\n"

    @property
    def _stage(self) -> StageRecord:
        return self.record.stages.calibrated[self.facts.calibrator]

    def _what(self) -> Iterator[str]:
        facts, groups = self.facts, self.facts.classes()
        yield (
            f"An image classifier of {len(facts.class_names)} classes. It was fine-tuned on images of "
            f"{len(groups.seen)} of them (*seen*), and calibrated so that it keeps {len(groups.absent)} "
            "others that its users ask for (*absent*): γ, a constant, is added to the logits of every absent "
            "class. It is in the bias of the head, so that the model is a plain one."
        )
        yield ""
        yield f"- Run: {self.record.name}; {self.record.method or 'no training'}"
        stage = self._stage
        yield f"- Calibrator: {stage.title or facts.calibrator}, which looked at {', '.join(stage.uses)}"
        yield f"- γ = {facts.gamma:.4f} logits" + (f": {self.chosen}" if self.chosen else "")
        if facts.temperature != 1:
            yield f"- Temperature T = {facts.temperature:.4f}: all logits are divided by it"
        alpha = stage.details.get("alpha")
        if alpha is not None:
            yield f"- Weights: {alpha:g} of the way from the source to the fine-tuned model"
        if stage.details.get("strength"):
            yield "- Head: moved towards what the classes of the unlabelled images look like"
        yield f"- Software: {', '.join(f'{name} {v}' for name, v in self.record.versions.items())}"

    def _classes(self) -> Iterator[str]:
        groups = self.facts.classes()
        meaning: dict[Group, str] = {
            "seen": "with target-domain training images",
            "absent": "without; γ is added to their logits",
            "others": "neither trained on nor asked for in evaluation; their logits are as they were",
        }
        for group, words in meaning.items():
            columns = groups.columns(group)
            if columns:
                names = ", ".join(self.facts.class_names[column] for column in columns[:_MOST_NAMES])
                more = ", …" if len(columns) > _MOST_NAMES else ""
                yield f"- **{group}** ({len(columns)}), {words}: {names}{more}"

    def _data(self) -> Iterator[str]:
        yield "| split | samples | SHA-256 of the list of samples and labels |"
        yield "|---|--:|---|"
        for split, samples in self.manifest.samples.items():
            yield f"| {split} | {samples.count:,} | `{samples.sha256}` |"
        yield ""
        counts = ", ".join(f"{count:,} {group}" for group, count in self.record.num_samples.items() if count)
        yield f"Test images: {counts}. Partition: `{self.record.partition.sha256}`."

    def _results(self) -> Iterator[str]:
        names = [name for name in ROW if self.row[name] == self.row[name]]
        yield "| percent | " + " | ".join(METRICS[name] for name in names) + " |"
        yield "|---" + "|--:" * len(names) + "|"
        stages = self.record.stages
        rows: dict[str, Mapping[str, float | None]] = {"fine-tuned, γ = 0": stages.fine_tuned.metrics}
        if stages.source is not None:
            rows = {"source model": stages.source.metrics, **rows}
        if self.chosen:
            rows[f"γ of {self._stage.title or self.facts.calibrator}"] = self._stage.metrics
        rows["**this model**"] = self.row
        for title, metrics in rows.items():
            yield f"| {title} | " + " | ".join(_percent(metrics.get(name)) for name in names) + " |"
        yield ""
        yield (
            "Acc_{A/B}: samples of classes A, the highest logit among classes B; Y all, S seen, U absent "
            "classes; H the harmonic mean of S/Y and U/Y; AUSUC the area under the seen–absent curve."
        )

    def _probabilities(self) -> Iterator[str]:
        found = (self.record.probabilities or {}).get(self.facts.calibrator)
        if found is None:
            yield "Not measured by the version of ftc that ran this."
            return
        yield (
            "ECE: the mean gap between confidence and accuracy, over 15 bins of equally many images "
            "(percent). NLL: the mean of −ln p of the right class (nats). On test images, γ as in the run's "
            "table:"
        )
        yield ""
        yield "| T | ECE Y | ECE S | ECE U | NLL Y | NLL S | NLL U |"
        yield "|---|--:|--:|--:|--:|--:|--:|"
        rows: dict[str, Measured] = {"1": found}
        rows |= {f"{s.temperature:.2f}, on {', '.join(s.uses)}": s for s in found.temperatures.values()}
        for title, measured in rows.items():
            ece = " | ".join(_percent(measured.metrics.get(f"ece_{g}")) for g in ("all", "seen", "absent"))
            nll = " | ".join(_decimal(measured.metrics.get(f"nll_{g}")) for g in ("all", "seen", "absent"))
            yield f"| {title} | {ece} | {nll} |"

    def _verification(self) -> Iterator[str]:
        yield (
            "Every file was run on the test images, from image file to label, in a process without ftc, and "
            "compared with the model that the results are of:"
        )
        yield ""
        yield "| file | Y/Y | S/Y | U/Y | largest difference of two logits | same label |"
        yield "|---|--:|--:|--:|--:|--:|"
        for one, found in self.agreements.items():
            files = ", ".join(f"`{file}`" for file in one.files)
            row = " | ".join(_percent(found.row[name]) for name in ("acc_all", "acc_seen", "acc_absent"))
            yield f"| {files} | {row} | {found.difference:.1e} | {100 * found.agreement:.2f} % |"

    def _loading(self, folder: str, repository: str | None) -> Iterator[str]:
        is_timm = any(one.name == "timm" for one in self.agreements)
        for one in self.agreements:
            hub = ""
            if repository is not None and one.name == "timm":
                hub = f" (from the Hub: `hf-hub:{repository}` in place of `local-dir:{folder}`)"
            recipe = one.recipe(self.facts, folder)
            yield f"With {one.title}{hub}:\n\n```python\n{recipe}{_HOW_TO_USE}```\n"
        # The pipeline makes every image RGB.
        if is_timm and self.facts.preprocessing.mode == "RGB":
            yield (
                "With transformers, which opens images in its own way (transparent parts black):\n\n"
                "```python\nfrom transformers import pipeline\n\n"
                f'classify = pipeline("image-classification", "{folder}")\n'
                'print(classify("image.jpg"))\n```\n'
            )
        if any(one.predicts for one in self.agreements):
            yield (
                "With ftc, which also tells the group of the label and the γ at which it would change:\n\n"
                f"```bash\npython -m ftc.predict model={folder} images=image.jpg\n```"
            )

    def _limits(self) -> Iterator[str]:
        if not self.record.num_samples.get("absent"):
            yield "- No image of an absent class was evaluated: how well it keeps them is not known."
        yield (
            "- γ trades seen for absent classes. It suits the share of absent-class images that it was "
            "chosen for; where the share differs much, choose γ anew."
        )
        if self._stage.lane == "unlabelled":
            yield "- γ was estimated from unlabelled target images; it may not suit images from elsewhere."
        yield (
            "- Probabilities: a temperature sees seen classes alone, or what unlabelled images tell; without "
            "labels of absent classes nothing mends what is wrong with theirs."
        )
        if self.record.near_copies:
            yield (
                f"- {100 * self.record.near_copies:.0f} % of the held-out images are nearly copies of "
                "training images; what was estimated on them looks better than it is."
            )
        yield "- Images that are no image of any class get a label all the same."

    def _per_class(self) -> Iterator[str]:
        found, name = self.record.per_class, self.facts.calibrator
        if found is None or name not in found.calibrated:
            yield "Not recorded by the version of ftc that ran this."
            return
        groups = self.facts.classes().groups()
        yield "With the γ of the run's table:"
        yield ""
        yield "| class | group | test images | fine-tuned, γ = 0 (%) | calibrated (%) |"
        yield "|---|---|--:|--:|--:|"
        for row, column in enumerate(found.columns):
            label = found.names[row].replace("|", "\\|")
            numbers = f"{_percent(found.fine_tuned[row])} | {_percent(found.calibrated[name][row])}"
            yield f"| {label} | {groups[column]} | {found.num_samples[row]:,} | {numbers} |"


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


def _percent(value: float | None) -> str:
    return "–" if value is None or value != value else f"{100 * value:.1f}"


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
