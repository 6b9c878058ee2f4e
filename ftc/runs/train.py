"""``python -m ftc.train``: a run, stage by stage.

source → classes → folds → epoch −1 → fine-tune → test → moved weights → report. Every stage is seeded on its
own, so that a source model from the cache changes nothing after it. Results of stages and checkpoints of
trainings are kept, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from rich.console import Console

from ftc.assembly.components import build_calibrators, build_callback, build_method
from ftc.assembly.loggers import asked_artifacts, closing, log_record, logger_factories
from ftc.calibrators import FoldEvidence, fit_all
from ftc.config.commands import TrainConfig
from ftc.errors import InputError
from ftc.reporting.tables import console
from ftc.results import CONFIG_FILE, RunRecord
from ftc.runs.conclude import conclude
from ftc.runs.folder import RunFolder, do_once
from ftc.runs.folds import fold_evidence, train_or_find_fold
from ftc.runs.moved import Hits, evaluate_moved_weights
from ftc.runs.page import write_run_page
from ftc.runs.parts import build_parts, build_source_stage, choose_classes, identity, manifest, shared_facts
from ftc.runs.processes import all_or_none, check_shared, leads
from ftc.runs.stages import Stages, goes_on
from ftc.runs.training import build_training


def train(config: TrainConfig) -> dict[str, Any]:
    """Do the whole run and print its table; a finished run of the same name is only printed again.

    With several processes every one does this, but only the leading one prints and writes.

    Args:
        config: the configuration, with ``run_dir`` filled in.

    Returns:
        The main scalars of every stage, for a sweep's table.

    Raises:
        InputError: an error in the configuration that only building its objects shows.
    """
    out = console(quiet=not leads())
    if config.fold is not None:
        return _train_fold(config, config.fold, out)
    return do_once(config, partial(_run, config, out), out)


def _run(config: TrainConfig, out: Console) -> RunRecord:
    folder = RunFolder(config.folder)
    stages = Stages(folder, out)
    with ExitStack() as held:
        with all_or_none():
            # Wrong input is refused here, before the folder is touched.
            logger_makers, calibrators = logger_factories(config), build_calibrators(config)
            build_method(config)
            source = build_source_stage(config, out)
            partition, weights = choose_classes(source, stages)
            parts = build_parts(source, partition, calibrators)
            if leads():
                held.enter_context(folder.claimed(config.overwrite))
        with all_or_none():
            this_run = identity(config, parts.images)
            resumed = goes_on(folder, this_run, config, out)
        weights = weights or source.run(stages)
        own_domain = source.own_domain()
        weights = source.with_new_columns(weights, parts.data, parts.new)
        plans = {calibrator.folds for calibrator in calibrators.values() if calibrator.folds is not None}
        folds = {}
        if plans:
            with stages.timed("folds"), all_or_none():
                folds = {plan: fold_evidence(parts, plan, weights) for plan in plans}
        if resumed:
            stages.go_on()
        else:
            with all_or_none():
                if leads():
                    folder.start(config, this_run, manifest(parts))
        check_shared(folder.path / CONFIG_FILE, partial(shared_facts, parts, weights), leads())
        of_fine_tuned = {name: c for name, c in calibrators.items() if not c.moves}
        callback = build_callback(config, parts.data, of_fine_tuned, folds)
        with closing(logger_makers if leads() else []) as loggers:
            training = build_training(parts, callback, loggers, stages)
            before = stages.once("source_evaluation", training.evaluate_source)
            callback.load_state_dict(before["calibration"])
            # Evidence that will not suffice for models with moved weights is told of before training.
            moved_later = {n: c for n, c in calibrators.items() if c.moves and not c.moves_head}
            fit_all(moved_later, callback.available)
            training.fine_tune(stages)
            after = stages.once("test", training.test)
            known: Hits = {}
            moved = {
                name: stages.once(
                    name,
                    partial(
                        evaluate_moved_weights,
                        parts,
                        training.module,
                        callback,
                        after["predictions"],
                        name,
                        weights,
                        known,
                    ),
                )
                for name, calibrator in calibrators.items()
                if calibrator.moves
            }
            record = conclude(training, stages, weights, own_domain, before, after, moved)
            if any("report" in asked_artifacts(logger) for logger in loggers):
                write_run_page(folder.path)
            log_record(loggers, record, folder.path, training.trainer.global_step)
        return record


def _train_fold(config: TrainConfig, fold: int, out: Console) -> dict[str, Any]:
    """Train one fold of every pseudo cross-validation in use, and cache it for the run that needs it.

    Raises:
        InputError: no pseudo cross-validation in use, or none with so many folds.
    """
    stages, calibrators = Stages(RunFolder(config.folder), out), build_calibrators(config)
    build_method(config)
    source = build_source_stage(config, out)
    partition, weights = choose_classes(source, stages)
    parts = build_parts(source, partition, calibrators)
    plans = {name: c.folds for name, c in calibrators.items() if c.folds is not None}
    deepest = max((plan.folds for plan in plans.values()), default=0)
    if fold >= deepest:
        raise InputError(
            f"fold={fold}: calibration.use={config.calibration.use} has {deepest} folds of pseudo "
            "cross-validation; choose a smaller one, or add pcv"
        )
    weights = weights or source.run(stages)
    result = {}
    for name, plan in plans.items():
        if fold < plan.folds:
            trained = train_or_find_fold(parts, plan, fold, weights)
            gamma = calibrators[name].estimate(FoldEvidence("one fold", (trained,))).gamma
            seen = " ".join(map(str, trained.partition.seen))
            out.print(f"Fold {fold} of {name}: pseudo-seen classes {seen}, γ {gamma:.2f}")
            result[f"{name}/gamma_fold_{fold}"] = gamma
    return result
