"""Optuna as a Hydra sweeper: the results of earlier jobs decide the values of the next (no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

# Hydra builds only sweepers of its plugins' package, and finds this one by its name.
PLUGIN = "hydra_plugins.ftc.OptunaSweeper"


def register() -> None:
    """Make ``hydra/sweeper=optuna`` known to Hydra."""
    Plugins.instance().class_name_to_class[PLUGIN] = OptunaSweeper


class OptunaSweeper(Sweeper):
    """Maximise the number that jobs return, with Optuna's tree-structured Parzen estimator.

    hydra-optuna-sweeper needs Optuna below 3, of 2022; this class works with maintained versions. Only run
    folders are kept: with the same seed and the same results Optuna asks for the same values, so the same
    command continues an interrupted sweep.

    Args:
        n_trials: number of jobs.
        n_jobs: number of jobs that are launched together, before any of them has returned.
        seed: seed of Optuna's sampler.
        params: what to search, by key: ``interval(a,b)``, ``int(interval(a,b))``, ``tag(log,interval(a,b))``,
            ``choice(…)`` or ``range(…)``.
    """

    def __init__(self, n_trials: int, n_jobs: int, seed: int, params: DictConfig | None) -> None:
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.seed = seed
        self.params: Mapping[Any, Any] = params or {}
        self.launcher: Launcher | None = None
        self.folder: Path | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        # Optuna is an optional dependency, and takes a second to import.
        import optuna

        assert self.launcher is not None
        assert self.folder is not None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        space: dict[str, Any] = {}
        fixed: dict[str, str] = {}
        for override in OverridesParser.create().parse_overrides(given):
            key = override.get_key_element()
            # The last override counts, as in Hydra: a value on the command line ends the search of its key.
            space.pop(key, None)
            fixed.pop(key, None)
            if override.is_sweep_override():
                space[key] = _distribution(override)
            else:
                fixed[key] = override.get_value_element_as_str()
        sampler = optuna.samplers.TPESampler(seed=self.seed, constant_liar=self.n_jobs > 1)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        returns: list[Sequence[JobReturn]] = []
        for start in range(0, self.n_trials, self.n_jobs):
            trials = [study.ask(space) for _ in range(min(self.n_jobs, self.n_trials - start))]
            jobs = [[f"{k}={v}" for k, v in {**fixed, **trial.params}.items()] for trial in trials]
            returns.append(self.launcher.launch(jobs, initial_job_idx=start))
            for trial, job in zip(trials, returns[-1], strict=True):
                value = job.return_value
                if value is None or not math.isfinite(value):
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                else:
                    study.tell(trial, value)
        return returns


def _distribution(override: Override) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if override.is_discrete_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    bounds = override.value()
    assert isinstance(bounds, IntervalSweep)
    low, high, log = bounds.start, bounds.end, "log" in bounds.tags
    assert low is not None
    assert high is not None
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)
