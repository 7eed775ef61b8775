"""The search on Ray Tune: every trial is a Ray Train run of its own, in a folder of its own.

Our folders hold the truth about trials (`trial.json`, checkpoints); Ray Tune's hold the state of searcher and
scheduler. A search that was killed goes on by the same command: finished trials are not repeated, running ones go on
from their last checkpoint and tell again what they had told.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import tune

from rec.config import RunConfig, to_json
from rec.data.prepared import Prepared
from rec.errors import ConfigError
from rec.levels import of_libraries
from rec.run_folder import CONFIG, alone, recorded
from rec.runtime.cluster import Demand, refuse_shared_gpus, runtime, starting, together, worker_environment
from rec.runtime.elastic import refuse_elastic
from rec.runtime.search_state import can_go_on
from rec.runtime.search_watch import Room, SearchBudget, Watcher
from rec.runtime.trial import TrialRun
from rec.sections import counted
from rec.space import Dimension, Suggest, draw
from rec.storage import Storage, absolute
from rec.systems.api import System
from rec.train.job import build, check_data, claim, open_data
from rec.train.phases import Stretch, stretches
from rec.tuning.page import write_page
from rec.tuning.results import PAGE, read_trials, search_over, write_results
from rec.tuning.search import apply, check_objectives, evaluations, for_search, objectives, space_of, value_at
from rec.tuning.trial import RUNNING, STOPPED

HEAD = "node:__internal_head__"
"""What Ray's head has of itself as a resource."""
STATE = "state"
"""Folder of Ray Tune's own state below the search's."""
QUIET_TUNE = {
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ctrl-C is the command's own: what is on file goes on with the same command.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
Say = Callable[[str], None]


def search(config: RunConfig, say: Say) -> str:
    """Search the config's space, or go on with the search in its folder; return what a person reads at the end.

    Raises:
        ConfigError: the space or the cluster does not fit.
        TrainingError: no trial came to an evaluation.
    """
    refuse_shared_gpus(config.parallel)
    refuse_elastic(config.parallel, "a search")
    where = config.data.model_copy(update={"root": absolute(config.data.root)})
    config = config.model_copy(update={"out": absolute(config.out), "data": where})
    space, data = space_of(config), open_data(config)
    system = build(config, data)
    config, phases = for_search(config, system), stretches(system, config.train)
    _check(config, space, data, system)
    _same_search(config, Storage(config.out), data)
    if over := search_over(config, list(space)):
        return over
    with alone(config.out):
        return _search(config, space, phases, say)


def _search(config: RunConfig, space: Mapping[str, Dimension], phases: Sequence[Stretch], say: Say) -> str:
    """Run trials until the search is over, and return its results as text."""
    storage = claim(config)
    storage.delete(PAGE)  # which is written last: it tells that the results are whole
    cpus = config.parallel.cpus
    wanted = config.tune.concurrent or max(1, int((os.cpu_count() or 1) / cpus))
    one = demand = Demand.by_workers(config.parallel)
    if most := config.tune.concurrent:
        key, of = "tune.concurrent", "workers of trials"
        demand = Demand(most * cpus, most * one.gpus, key, "lower it", of, each=one.each, count=most * one.count)
    say(f"{config.out}: {starting()}, for the search")
    with quiet(), runtime(wanted * cpus, worker_environment(config.parallel), demand=demand):
        room = together(one)
        # A trial more than the cluster holds would hold back workers of one that could run (Ray issue 54305).
        concurrent = min(config.tune.concurrent or room, room)
        trials, each = counted(config.tune.trials, "trial"), counted(cpus, "CPU")
        say(f"{config.out}: {trials}, {concurrent} at the same time, {each} each")
        _tuner(config, space, storage, concurrent, phases, say).fit()
        for trial in read_trials(storage):
            if trial.status == RUNNING:
                trial.status = STOPPED
                trial.write(storage.below(f"trials/{trial.id}"))
    text = write_results(config, storage, list(space))
    write_page(config, storage, read_trials(storage), list(space))
    return text


def _same_search(config: RunConfig, storage: Storage, data: Prepared) -> None:
    """Check that a search in this folder was started with the same keys and data: Ray Tune goes on with what it has.

    Raises:
        ConfigError: it was not; the key is named.
    """
    for trial in storage.list("trials"):
        for run in storage.list(f"trials/{trial}"):
            check_data(storage.below(f"trials/{trial}/{run}"), data)
    if not storage.exists(CONFIG):
        return
    before = recorded(storage).tune
    for name in type(before).model_fields:
        ours, theirs = getattr(config.tune, name), getattr(before, name)
        if ours != theirs:
            raise ConfigError(
                f"tune.{name}: {ours!r}, but the search in {config.out} was started with {theirs!r}; "
                "choose another out= or delete that folder"
            )


def _check(config: RunConfig, space: Mapping[str, Dimension], data: Prepared, system: System[Any, Any]) -> None:
    """Check that objectives are measured, phases are there, and a population can exchange checkpoints."""
    check_objectives(config, system)
    for key, dimension in space.items():
        if key.startswith("train.phases."):
            for value in dimension.values:
                stretches(system, apply(config, {key: value}, config.out).train)
    if config.tune.scheduler == "pbt":
        if config.tune.objectives:
            raise ConfigError("tune.objectives: population-based training follows one metric; leave it empty")
        if conditional := [key for key, dimension in space.items() if dimension.when]:
            raise ConfigError(f"tune.space.{conditional[0]}: population-based training knows no conditions")
        shapes = {name: tensor.shape for name, tensor in system.model().state_dict().items()}
        for key, dimension in space.items():
            for value in dimension.values:
                other = build(apply(config, {key: value}, config.out), data).model().state_dict()
                if {name: tensor.shape for name, tensor in other.items()} != shapes:
                    message = "changes the model's shape; population-based training moves weights between trials"
                    raise ConfigError(f"tune.space.{key}: {value!r} {message}")


def _tuner(
    config: RunConfig,
    space: Mapping[str, Dimension],
    storage: Storage,
    concurrent: int,
    phases: Sequence[Stretch],
    say: Say,
) -> tune.Tuner:
    trainable = tune.with_resources(_trainable(config, len(phases)), _resources(config))
    most = evaluations(phases[-1:])
    if can_go_on(storage.below(STATE)):
        say(f"{config.out}: going on with the search; finished trials are not repeated")
        path = storage.uri_of(STATE)
        return tune.Tuner.restore(path, trainable=trainable, param_space=_param_space(config, space))
    storage.delete(STATE)
    return tune.Tuner(
        trainable,
        param_space=_param_space(config, space),
        tune_config=tune.TuneConfig(
            num_samples=config.tune.trials,
            max_concurrent_trials=concurrent,
            search_alg=_searcher(config, space),
            scheduler=_scheduler(config, space, most),
            reuse_actors=config.tune.scheduler != "pbt",
        ),
        run_config=tune.RunConfig(
            name=STATE,
            storage_path=config.out,
            verbose=0,
            stop=SearchBudget(config.tune.max_hours, config.tune.max_worker_hours, max(1, config.parallel.workers)),
            failure_config=tune.FailureConfig(max_failures=max(1, config.parallel.max_failures)),
            callbacks=[Watcher(config, most), Room(config, concurrent), *_loggers(config)],
        ),
    )


def _trainable(config: RunConfig, phases: int) -> type[TrialRun]:
    """Return the trial's class for this search; it travels to processes as a whole."""

    class Bound(TrialRun):
        base = to_json(config)

    Bound.phases = phases
    Bound.__name__ = "trial"
    return Bound


def _resources(config: RunConfig) -> tune.PlacementGroupFactory:
    """Return what the process of a trial reserves: hardly anything where its workers reserve their own."""
    if config.parallel.workers:
        # On the head, where it is not lost with a node: what is cut off would go on writing beside its successor.
        return tune.PlacementGroupFactory([{"memory": 1 << 20, HEAD: 0.001}])
    return tune.PlacementGroupFactory([config.parallel.worker_resources])


@dataclass(frozen=True)
class DefineByRun:
    """Draws a point from an Optuna trial, conditions included."""

    space: Mapping[str, Dimension]
    config: RunConfig

    def __call__(self, trial: Suggest) -> dict[str, Any]:
        """Return the point."""
        return draw(self.space, trial, lambda key: value_at(self.config, key))


def _searcher(config: RunConfig, space: Mapping[str, Dimension]) -> Any:
    if config.tune.scheduler == "pbt":
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    from ray.tune.search.optuna import OptunaSearch

    goals = objectives(config)
    seed = config.tune.seed
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    if config.tune.search == "tpe":
        # Trials that run are taken as poor ones, so that those drawn beside them lie elsewhere.
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    metric, mode = [f"value/{name}" for name in goals], list(goals.values())
    if len(goals) == 1:
        return OptunaSearch(space=DefineByRun(space, config), metric=metric[0], mode=mode[0], sampler=sampler)
    return OptunaSearch(space=DefineByRun(space, config), metric=metric, mode=mode, sampler=sampler)


def _scheduler(config: RunConfig, space: Mapping[str, Dimension], most: int) -> Any:
    """Return what stops trials; `most` are the evaluations of a whole trial that count."""
    from ray.tune import schedulers

    name, mode = next(iter(objectives(config).items()))
    first = f"value/{name}"
    if config.tune.scheduler == "asha":
        return schedulers.ASHAScheduler(
            time_attr="evaluations",
            metric=first,
            mode=mode,
            max_t=most,
            grace_period=min(config.tune.grace, most),
            reduction_factor=config.tune.reduction,
        )
    if config.tune.scheduler == "pbt":
        return schedulers.PopulationBasedTraining(
            time_attr="evaluations",
            metric=first,
            mode=mode,
            perturbation_interval=config.tune.perturb_every,
            hyperparam_mutations=_param_space(config, space),
            log_config=False,
            quantile_fraction=0.25,
        )
    return schedulers.FIFOScheduler()


def _param_space(config: RunConfig, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Return the space for a population, whose first values are drawn at random; elsewhere Optuna draws."""
    if config.tune.scheduler != "pbt":
        return {}
    domains: dict[str, Any] = {}
    for key, dimension in space.items():
        if dimension.kind == "choice":
            domains[key] = tune.choice(list(dimension.values))
            continue
        low, high = dimension.values
        if dimension.kind == "int":
            domains[key] = tune.randint(low, high + 1)
        else:
            domains[key] = tune.loguniform(low, high) if dimension.kind == "log" else tune.uniform(low, high)
    return domains


def _loggers(config: RunConfig) -> list[Any]:
    """Return what carries results to MLflow where it is installed; TensorBoard gets them by itself."""
    storage = Storage(config.out)
    if importlib.util.find_spec("mlflow") is None or not storage.is_local:  # whose database is a local file
        return []
    from ray.tune.logger.mlflow import MLflowLoggerCallback

    class Renaming(MLflowLoggerCallback):  # type: ignore[misc]
        """MLflow refuses names with an @."""

        def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
            super().log_trial_result(iteration, trial, {k.replace("@", "_at_"): v for k, v in result.items()})

    name = config.system.rsplit(":", 1)[-1]
    return [Renaming(tracking_uri=f"sqlite:///{storage.path('mlflow.db')}", experiment_name=name)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Ray Tune and Optuna from printing, and make the search's state be written often."""
    before = {name: os.environ.get(name) for name in QUIET_TUNE}
    os.environ.update({name: value for name, value in QUIET_TUNE.items() if before[name] is None})
    logging.getLogger("ray.tune").setLevel(of_libraries())
    logging.getLogger("optuna").setLevel(of_libraries())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
