"""``python -m ftc.calibrate``: files of logits in, the table and the record of a run out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftc.assembly.components import build_measures, instantiate_calibrators
from ftc.config.commands import CalibrateConfig
from ftc.evaluation.logit_files import read_logits
from ftc.evaluation.saved_logits import calibrate_logits, count_not_seen
from ftc.reporting.figures import write_figures
from ftc.reporting.tables import console, results_tables
from ftc.results import FILE_NAME, RunRecord


def calibrate(config: CalibrateConfig) -> dict[str, Any]:
    """Fit the calibrators, print the table, write the run folder; a finished one is only printed again.

    Args:
        config: with ``run_dir`` filled in.

    Returns:
        The main scalars, for a sweep's table.

    Raises:
        InputError: a file that is not what it should be, or evidence that a calibrator misses.
    """
    assert config.run_dir is not None
    folder, out = Path(config.run_dir), console()
    finished = (folder / FILE_NAME).is_file() and not config.overwrite
    if finished:
        record = RunRecord.read(folder)
    else:
        files = {key: read_logits(key, path) for key, path in config.files().items()}
        partition = config.partition.of_width(files["eval"].logits.shape[1])
        calibrators = instantiate_calibrators(config.calibration)
        measures = build_measures(config.calibration)
        record = calibrate_logits(config.name, files, partition, calibrators, measures)
        for key in ("train", "held_out"):
            dropped = count_not_seen(files[key], partition) if key in files else 0
            if dropped:
                out.print(f"{key}: {dropped} samples are not of seen classes and take no part")
        write_figures(folder / "figures", record)
        # Last, because a folder with results is a finished run.
        record.write(folder)
    for table in results_tables(record):
        out.print(table)
    if finished:
        out.print("Finished before; nothing was computed. overwrite=true computes again.", style="yellow")
    out.print(f"Run folder: {folder}", soft_wrap=True)
    return record.scalars()
