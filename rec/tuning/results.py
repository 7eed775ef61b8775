"""What a search found: its trials in order, the best or the best trade-offs, and files to go on with.

trials.csv    one row per trial          best.toml   the best trial's run, ready for `rec train`
search.json   the same with every metric search.html the plots
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rec.config import RunConfig, to_toml
from rec.errors import TrainingError
from rec.report.text import table
from rec.sections import counted
from rec.storage import Storage, uri_below
from rec.tuning.search import MAXIMUM, apply, objectives, short_names
from rec.tuning.trial import FAILED, FINISHED, STOPPED, Trial, read_trial

PAGE = "search.html"
"""Written last: it tells that the results are whole."""
SHOWN = 10


def read_trials(storage: Storage) -> list[Trial]:
    """Return every trial of a search, in the order they were drawn."""
    found = (read_trial(storage.below(f"trials/{name}")) for name in storage.list("trials"))
    return sorted((trial for trial in found if trial is not None), key=lambda trial: trial.drawn_s)


def ranked(trials: Sequence[Trial], goals: Mapping[str, str]) -> list[Trial]:
    """Return the trials that were evaluated and did not fail, best first; of several objectives, undominated first."""
    measured = [trial for trial in trials if trial.best and trial.status != FAILED]
    first = next(iter(goals))
    sign = 1 if goals[first] == MAXIMUM else -1
    by_first = sorted(measured, key=lambda trial: -sign * trial.best[first])
    if len(goals) == 1:
        return by_first
    return sorted(by_first, key=lambda trial: any(dominates(other, trial, goals) for other in by_first))


def dominates(a: Trial, b: Trial, goals: Mapping[str, str]) -> bool:
    """Return whether `a` is at least as good as `b` everywhere and better somewhere."""
    gains = [(a.best[n] - b.best[n]) * (1 if goal == MAXIMUM else -1) for n, goal in goals.items()]
    return min(gains) >= 0 and max(gains) > 0


def front(trials: Sequence[Trial], goals: Mapping[str, str]) -> list[Trial]:
    """Return the trials that no other dominates, best first by the first objective."""
    order = ranked(trials, goals)
    return [trial for trial in order if not any(dominates(other, trial, goals) for other in order)]


def write_results(config: RunConfig, storage: Storage, keys: Sequence[str]) -> str:
    """Write the search's files and return what a person reads at its end.

    Raises:
        TrainingError: no trial was ever evaluated; the most frequent cause is named.
    """
    goals, trials = objectives(config), read_trials(storage)
    order = ranked(trials, goals)
    if not order:
        causes = [trial.error for trial in trials if trial.error]
        cause = max(set(causes), key=causes.count) if causes else "none was started"
        raise TrainingError(f"{config.out}: no trial of {len(trials)} came to an evaluation: {cause}")
    storage.write("trials.csv", _csv(order + [t for t in trials if t not in order], goals, keys).encode())
    storage.write_json("search.json", {"objectives": goals, "trials": [asdict(trial) for trial in trials]})
    best = apply(config, order[0].point, uri_below(config.out, "best"))
    storage.write("best.toml", to_toml(best).encode())
    return summary(config, trials, keys)


def search_over(config: RunConfig, keys: Sequence[str]) -> str:
    """Return the summary of a search all of whose trials have ended and whose results are whole, else ""."""
    storage, tune = Storage(config.out), config.tune
    trials = read_trials(storage)
    # A budget stops trials that the next command, which has its own hours, goes on with.
    ends = {FINISHED, FAILED} if tune.max_hours or tune.max_worker_hours else {FINISHED, FAILED, STOPPED}
    if len(trials) < tune.trials or not {trial.status for trial in trials} <= ends or not storage.exists(PAGE):
        return ""
    over = f"{config.out}: nothing left to search: all {counted(len(trials), 'trial')} ended"
    return f"{over}\n{summary(config, trials, keys)}"


def summary(config: RunConfig, trials: Sequence[Trial], keys: Sequence[str]) -> str:
    """Return the table of the best trials, what became of all, and the command that trains the best one again."""
    goals = objectives(config)
    order = ranked(trials, goals)
    head = ["trial", "status", *goals, "evaluations", "seconds", *short_names(keys).values()]
    rows = [
        [
            trial.id,
            trial.status,
            *(f"{trial.best[name]:.4f}" for name in goals),
            str(trial.evaluations),
            f"{trial.total_s:.0f}",
            *(trial.show(key) for key in keys),
        ]
        for trial in order[:SHOWN]
    ]
    ends = {status: sum(trial.status == status for trial in trials) for status in sorted({t.status for t in trials})}
    lines = [table(head, rows)]
    if len(order) > SHOWN:
        lines.append(f"and {len(order) - SHOWN} more in {uri_below(config.out, 'trials.csv')}")
    if len(goals) > 1:
        best = counted(len(front(trials, goals)), "trial")
        lines.append(f"{best} dominated by no other (none is at least as good everywhere and better somewhere) first")
    lines.append("; ".join(f"{count} {status}" for status, count in ends.items()))
    lines += [f"failed: {trial.id}: {trial.error}" for trial in trials if trial.status == FAILED][:SHOWN]
    lines.append(f"plots: {uri_below(config.out, 'search.html')}")
    lines.append(f"train the best: rec train {config.out}/best.toml --seeds 3")
    return "\n".join(lines)


def _csv(trials: Sequence[Trial], goals: Mapping[str, str], keys: Sequence[str]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["trial", "status", *goals, "evaluations", "steps", "train_s", "total_s", *keys, "error"])
    for trial in trials:
        values: list[Any] = [trial.best.get(name, "") for name in goals]
        times = [f"{trial.train_s:.1f}", f"{trial.total_s:.1f}"]
        points = [trial.point.get(key, "") for key in keys]
        writer.writerow([trial.id, trial.status, *values, trial.evaluations, trial.steps, *times, *points, trial.error])
    return stream.getvalue()
