"""The `rec` command: one subcommand per job."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rec.config import RunConfig, load, serve_keys
from rec.errors import RecError, RequestError

OVERRIDE = re.compile(r"^[a-z_][\w.@\"-]*=")
EXAMPLES = {
    "prepare": """examples:
  rec prepare rec/configs/demo.toml
  rec prepare rec/configs/demo.toml data.source.planted.interactions=1000000
  rec prepare rec/configs/ml-100k.toml 'data.source.interactions=["ml-100k.zip"]' data.source.items=ml-100k.zip""",
    "train": """examples:
  rec train rec/configs/demo.toml
  rec train rec/configs/ml-100k.toml --seeds 3 parallel.workers=0 parallel.threads=2
  rec train rec/configs/ml-100k.toml out=out/sasrec model.gate=none
  rec train rec/configs/ml-100k.toml out=out/shuffled model.texts=shuffled""",
    "tune": """examples:
  rec tune rec/configs/demo.toml 'tune.use=["optimiser", "gate"]' tune.trials=20 out=out/demo/search
  rec tune mine.toml tune.search=random tune.scheduler=none tune.max_hours=2
  rec tune mine.toml tune.scheduler=pbt tune.trials=8 'tune.space={"train.learning_rate" = {log = [1e-4, 1e-2]}}'
  rec tune mine.toml 'tune.objectives={load_balance = "max"}' 'tune.use=["router"]' model.feedforward_mixture.experts=8
  rec tune mine.toml --spaces""",
    "evaluate": """examples:
  rec evaluate rec/configs/demo.toml
  rec evaluate rec/configs/ml-100k.toml --seeds 3 --split test
  rec evaluate --compare out/ml-100k out/sasrec
  rec evaluate --arrays scores.npz --k 10,100 --json metrics.json""",
    "predict": """examples:
  rec predict rec/configs/ml-1m.toml --k 100 parallel.workers=8
  rec evaluate rec/configs/ml-1m.toml --predictions out/ml-1m/run/predictions/test
  rec predict rec/configs/demo.toml --requests people.csv --to answers --strict""",
    "sweep": """examples:
  rec sweep rec/configs/food.toml --seeds 3
  rec sweep rec/configs/food.toml --seeds 3 --only "full; text only; image only" parallel.workers=0
  rec sweep rec/configs/food.toml --list""",
    "report": """examples:
  rec report rec/configs/demo.toml
  rec report rec/configs/ml-100k.toml --seeds 3""",
    "export": """examples:
  rec export rec/configs/demo.toml
  rec export out/ml-1m/run --to artifacts/ml-1m serve.index=hnsw serve.replicas=2""",
    "serve": """examples:
  rec serve out/demo/run/export/msmrec
  rec serve artifacts/ml-1m artifacts/ml-100k --port 9000 serve.max_replicas=4
  rec serve artifacts/* --multiplex 3
  REC_SERVE_TOKEN=secret rec serve artifacts/ml-1m serve.token=true
  curl -s localhost:8000/v1/recommend -H 'Content-Type: application/json' -d '{"user": "1", "k": 5}'""",
    "upgrade": "examples:\n  rec upgrade ml-1m artifacts/ml-1m-v2",
    "benchmark": """examples:
  rec benchmark evaluate
  rec benchmark train --json train.json --data out/ml-1m/data
  rec benchmark moe --json moe.json
  rec benchmark serve --minutes 2
  rec benchmark encoders --images 20000
  rec benchmark graph --data out/baby/data
  rec benchmark prepare --interactions 10000000""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit code. An error of ours is one line, the last one."""
    given = list(sys.argv[1:] if argv is None else argv)
    overrides = [word for word in given if OVERRIDE.match(word)]
    options = parser().parse_args([word for word in given if not OVERRIDE.match(word)])
    options.overrides = overrides
    try:
        return int(COMMANDS[options.command](options) or 0)
    except RecError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from the last checkpoint")
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="rec",
        description="Train, tune, evaluate, compare and serve multimodal mixture-of-experts recommenders on Ray.",
        epilog="Config keys are overridden by key=value words anywhere after the subcommand.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, config: bool = True) -> argparse.ArgumentParser:
        raw = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, help=text, description=text, epilog=EXAMPLES[name], formatter_class=raw)
        if config:
            command.add_argument("config", metavar="CONFIG", help="TOML file of the run")
        return command

    add("prepare", "make the data set that a config names")
    train = add("train", "train, or go on where the run stands")
    tune = add("tune", "search hyperparameters on validation, or go on with the search in `out`")
    tune.add_argument("--spaces", action="store_true", help="list the ready-made spaces of the config's system")
    evaluate = add("evaluate", "measure a trained run, compare two, or score plain arrays", config=False)
    evaluate.add_argument("config", metavar="CONFIG", nargs="?", help="TOML file of the run")
    evaluate.add_argument("--compare", nargs=2, metavar=("A", "B"), help="paired bootstrap of two runs' folders")
    evaluate.add_argument("--arrays", metavar="FILE.npz", help=_arrays_help())
    evaluate.add_argument("--k", default="10,50,100", help="cut-offs for --arrays (default: 10,50,100)")
    evaluate.add_argument("--all", action="store_true", help="print every metric, not only those that tell most")
    evaluate.add_argument("--json", metavar="FILE", help="write the results there as well")
    evaluate.add_argument("--predictions", metavar="FOLDER", help="read what `rec predict` wrote; runs no model")
    predict = add("predict", "write answers to a split or a table of requests, and what `rec evaluate` reads of them")
    text = "answer the rows of a .parquet, .csv or .jsonl with the system's columns in raw ids, in place of a split"
    predict.add_argument("--requests", metavar="TABLE", help=text)
    predict.add_argument("--to", metavar="FOLDER", help="where to (default: the run's folder, predictions/SPLIT)")
    predict.add_argument("--k", type=int, default=10, help="length of answers that are lists (default: 10)")
    predict.add_argument("--strict", action="store_true", help="exit with 1 where a row of the table has no answer")
    sweep = add("sweep", "train and measure the variants that a system declares, and print them side by side")
    sweep.add_argument("--only", default="", metavar="A; B", help="these variants alone (default: all)")
    sweep.add_argument("--list", action="store_true", help="list the variants and their overrides")
    report = add("report", "write a run's HTML report")
    export = add("export", "write a trained run as an artifact to serve", config=False)
    export.add_argument("config", metavar="RUN", help="TOML file of the run, or its folder")
    export.add_argument("--to", metavar="FOLDER", help="where to (default: the run's folder, export/SYSTEM)")
    serve = add("serve", "serve artifacts over HTTP until interrupted", config=False)
    serve.add_argument("artifacts", metavar="ARTIFACT", nargs="+", help="folders made by `rec export`")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen at (default: 8000)")
    text = "let all replicas serve all artifacts, each with the N used last in memory (default: replicas of their own)"
    serve.add_argument("--multiplex", type=int, default=0, metavar="N", help=text)
    upgrade = add("upgrade", "replace a served artifact without a gap; back where the new one fails", config=False)
    upgrade.add_argument("name", metavar="NAME", help="name under which it is served")
    upgrade.add_argument("artifact", metavar="ARTIFACT", help="folder of the new artifact")
    for command in (evaluate, predict, report):
        command.add_argument("--split", default="test", choices=("val", "test"), help="which split (default: test)")
    for command in (train, evaluate, report, sweep):
        command.add_argument("--seeds", type=int, default=0, metavar="N", help="seeds 0 to N-1, each in out/seed-N")
    benchmark = add("benchmark", "measure speed beside its limit", config=False)
    names = ("train", "evaluate", "prepare", "moe", "tune", "serve", "encoders", "graph")
    benchmark.add_argument("name", choices=names)
    benchmark.add_argument("--json", metavar="FILE", help="write the rows there as well")
    benchmark.add_argument("--data", metavar="ROOT", help="prepared data set (default: one of ML-1M's size is made)")
    benchmark.add_argument("--interactions", type=int, default=10_000_000, help="for prepare (default: 10000000)")
    benchmark.add_argument("--trials", type=int, default=64, help="for tune (default: 64)")
    benchmark.add_argument("--minutes", type=float, default=10, help="of faults, for serve (default: 10)")
    benchmark.add_argument("--items", type=int, default=1_000_000, help="for graph's neighbours (default: 1000000)")
    text = "largest generated graph whose steps are measured, from 10^5 on (default: 1000000)"
    benchmark.add_argument("--edges", type=int, default=1_000_000, metavar="N", help=text)
    benchmark.add_argument("--images", type=int, default=100_000, help="for encoders' memory (default: 100000)")
    return top


def say(text: str) -> None:
    """Print text for a person."""
    print(text, file=sys.stderr, flush=True)


def runs(options: argparse.Namespace) -> list[RunConfig]:
    """Return the run of the config, or one per seed."""
    if not options.seeds:
        return [load(options.config, options.overrides)]
    base = load(options.config, options.overrides).out
    return [
        load(options.config, [*options.overrides, f"out={base}/seed-{seed}", f"train.seed={seed}"])
        for seed in range(options.seeds)
    ]


def _prepare(options: argparse.Namespace) -> None:
    prepare(load(options.config, options.overrides))


def prepare(config: RunConfig) -> None:
    """Make the data set of a config: with Ray Data, or in this process where parallel.workers is 0."""
    if config.parallel.workers:
        from rec.runtime.prepare import prepare as on_ray

        on_ray(config.data, say)
    else:
        from rec.data.prepare import prepare as in_process
        from rec.data.runner import InProcess

        in_process(config.data, InProcess(), say)


def _train(options: argparse.Namespace) -> None:
    for config in runs(options):
        train(config)


def train(config: RunConfig) -> None:
    """Train a run: on Ray, or in this process where parallel.workers is 0."""
    from rec.train.narrator import Narrator

    if config.parallel.workers:
        from rec.runtime.launch import train as on_ray

        on_ray(config, Narrator(say), say)
    else:
        from rec.train.job import train_here

        train_here(config, Narrator(say), say)
    say(f"{config.out}: trained")


def _tune(options: argparse.Namespace) -> None:
    from rec.tuning.search import ready_spaces

    config = load(options.config, options.overrides)
    if options.spaces:
        for name, space in ready_spaces(config).items():
            lines = [f"  {key}: {' '.join(f'{w} = {value}' for w, value in e.items())}" for key, e in space.items()]
            print("\n".join([f"{name}:", *lines]))
        return
    from rec.runtime.tuning import search

    print(search(config, say))


def _evaluate(options: argparse.Namespace) -> int:
    if options.arrays:
        return _evaluate_arrays(options)
    if options.compare:
        return _compare(options)
    if not options.config:
        raise RequestError("evaluate: expected CONFIG, --compare or --arrays")
    if options.predictions and options.seeds:
        raise RequestError("evaluate: --predictions are of one run; expected no --seeds")
    return evaluate(runs(options), options.split, options.json, options.all, options.predictions)


def evaluate(
    configs: Sequence[RunConfig],
    split: str,
    json_file: str | None = None,
    everything: bool = False,
    predictions: str | None = None,
) -> int:
    """Measure every run, print what tells most, and return 1 where a metric that the config expects is not reached."""
    from rec.evaluation.run import evaluate_run, met, summarise
    from rec.report.text import table

    results = [evaluate_run(config, split, predictions) for config in configs]
    first, summary = results[0], summarise(results)
    baseline = next(iter(first["baselines"]), None)
    rows = []
    for name in [*first["shown"], *([n for n in summary if n not in first["shown"]] if everything else [])]:
        if name not in summary:
            continue
        entry = summary[name]
        spread = f"{min(entry['values']):.4f} to {max(entry['values']):.4f}" if len(results) > 1 else ""
        if len(results) == 1 and name in first["interval"]:
            spread = "{low:.4f} to {high:.4f}".format(**first["interval"][name])
        row = [name, f"{entry['mean']:.4f}", *([f"{entry['sd']:.4f}"] if len(results) > 1 else []), spread]
        value = first["baselines"][baseline].get(name) if baseline else None
        rows.append([*row, *(["" if value is None else f"{value:.4f}"] if baseline else [])])
    head = ["metric", "mean", *(["sd", "range"] if len(results) > 1 else ["95 % interval"])]
    print(table([*head, *([baseline] if baseline else [])], rows))
    print(f"{first['examples']:,} examples of the {split} split")
    for note in first["notes"]:
        print(note)
    headline = next(iter(first["shown"]), "")
    beside = [f"{name} {values[headline]:.4f}" for name, values in first["baselines"].items() if headline in values]
    if beside:
        print(f"beside it, {headline}: {', '.join(beside)}")
    if json_file:
        _write_json(json_file, {"metrics": {name: entry["mean"] for name, entry in summary.items()}, "seeds": results})
    missed = []
    for name, wanted in configs[0].expect.items():
        found, higher = summary.get(name, {}).get("mean"), first["directions"].get(name, True)
        if not met(found, wanted, higher):
            told = "not measured" if found is None else f"{found:.4f}"
            missed.append(f"{name} {told}, expected at {'least' if higher else 'most'} {wanted}")
    if missed:
        say(f"error: {'; '.join(missed)}")
    return 1 if missed else 0


def _compare(options: argparse.Namespace) -> int:
    from rec.evaluation.compare import compare
    from rec.report.text import table

    a, b = options.compare
    results = compare(a, b, 10_000, options.split)
    rows = []
    for r in results:
        d = r["difference"]
        gain = f"{d['mean']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})"
        rows.append([r["metric"], f"{r['a']:.4f}", f"{r['b']:.4f}", gain, f"{r['not_better']:.4f}"])
    print(f"A = {a}\nB = {b}\npaired bootstrap over users, 10,000 resamples")
    print(table(["metric", "A", "B", "A - B (95 % interval)", "resamples in which A is not better"], rows))
    if options.json:
        _write_json(options.json, results)
    return 0


def _evaluate_arrays(options: argparse.Namespace) -> int:
    from rec.evaluation.tasks.ranking.arrays import evaluate_arrays, load_arrays
    from rec.report.text import table

    try:
        cuts = [int(k) for k in options.k.split(",")]
    except ValueError:
        raise RequestError(f"--k: expected whole numbers like 10,100, got {options.k!r}") from None
    metrics, _ = evaluate_arrays(**load_arrays(options.arrays), cuts=cuts)
    print(table(["metric", "mean"], [[name, f"{value:.6f}"] for name, value in metrics.items()]))
    if options.json:
        _write_json(options.json, {"metrics": metrics})
    return 0


def _predict(options: argparse.Namespace) -> int:
    from rec.evaluation.predict import order_of, predict, summary

    order = order_of(load(options.config, options.overrides), options)
    if order.config.parallel.workers:
        from rec.runtime.predict import predict_on_ray as run_parts
    else:
        from rec.evaluation.predictor import predict_here as run_parts
    manifest = predict(order, run_parts, say)
    say("\n".join(summary(manifest, order.folder)))
    return int(options.strict and manifest["errors"] > 0)


def _sweep(options: argparse.Namespace) -> None:
    from rec.report.sweep import sweep, variants

    config = load(options.config, options.overrides)
    only = [name.strip() for name in options.only.split(";") if name.strip()]
    if options.list:
        for name, words in variants(config, only).items():
            print(f"{name}: {' '.join(words)}")
        return
    prepare(config)
    print(sweep(config, only, max(1, options.seeds), train, say))


def _report(options: argparse.Namespace) -> None:
    from rec.report.page import write_report

    print(write_report(load(options.config, options.overrides).out, options.split))


def _export(options: argparse.Namespace) -> None:
    from rec.evaluation.run import load_run
    from rec.serving.export import export

    config = load_run(options.config, options.overrides)
    name = config.system.rsplit(":", 1)[-1].lower()
    artifact = export(config, options.to or f"{config.out}/export/{name}", say)
    counts = ", ".join(f"{told['count']:,} x {name}" for name, told in artifact.manifest["entities"].items())
    say(f"{artifact.path}: step {artifact.manifest['step']}, {counts}")


def _serve(options: argparse.Namespace) -> None:
    from rec.runtime.serving import serve_artifacts

    overrides = serve_keys(options.overrides)
    serve_artifacts(options.artifacts, overrides, options.host, options.port, say, options.multiplex)


def _upgrade(options: argparse.Namespace) -> None:
    from rec.runtime.served import newest

    state = newest()
    from rec.runtime.serving import upgrade

    upgrade(state, options.name, options.artifact, say)


def _benchmark(options: argparse.Namespace) -> int:
    from rec.benchmarks.run import run
    from rec.benchmarks.work import Work

    sizes = ("interactions", "trials", "minutes", "images", "items", "edges")
    work = Work(say=say, data=options.data, **{name: getattr(options, name) for name in sizes})
    return run(options.name, work, options.json)


def _write_json(path: str, value: Any) -> None:
    from rec.storage import Storage

    target = Path(path).absolute()
    Storage(str(target.parent)).write_json(target.name, value)


def _arrays_help() -> str:
    text = Path(__file__).parent.joinpath("evaluation", "tasks", "ranking", "arrays_help.txt").read_text()
    return " ".join(text.split()).replace("%", "%%")


COMMANDS = {
    "prepare": _prepare,
    "train": _train,
    "tune": _tune,
    "evaluate": _evaluate,
    "predict": _predict,
    "sweep": _sweep,
    "report": _report,
    "export": _export,
    "serve": _serve,
    "upgrade": _upgrade,
    "benchmark": _benchmark,
}

if __name__ == "__main__":
    raise SystemExit(main())
