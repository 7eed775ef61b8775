"""Whether a mixture pays on its data: the run beside plainer ones, seed by seed until that is clear.

`rec sweep CONFIG --verdict` trains them; `verdict.json`, `.txt` and `.html` in the run's folder tell what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from rec.config import RunConfig, override
from rec.errors import ConfigError
from rec.evaluation.compare import compare_seeds
from rec.evaluation.headline import Numbers, summarise
from rec.evaluation.measurement import read_measurement
from rec.evaluation.verdict import Gain, Standing, conclusion, gain, spread_of_seeds
from rec.filesystems import uri_below
from rec.progress import PLAIN_WIDTH, duration, terminal_width
from rec.report.html import page
from rec.report.origin import data_name, system_name
from rec.report.sweep import RESAMPLES, folder, measured
from rec.report.text import bytes_text, paragraph, table
from rec.sections import Bars, BarSeries, Part, Section, Table, Text, counted, from_plain, interval, number, to_plain
from rec.storage import Storage
from rec.train.training_record import cost_of, read_training

FILE, FOLDER, OWN = "verdict.json", "verdict", "as configured"
WORDS: Mapping[Standing, str] = {"better": "better", "worse": "worse", "alike": "as good", "open": "not clear"}


@dataclass(slots=True)
class Judged:
    """A run that was trained and measured with some seeds."""

    name: str
    words: Sequence[str]
    """Overrides of what is judged."""
    is_twin: bool
    """Whether it has something plainer in the place of the mixture, and not merely another mixture."""
    folders: list[str] = field(default_factory=list)
    numbers: list[Numbers] = field(default_factory=list)

    def values(self, metric: str) -> list[float]:
        """Return the metric by seed."""
        return [float(one["metrics"][metric]) for one in self.numbers]

    def costs(self) -> dict[str, float]:
        """Return the medians over seeds of training's seconds and memory, and the weights."""
        records = [read_training(Storage(place)) for place in self.folders]
        told = [cost_of(record["commands"]) for record in records if record]
        one = read_measurement(Storage(self.folders[0]), "test") or {}
        found = {"seconds": [cost["seconds"] for cost in told]}
        found["bytes"] = [cost["peak_memory_bytes"] for cost in told if "peak_memory_bytes" in cost]
        medians = {name: float(median(values)) for name, values in found.items() if values}
        return medians | ({"weights": float(one["parameters"])} if "parameters" in one else {})


def judged_runs(config: RunConfig, only: Sequence[str]) -> list[Judged]:
    """Return the run and what it is held against.

    Raises:
        ConfigError: it has no mixture, or nothing of a name that was asked for.
    """
    twins, others = config.model.twins("model"), config.model.others("model")
    if not twins:
        raise ConfigError(f"--verdict: {config.system} with these keys has no mixture that something could replace")
    if config.parallel.expert_parallel > 1 or config.parallel.moe_backend != "grouped":
        raise ConfigError(
            "--verdict: twins have no experts to spread over workers; set parallel.expert_parallel=1 and "
            "parallel.moe_backend=grouped, which change no numbers"
        )
    known = {**twins, **others}
    if unknown := [name for name in only if name not in known]:
        raise ConfigError(f"--only: nothing is called {unknown[0]!r}; there are {'; '.join(known)}")
    found, models = [Judged(OWN, (), False)], [config.model]
    for name in only or known:
        model = override(config, known[name]).model
        if model not in models:  # as wide as all may be as wide as those of a row
            found.append(Judged(name, known[name], name in twins))
            models.append(model)
    return found


def verdict(
    config: RunConfig,
    only: Sequence[str],
    seeds: int,
    margin: float,
    train: Callable[[RunConfig], None],
    say: Callable[[str], None],
) -> str:
    """Train and measure, a seed of all that is open at a time, and return what came of it; what is done is kept.

    Args:
        config: The run.
        only: Names of what it is held against; none is all.
        seeds: At most.
        margin: Share of the run's metric below which a difference does not matter.
        train: Trains a run.
        say: Tells a person how far it is.
    """
    own, *others = judged_runs(config, only)
    gains: dict[str, Gain] = {}
    for seed in range(seeds):
        waiting = [one for one in others if one.name not in gains or gains[one.name].standing == "open"]
        if not waiting:
            say(f"all is clear after {counted(seed, 'seed')}")
            break
        for one in (own, *waiting):
            _measure(config, one, seed, train, say)
        gains |= {one.name: _gain(own, one, [own, *others], margin) for one in waiting}
    return _told(config, own, others, gains)


def _measure(
    config: RunConfig, one: Judged, seed: int, train: Callable[[RunConfig], None], say: Callable[[str], None]
) -> None:
    """Train and measure a run with one more seed."""
    below = uri_below(
        folder(config.model_copy(update={"out": uri_below(config.out, FOLDER)}), one.name), f"seed-{seed}"
    )
    run = override(config, [*one.words, f"out={below}", f"train.seed={seed}"])
    say(f"{one.name}, seed {seed}: {run.out}")
    train(run)
    one.numbers.append(measured(run))
    one.folders.append(run.out)


def _metric(own: Judged) -> str:
    return str(next(name for name in own.numbers[0]["shown"] if own.numbers[0]["metrics"].get(name) is not None))


def _gain(own: Judged, other: Judged, every: Sequence[Judged], margin: float) -> Gain:
    """Return what the run gains over another one, by the seeds that both have."""
    metric, seeds = _metric(own), len(other.folders)
    rows = compare_seeds(own.folders[:seeds], other.folders, RESAMPLES, names=(own.name, other.name))
    found = next((row for row in rows if row["metric"] == metric and row["difference"]), None)
    if found is None:
        raise ConfigError(f"--verdict: {metric} of {own.name!r} and {other.name!r} cannot be compared")
    values = [one.values(metric) for one in every if one.numbers]
    size = abs(sum(own.values(metric)) / len(own.numbers))
    return gain(found["difference"], values, seeds, higher_is_better=found["higher_is_better"], margin=margin * size)


def _told(config: RunConfig, own: Judged, others: Sequence[Judged], gains: Mapping[str, Gain]) -> str:
    """File what was found, and return it as a person reads it."""
    metric = _metric(own)
    twins = {one.name: gains[one.name] for one in others if one.is_twin}
    standing, name = conclusion(twins) if twins else ("open", "")
    said = _sentence(metric, own, standing, name, twins, {one.name: one for one in others})
    variance, spare = spread_of_seeds([one.values(metric) for one in (own, *others)])
    of_seeds = f" and of seeds (standard deviation {number(variance**0.5)}, pooled over all runs)" if spare else ""
    rows = Table(
        head=["run", "seeds", metric, "gain (95 % interval)", "mixture", "training", "memory", "weights"],
        rows=[_row(metric, one, gains.get(one.name)) for one in (own, *others)],
    )
    notes = [
        f"Test split, {counted(own.numbers[0]['examples'], 'example')}. An interval is of the spread of examples "
        f"(paired bootstrap, {RESAMPLES:,} resamples){of_seeds}. Of what is clear no further seeds are trained; gains "
        "are over the seeds that both have.",
        *(f"{one.name}: {' '.join(one.words)}" for one in others),
    ]
    parts: list[Part] = [Text(text=said), *_figure(metric, gains), rows]
    parts += [Text(text=note, tone="note") for note in notes]
    sections = [Section(title="Does the mixture pay?", parts=parts)]
    storage = Storage(config.out)
    facts = {one.name: {"values": one.values(metric), **one.costs()} for one in (own, *others)}
    differences = {name: asdict(found) | {"standing": found.standing} for name, found in gains.items()}
    told = {"metric": metric, "standing": standing, "by": name, "said": said, "runs": facts, "gains": differences}
    storage.write_json(FILE, told | {"sections": to_plain(sections)})
    storage.write("verdict.txt", f"{_text(said, rows, notes, PLAIN_WIDTH)}\n".encode())
    title = f"Does the mixture of {system_name(config)} pay on {data_name(config)}?"
    alone = [Section(title="By twin", parts=parts[1:])]  # what is said stands above
    storage.write("verdict.html", page(title, said, alone).encode())
    return _text(said, rows, notes, terminal_width())


def filed_verdict(storage: Storage) -> Sequence[Section]:
    """Return what was found in a run's folder; nothing where nothing was asked."""
    return from_plain(storage.read_json(FILE)["sections"]) if storage.exists(FILE) else ()


def _sentence(
    metric: str, own: Judged, standing: Standing, name: str, twins: Mapping[str, Gain], runs: Mapping[str, Judged]
) -> str:
    """Return in words whether the mixture pays, beside which twin, and at what cost."""
    if not twins:
        return "Nothing plainer was trained in the place of the mixture, so that nothing can be said of it."
    found = twins[name]
    beside = f"{interval(found.mean, found.low, found.high)} in {metric} beside {name!r}"
    seeds = f"after {counted(found.seeds, 'seed')}"
    if standing == "better":
        said = (
            f"The mixture pays: it is better than each of {counted(len(twins), 'plainer model')}, by {beside} at least"
        )
    elif standing == "worse":
        said = f"The mixture does not pay: {name!r} is better; the mixture's gain is {beside}"
    elif standing == "alike":
        said = f"The mixture does not pay: {name!r} does as well; the mixture's gain is {beside}"
    else:
        return f"Not clear {seeds}: the mixture's gain is {beside}. More --seeds would tell."
    ours, theirs = own.costs(), runs[name].costs()
    ratios = [
        f"{ours[key] / theirs[key]:.2f} times its {what}"
        for key, what in (("seconds", "time of training"), ("bytes", "memory"), ("weights", "weights"))
        if ours.get(key) and theirs.get(key)
    ]
    return f"{said}, {seeds}. " + (f"It takes {', '.join(ratios)}." if ratios else "")


def _row(metric: str, one: Judged, found: Gain | None) -> list[str]:
    costs, seeds, known = one.costs(), len(one.numbers), summarise(one.numbers)[metric]
    return [
        one.name,
        str(seeds),
        number(known["mean"]) if seeds == 1 else f"{number(known['mean'])} ± {number(known['sd'])}",
        "" if found is None else interval(found.mean, found.low, found.high),
        "" if found is None else WORDS[found.standing],
        duration(costs["seconds"]) if "seconds" in costs else "-",
        bytes_text(costs["bytes"]) if "bytes" in costs else "-",
        f"{costs['weights']:,.0f}" if "weights" in costs else "-",
    ]


def _figure(metric: str, gains: Mapping[str, Gain]) -> list[Bars]:
    if not gains:
        return []
    series = BarSeries(
        name="gain",
        values=[found.mean for found in gains.values()],
        low=[found.low for found in gains.values()],
        high=[found.high for found in gains.values()],
    )
    return [
        Bars(
            title="What the mixture gains over each",
            groups=list(gains),
            series=[series],
            axis=f"gain in {metric}",
            horizontal=True,
            wide=True,
            caption="Right of 0 the mixture is better. Lines are 95 % intervals over examples and seeds.",
        )
    ]


def _text(said: str, rows: Table, notes: Sequence[str], width: int) -> str:
    head, lines = list(rows.head), [list(row) for row in rows.rows]
    return "\n".join([paragraph(said, width), table(head, lines, width), *(paragraph(note, width) for note in notes)])
