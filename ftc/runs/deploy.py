"""``python -m ftc.deploy``: from a finished run to a model in production, verified before it is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from PIL import Image
from rich.console import Console
from torch import Tensor

from ftc.assembly.instantiate import make
from ftc.config.calibration import CalibratorsConfig
from ftc.config.deployment import DeployConfig
from ftc.config.targets import check_targets
from ftc.data import Reader
from ftc.data.readers import EncodedReader
from ftc.errors import InputError
from ftc.export.bundle import bundle
from ftc.export.card import CARD, is_deployed, model_card
from ftc.export.facts import Facts
from ftc.export.formats import FORMATS, Deployment, Format
from ftc.export.hub import push
from ftc.export.verification import ROW, Agreement, compare, logits_of_recipe, row_of
from ftc.files import folder_written_whole
from ftc.models import restore_classifier
from ftc.partition import PartitionManifest
from ftc.reporting.tables import console, deployment_table
from ftc.runs.finished import FinishedRun
from ftc.runs.folder import PARTITION_FILE
from ftc.runs.outputs import images_of, logits_of


@frozen(eq=False)
class _Reference:
    """The model that is deployed, on the run's test images.

    Attributes:
        logits: calibrated logits (N, C), float32.
        target: int64 (N,), labels.
        files: a file for each image.
        row: metrics of the model, fractions by name.
    """

    logits: Tensor
    target: Tensor
    files: list[Path]
    row: Mapping[str, float]


def deploy(config: DeployConfig) -> dict[str, Any]:
    """Write a folder of a run's model, each format of which is proven to be that model.

    Returns:
        An empty dict: there are no scalars for a sweep's table.

    Raises:
        InputError: the run lacks what is asked for, no format can express the model, or one of them is not
            the model; nothing is left behind then.
    """
    out, run, to = console(), FinishedRun.read(Path(config.run)), Path(config.to)
    if to.exists() and not is_deployed(to):
        raise InputError(f"to={to}: exists and is no deployed model; choose another folder, or remove it")
    formats = [FORMATS[name] for name in config.formats]
    for one in formats:
        one.check_installed()
    deployment = _deployment(config, run)
    formats = _able(formats, deployment, out)
    with folder_written_whole(to) as folder, tempfile.TemporaryDirectory() as name:
        workplace = Path(name)
        reference = _reference(config, run, deployment, workplace, out)
        agreements = {}
        for one in formats:
            one.write(deployment, folder)
            agreements[one] = _verified(one, run, deployment, reference, folder, workplace)
        rows = {one.title: found for one, found in agreements.items()}
        out.print(deployment_table(run.record, deployment.facts.calibrator, rows), soft_wrap=False)
        card = model_card(
            run.record,
            PartitionManifest.read(run.folder / PARTITION_FILE),
            deployment.facts,
            agreements,
            to.name,
            config.license,
            config.push,
        )
        (folder / CARD).write_text(card, encoding="utf-8")
    out.print(f"Deployed: {to} ({', '.join(one.file for one in formats)}, {CARD})")
    if config.push is not None:
        push(to, config.push, out.print)
    return {}


def _deployment(config: DeployConfig, run: FinishedRun) -> Deployment:
    """The model that a calibrator of the run leads to."""
    record, stages = run.record, run.record.stages.calibrated
    choices = [name for name, stage in stages.items() if stage.lane != "oracle"]
    name = config.calibrator or record.deployed
    if record.deployed is None or name is None:
        raise InputError(f"run={run.folder}: kept no model; name a run of ftc.train or ftc.evaluate")
    if name not in choices:
        why = "looks at evaluated labels" if name in stages else "is none of the run's"
        raise InputError(f"calibrator={name}: {why}; choose from {', '.join(choices)}")
    content = run.config["calibration"]
    check_targets({"calibration": content}, config.allow_targets)
    node = CalibratorsConfig.model_validate(
        {key: value for key, value in content.items() if key in CalibratorsConfig.model_fields}
    ).calibrators[name]
    calibrator = make(f"calibration.calibrators.{name}", node)
    weights, metadata = bundle(run.folder, record, name, calibrator)
    facts = Facts.of_metadata(metadata, f"run={run.folder}").model_copy(update={"input": config.input})
    return Deployment(restore_classifier(metadata, weights), facts)


def _able(formats: list[Format], deployment: Deployment, out: Console) -> list[Format]:
    """The formats that can express the model; a line says of each other one why it cannot."""
    able = []
    for one in formats:
        obstacle = one.obstacle(deployment.classifier)
        if obstacle is None:
            able.append(one)
        else:
            out.print(f"formats={one.name} is left out: {obstacle}")
    if not able:
        others = [name for name, f in FORMATS.items() if f.obstacle(deployment.classifier) is None]
        raise InputError(f"formats={[f.name for f in formats]}: {obstacle}; choose {', '.join(others)}")
    return able


def _reference(
    config: DeployConfig, run: FinishedRun, deployment: Deployment, workplace: Path, out: Console
) -> _Reference:
    """The model on the run's test images, checked against the run's own row."""
    reader = images_of(run, "test", config.allow_targets)
    out.print(f"Verifying on {len(reader.targets):,} test images of {run.record.name}")
    logits = logits_of(deployment.classifier, reader)
    target, partition = reader.targets, deployment.facts.classes()
    row = row_of(logits, target, partition, run.config["calibration"]["average"])
    recorded = run.record.stages.calibrated[deployment.facts.calibrator].metrics
    near = compare(logits, logits, target, partition, run.config["calibration"]["average"]).ties
    different = _difference(row, recorded, near, run.record.num_samples)
    if different:
        exact = run.record.device == "cpu" and run.config["trainer"]["precision"] == "32-true"
        line = f"{different} by the run's own weights and images on this machine, in float32"
        if exact:
            raise InputError(f"run={run.folder}: {line}; its files are not those that it measured")
        out.print(f"{run.folder}: {line} (it ran on {run.record.device or 'another device'})")
    return _Reference(logits, target, _as_files(reader, deployment, workplace, out), row)


def _verified(
    one: Format,
    run: FinishedRun,
    deployment: Deployment,
    reference: _Reference,
    folder: Path,
    workplace: Path,
) -> Agreement:
    """Run a format without ftc, from files to labels, and refuse what is not the model."""
    facts, average = deployment.facts, run.config["calibration"]["average"]
    try:
        recipe = one.recipe(facts, str(folder))
        found = logits_of_recipe(recipe, reference.files, facts.class_names, workplace)
        agreement = compare(reference.logits, found, reference.target, facts.classes(), average)
    except InputError as error:
        raise InputError(f"formats={one.name}: {error}; nothing was written") from error
    if not one.exact:
        return agreement
    wrong = agreement.disagreeing
    different = _difference(agreement.row, reference.row, agreement.ties, run.record.num_samples)
    if len(wrong) or different:
        what = (
            f"{len(wrong)} of {len(reference.target)} images get another label" if len(wrong) else different
        )
        raise InputError(
            f"formats={one.name}: is not the model that was measured: {what}, such as "
            f"{reference.files[int(wrong[0]) if len(wrong) else 0].name}; logits differ by up to "
            f"{agreement.difference:.2g}; nothing was written"
        )
    return agreement


def _difference(
    found: Mapping[str, float], expected: Mapping[str, float | None], ties: int, counts: Mapping[str, int]
) -> str:
    """Words on the first metric that differs by more than samples at a tie explain; empty where none does."""
    for name in ROW:
        value, other = found[name], expected.get(name)
        if other is None or value != value:
            continue
        # A group's accuracy may be a mean over few samples, or over classes.
        allowed = 1e-6 + ties / max(1, min((n for n in counts.values() if n), default=1))
        if abs(value - other) > allowed:
            return f"{name} is {100 * value:.2f} % instead of {100 * other:.2f} %"
    return ""


def _as_files(reader: Reader, deployment: Deployment, workplace: Path, out: Console) -> list[Path]:
    """A file for every image; as the reader has it, where that is a file of 8 bits, else as PNG."""
    folder = workplace / "images"
    folder.mkdir()
    files, converted = [], 0
    for row in range(len(reader.targets)):
        path = folder / f"{row}"
        if isinstance(reader, EncodedReader):
            path.write_bytes(reader.encoded(row))
            with Image.open(path) as image:
                deep = image.mode.startswith("I")
            if not deep:
                files.append(path)
                continue
            converted += 1
        path = path.with_suffix(".png")
        reader.decode(row).convert(deployment.facts.preprocessing.mode).save(path)
        files.append(path)
    if converted:
        out.print(
            f"{converted} test images have 16 bits a channel; they are verified as ftc scales them to 8 "
            "bits, which other programs do not"
        )
    return files
