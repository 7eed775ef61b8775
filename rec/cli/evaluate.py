"""`rec evaluate`: metrics of runs, comparisons, and plain arrays by the same protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rec.cli.options import Overrides, Seeds, Split, argument, count, option
from rec.cli.run import runs, writable
from rec.config import RunConfig
from rec.errors import RequestError
from rec.levels import logger, say
from rec.progress import tell
from rec.sections import counted

if TYPE_CHECKING:
    from rec.evaluation.run import Workers

TEXT = "measure a trained run, compare two, or score plain arrays"
INTERRUPTED = "the same command starts again"
EXAMPLES = """examples:
  rec evaluate rec/configs/demo.toml
  rec evaluate rec/configs/ml-100k.toml --seeds 3 --split test
  rec evaluate --compare out/ml-100k out/sasrec
  rec evaluate --arrays scores.npz --k 10,100 --json metrics.json"""
ARRAYS_HELP = Path(__file__).parents[1] / "evaluation" / "tasks" / "ranking" / "arrays_help.txt"
EXAMPLES += f"\n\n--arrays FILE.npz:\n{ARRAYS_HELP.read_text()}"


def run(
    run: Annotated[str | None, argument("RUN", "TOML file of the run, or its folder")] = None,
    overrides: Overrides = None,
    compare: Annotated[
        tuple[str, str] | None, option("--compare", help="paired bootstrap of two runs' folders", metavar="A B")
    ] = None,
    arrays: Annotated[
        str | None,
        option("--arrays", help="score arrays that any model made, as told below", metavar="FILE.npz"),
    ] = None,
    k: Annotated[str, option("--k", help="cut-offs for --arrays (default: 10,50,100)", metavar="K")] = "10,50,100",
    all_: Annotated[bool, option("--all", help="print every metric, not only those that tell most")] = False,
    json: Annotated[str | None, option("--json", help="write the results there as well", metavar="FILE")] = None,
    predictions: Annotated[
        str | None,
        option("--predictions", help="read what `rec predict` wrote; runs no model", metavar="FOLDER"),
    ] = None,
    workers: Annotated[
        int, option("--workers", help="processes that share out the examples", metavar="N", parser=count)
    ] = 0,
    split: Split = "test",
    seeds: Seeds = 0,
) -> int:
    """Measure, compare, or score arrays; return the exit code."""
    writable(json)
    if arrays:
        return _evaluate_arrays(arrays, k, json)
    if compare:
        return _compare(*compare, split, json)
    if not run:
        raise RequestError("evaluate: expected RUN, --compare or --arrays")
    if predictions and seeds:
        raise RequestError("evaluate: --predictions are of one run; expected no --seeds")
    if predictions and workers:
        raise RequestError("evaluate: --predictions run no model; expected no --workers")
    return evaluate(_runs(run, overrides or [], seeds), split, json, all_, predictions, workers=workers)


def _runs(run: str, overrides: list[str], seeds: int) -> list[RunConfig]:
    """Return the runs of a TOML file, or those in a folder: one, or one per seed."""
    from rec.evaluation.run import load_run, seed_folders
    from rec.filesystems import is_folder

    if not is_folder(run):
        return runs(run, overrides, seeds)
    return [load_run(folder, overrides) for folder in seed_folders(run, seeds)]


def evaluate(
    configs: Sequence[RunConfig],
    split: str,
    json_file: str | None = None,
    everything: bool = False,
    predictions: str | None = None,
    workers: int = 0,
) -> int:
    """Measure every run, print what tells most, and return 1 where a metric that the config expects is not reached.

    With workers, so many processes of Ray run the model.
    """
    from rec.evaluation.headline import headline, settings_in_words, simple_tables, summarise
    from rec.evaluation.run import evaluate_run, met
    from rec.report.text import paragraph
    from rec.report.text import table as text_table
    from rec.sections import sentence

    others = _workers(workers) if workers else None
    results = [evaluate_run(config, split, predictions, say, others) for config in configs]
    first, summary = results[0], summarise(results)
    tell(_metrics(results, summary, everything))
    for table in simple_tables(first):
        tell(text_table(table.head, table.rows))
    notice = [first["notice"]] if first["notice"] else []
    for text in [headline(results), *settings_in_words(first), *notice, *first["notes"]]:
        tell(paragraph(sentence(text)))
    if json_file:
        _write_json(json_file, {"metrics": {name: entry["mean"] for name, entry in summary.items()}, "seeds": results})
    missed = []
    for name, wanted in configs[0].expect.items():
        found, higher = summary.get(name, {}).get("mean"), first["directions"].get(name, True)
        if not met(found, wanted, higher):
            told = "not measured" if found is None else f"{found:.4f}"
            missed.append(f"{name} {told}, expected at {'least' if higher else 'most'} {wanted}")
    if missed:
        logger().error(f"error: {'; '.join(missed)}")
    return 1 if missed else 0


def _workers(count: int) -> Workers:
    from rec.runtime.cluster import starting
    from rec.runtime.predict import RayWorkers

    say(f"evaluate: {starting()}, for {counted(count, 'worker')}")
    return RayWorkers(count)


def _metrics(results: list[dict[str, Any]], summary: dict[str, Any], everything: bool) -> str:
    """Return the table of what tells most, or of every metric, a row per fact."""
    from rec.evaluation.headline import label, one_fact, simple_answers
    from rec.report.text import table

    first, several = results[0], len(results) > 1
    more = [name for name in summary if name not in first["shown"]] if everything else []
    facts = one_fact([name for name in [*first["shown"], *more] if name in summary], first["same"])
    baseline, simple = simple_answers(first, list(facts))
    rows = []
    for name, names in facts.items():
        entry, ends = summary[name], first["interval"].get(name)
        if several:
            spread = [f"{entry['sd']:.4f}", f"{min(entry['values']):.4f} to {max(entry['values']):.4f}"]
        else:
            spread = ["{low:.4f} to {high:.4f}".format(**ends) if ends else ""]
        told = [simple.get(name, "")] if baseline else []
        rows.append([label(names, first["directions"]), f"{entry['mean']:.4f}", *spread, *told])
    head = ["metric", "mean", "sd", "range"] if several else ["metric", "value", "95 % interval"]
    return table([*head, *([baseline] if baseline else [])], rows)


def _compare(a: str, b: str, split: str, json: str | None) -> int:
    from rec.evaluation.compare import NEVER, compare
    from rec.evaluation.headline import settings_in_words
    from rec.evaluation.run import read_numbers, seed_folders
    from rec.report.text import paragraph, table
    from rec.sections import sentence

    results = compare(a, b, 10_000, split)
    rows, apart = [], dict[str, list[str]]()
    for r in results:
        if (d := r["difference"]) is None and r["why"].startswith(NEVER):
            apart.setdefault(r["why"], []).append(r["metric"])
            continue
        if d is None:
            rows.append([r["metric"], "-", "-", r["why"], "-"])
            continue
        gain = f"{d['mean']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})"
        rows.append([r["metric"], f"{r['a']:.4f}", f"{r['b']:.4f}", gain, f"{r['not_better']:.4f}"])
    tell(f"A = {a}\nB = {b}")
    first, second = (settings_in_words(read_numbers(seed_folders(one)[0], split)) for one in (a, b))
    for line in dict.fromkeys((*first, *second)):
        whose = "A and B" if line in first and line in second else "A" if line in first else "B"
        tell(paragraph(f"{whose}, {line}"))
    for why, metrics in apart.items():
        tell(paragraph(sentence(f"{counted(len(metrics), 'metric')} {why}: {', '.join(metrics)}")))
    if rows:
        tell(paragraph("Paired bootstrap over examples, or what they belong to (users, patients), 10,000 resamples."))
        tell(table(["metric", "A", "B", "A - B (95 % interval)", "share of resamples in which A is not better"], rows))
    if json:
        _write_json(json, results)
    return 0


def _evaluate_arrays(arrays: str, k: str, json: str | None) -> int:
    from rec.evaluation.tasks.ranking.arrays import evaluate_arrays, load_arrays
    from rec.report.text import table

    try:
        cuts = [int(cut) for cut in k.split(",")]
    except ValueError:
        raise RequestError(f"--k: expected whole numbers like 10,100, got {k!r}") from None
    metrics, _ = evaluate_arrays(**load_arrays(arrays), cuts=cuts)
    tell(table(["metric", "mean"], [[name, f"{value:.6f}"] for name, value in metrics.items()]))
    if json:
        _write_json(json, {"metrics": metrics})
    return 0


def _write_json(path: str, value: Any) -> None:
    from rec.storage import Storage

    target = Path(path).absolute()
    Storage(str(target.parent)).write_json(target.name, value)
