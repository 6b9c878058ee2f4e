"""``python -m ftc.calibrate``: the table and the record of a run, from files of logits."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console

from ftc.assembly.components import build_measures, instantiate_calibrators
from ftc.config.commands import CalibrateConfig
from ftc.evaluation.logit_files import read_logits
from ftc.evaluation.saved_logits import calibrate_logits, count_not_seen
from ftc.reporting.tables import console
from ftc.results import RunRecord
from ftc.runs.folder import RunFolder, do_once


def calibrate(config: CalibrateConfig) -> dict[str, Any]:
    """Fit the calibrators, print the table and write the run folder; a finished run is only printed again.

    Args:
        config: the configuration, with ``run_dir`` filled in.

    Returns:
        The main scalars, for a sweep's table.

    Raises:
        InputError: a file that cannot be used, or a calibrator without the evidence that it needs.
    """
    out = console()
    return do_once(config, partial(_run, config, out), out)


def _run(config: CalibrateConfig, out: Console) -> RunRecord:
    folder = RunFolder(config.folder)
    files = {key: read_logits(key, path) for key, path in config.files().items()}
    partition = config.partition.of_width(files["eval"].logits.shape[1])
    calibrators = instantiate_calibrators(config.calibration)
    measures = build_measures(config.calibration)
    record = calibrate_logits(config.name, files, partition, calibrators, measures)
    for key in ("train", "held_out"):
        dropped = count_not_seen(files[key], partition) if key in files else 0
        if dropped:
            out.print(f"{key}: {dropped} samples are not of seen classes and take no part")
    with folder.claimed(config.overwrite):
        folder.start(config)
        folder.keep_figures(record, config.figures)
        folder.keep_per_class(record)
        folder.finish(record)
    return record
