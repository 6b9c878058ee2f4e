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
from ftc.calibrators import Calibrator
from ftc.config.deployment import DeployConfig
from ftc.config.targets import check_targets
from ftc.data import Reader
from ftc.data.readers import EncodedReader
from ftc.errors import InputError
from ftc.export.bundle import bundle
from ftc.export.card import CARD, Card, is_deployed
from ftc.export.facts import Facts
from ftc.export.formats import FORMATS, Deployment, Format
from ftc.export.hub import push
from ftc.export.verification import ROW, Agreement, compare, logits_of_recipe, near_ties, row_of
from ftc.files import folder_written_whole
from ftc.models import Classifier, fold_calibration, restore_classifier
from ftc.partition import PartitionManifest
from ftc.reporting.tables import console, deployment_table
from ftc.results import Measured
from ftc.runs.finished import FinishedRun
from ftc.runs.folder import PARTITION_FILE
from ftc.runs.outputs import images_of, logits_of
from ftc.runs.tradeoff import choose_gamma


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
    name, calibrator = _calibrator(config, run)
    weights, metadata = bundle(run.folder, run.record, name, calibrator)
    facts = Facts.of_metadata({**metadata, "input": config.input}, f"run={run.folder}")
    measured = restore_classifier(metadata, weights)
    formats = _able(formats, measured, out)
    reader = images_of(run, "test", config.allow_targets)
    out.print(f"Verifying on {len(reader.targets):,} test images of {run.record.name}")
    logits = logits_of(measured, reader)
    _check_measured(run, name, logits, reader.targets, out)
    stage = run.record.stages.calibrated[name]
    temperature = _temperature(config, run, name, out)
    choice = choose_gamma(config, run, measured, stage.gamma, temperature, out)
    facts = facts.model_copy(update={"gamma": choice.gamma, "temperature": temperature})
    # The calibrator's γ is in the weights already.
    moved = choice.gamma - stage.gamma
    measured.load_timm_state_dict(
        fold_calibration(weights, metadata["head"], run.partition, moved, temperature)
    )
    deployment = Deployment(measured, facts)
    logits[:, list(run.partition.absent)] += moved
    with folder_written_whole(to, config.overwrite) as folder, tempfile.TemporaryDirectory() as place:
        files = _as_files(reader, facts.preprocessing.mode, Path(place), out)
        row = row_of(logits, reader.targets, run.partition, run.calibration.average)
        reference = _Reference(logits / temperature, reader.targets, files, row)
        agreements = {}
        for one in formats:
            _write(one, deployment, folder)
            agreements[one] = _verified(one, run, deployment, reference, folder, Path(place))
        title = f"{run.record.name}, {stage.title or name}, γ = {choice.gamma:.2f}, T = {temperature:.2f}"
        rows = {one.title: found for one, found in agreements.items()}
        out.print(deployment_table(title, row, rows), soft_wrap=False)
        manifest = PartitionManifest.read(run.folder / PARTITION_FILE)
        card = Card(run.record, manifest, facts, agreements, row, choice.reason)
        (folder / CARD).write_text(card.text(to.name, config.license, config.push), encoding="utf-8")
    out.print(f"Deployed: {to} ({', '.join(file for one in formats for file in one.files)}, {CARD})")
    if config.push is not None:
        push(to, config.push, out.print)
    return {}


def _calibrator(config: DeployConfig, run: FinishedRun) -> tuple[str, Calibrator[Any]]:
    """The calibrator to deploy, by name."""
    record, stages = run.record, run.record.stages.calibrated
    choices = [name for name, stage in stages.items() if stage.lane != "oracle"]
    name = config.calibrator or record.deployed
    if record.deployed is None or name is None:
        raise InputError(f"run={run.folder}: kept no model; name a run of ftc.train or ftc.evaluate")
    if name not in choices:
        why = "looks at evaluated labels" if name in stages else "is none of the run's"
        raise InputError(f"calibrator={name}: {why}; choose from {', '.join(choices)}")
    check_targets({"calibration": run.calibration.model_dump()}, config.allow_targets)
    return name, make(f"calibration.calibrators.{name}", run.calibration.calibrators[name])


def _temperature(config: DeployConfig, run: FinishedRun, name: str, out: Console) -> float:
    """T of the deployed model."""
    asked = config.temperature
    if isinstance(asked, float):
        return asked
    found = (run.record.probabilities or {}).get(name)
    fitted = {} if found is None else found.temperatures
    if asked == "none":
        if found is not None and fitted:
            errors = [f"{_ece(found)} % at T = 1"]
            errors += [f"{_ece(s)} % at {s.temperature:.2f} (temperature={k})" for k, s in fitted.items()]
            out.print(f"Calibration error of its probabilities on the test images: {', '.join(errors)}")
        return 1.0
    if asked not in fitted:
        choices = ", ".join([*fitted, "none"])
        raise InputError(f"temperature={asked}: the run fitted none; choose from {choices}, or give a number")
    return fitted[asked].temperature


def _ece(found: Measured) -> str:
    value = found.metrics["ece_all"]
    return "–" if value is None else f"{100 * value:.1f}"


def _able(formats: list[Format], classifier: Classifier, out: Console) -> list[Format]:
    """The formats that can express the model; a line says of each other one why it cannot."""
    able = []
    for one in formats:
        obstacle = one.obstacle(classifier)
        if obstacle is None:
            able.append(one)
        else:
            out.print(f"formats={one.name} is left out: {obstacle}")
    if not able:
        others = [name for name, f in FORMATS.items() if f.obstacle(classifier) is None]
        raise InputError(f"formats={[f.name for f in formats]}: {obstacle}; choose {', '.join(others)}")
    return able


def _precision(run: FinishedRun) -> Any:
    trainer = run.config.get("trainer")
    return trainer.get("precision") if isinstance(trainer, dict) else None


def _check_measured(run: FinishedRun, name: str, logits: Tensor, target: Tensor, out: Console) -> None:
    """Hold the run's weights and images against its row of the table.

    Raises:
        InputError: they do not give it, on a device whose arithmetic is that of this machine.
    """
    row = row_of(logits, target, run.partition, run.calibration.average)
    recorded = run.record.stages.calibrated[name].metrics
    different = _difference(row, recorded, int(near_ties(logits).sum()), run.record.num_samples)
    if different:
        line = f"{different} by the run's own weights and images on this machine, in float32"
        if run.record.device == "cpu" and _precision(run) == "32-true":
            raise InputError(f"run={run.folder}: {line}; its files are not those that it measured")
        out.print(f"{run.folder}: {line} (it ran on {run.record.device or 'another device'})")


def _write(one: Format, deployment: Deployment, folder: Path) -> None:
    """Write a format; whatever an exporter raises on a model that it does not know becomes a line."""
    try:
        one.write(deployment, folder)
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:  # exporters raise almost anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"formats={one.name}: this model cannot be exported ({reason}); leave the format out"
        ) from error


def _verified(
    one: Format,
    run: FinishedRun,
    deployment: Deployment,
    reference: _Reference,
    folder: Path,
    workplace: Path,
) -> Agreement:
    """Run a format without ftc, from files to labels, and refuse what is not the model."""
    facts, average = deployment.facts, run.calibration.average
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


def _as_files(reader: Reader, mode: str, workplace: Path, out: Console) -> list[Path]:
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
        reader.decode(row).convert(mode).save(path)
        files.append(path)
    if converted:
        out.print(
            f"{converted} test images have 16 bits a channel; they are verified as ftc scales them to 8 "
            "bits, which other programs do not"
        )
    return files
