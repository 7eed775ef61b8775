"""`rec modalities`: texts of items, written ahead of preparing, with what they cost and how faithful they are; encoders
of texts side by side."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rec.cli.options import Overrides, argument, at_most_one, count, option
from rec.cli.run import prepare, train, with_runner, writable
from rec.config import RunConfig, load
from rec.data.modalities.config import ModalitiesConfig
from rec.errors import ConfigError, RequestError
from rec.levels import say
from rec.progress import tell
from rec.report.text import paragraph, table
from rec.sections import counted

TEXT = "write texts of items, tell what they cost and how faithful they are; compare their encoders"
INTERRUPTED = "answers and runs so far are kept: the same command goes on, and asks again what was on its way"
EXAMPLES = """examples:
  rec modalities rec/configs/ml-100k-chat.toml --estimate   # what it would cost; asks nothing
  rec modalities rec/configs/ml-100k-chat.toml              # asks what was not asked before
  rec modalities rec/configs/ml-100k-chat.toml --compare    # with and without retrieval
  rec modalities mine.toml --compare --items 50 --json compare.json
  rec modalities mine.toml data.modalities.writer.budget_money=5
  rec modalities rec/configs/ml-100k.toml --seeds 3 \\
    --encoders "tfidf, models/minilm, http://localhost:8000/v1/embeddings#my-model"

--encoders trains the config's system once per encoder and seed and writes encoders.html,
.txt and .json into `out`: metrics on validation and test, seconds, t-SNE of the texts.

`rec prepare` takes all answers that are there, and asks for the others. Keys: docs/modalities.md
  [data.modalities.writer]
  kind = "chat"                        # or "local", "vllm", "template"
  url = "http://localhost:8000/v1/chat/completions"
  model = "my-model"
  key = "MY_KEY"                       # the environment variable that holds the key"""

SUMMARY_HEAD = ("modality", "coverage", "written by", "faithfulness", "words", "entities")


def run(
    config: Annotated[str, argument("CONFIG", "TOML file of a run with a section [data.modalities]")],
    overrides: Overrides = None,
    estimate: Annotated[bool, option("--estimate", help="tell what writing would cost, and ask nothing")] = False,
    compare: Annotated[
        bool,
        option("--compare", help="write some items with and without what is found of them, and tell the difference"),
    ] = False,
    encoders: Annotated[
        str | None,
        option(
            "--encoders",
            help="train and measure the run with each encoder of texts: tfidf, hashing, a model, endpoint, URL#MODEL",
            metavar="A,B",
        ),
    ] = None,
    seeds: Annotated[
        int, option("--seeds", help="for --encoders, 0 to N-1 (default: 1)", metavar="N", parser=count)
    ] = 1,
    items: Annotated[
        int, option("--items", help="for --compare, at most (default: 200)", metavar="N", parser=count)
    ] = 200,
    json: Annotated[str | None, option("--json", help="write what is told there as well", metavar="FILE")] = None,
) -> None:
    """Write, and print what was written."""
    from rec.data.catalogue import Catalogue

    at_most_one(estimate=estimate, compare=compare, encoders=encoders is not None)
    writable(json)
    run_config = load(config, overrides or ())
    if encoders is not None:
        _tell(*_encoders_compared(run_config, encoders, seeds, config), json)
        return
    data = run_config.data
    if data.modalities is None:
        raise ConfigError("data.modalities: is not set: it tells who writes, and how (docs/modalities.md)")
    if estimate:
        found = with_runner(run_config, lambda runner: Catalogue.read(data, runner, say).estimate())
        text = _estimate_text(found)
    elif compare:
        found = with_runner(run_config, lambda runner: Catalogue.read(data, runner, say).compare(items))
        text = _comparison_text(found)
    else:
        found = with_runner(run_config, lambda runner: Catalogue.read(data, runner, say).write())
        text = _written_text(found, data.modalities)
    _tell(text, found, json)


def _encoders_compared(config: RunConfig, encoders: str, seeds: int, file: str) -> tuple[str, Mapping[str, Any]]:
    """Train and measure with every encoder; return them side by side, as text and numbers."""
    from rec.report.encoders import compare_encoders

    names = [name.strip() for name in encoders.split(",") if name.strip()]
    if not names:
        raise RequestError("--encoders: names none; expected some with commas between them, as tfidf,models/minilm")
    return compare_encoders(config, names, seeds, prepare, partial(train, file=file), say)


def _tell(text: str, found: Mapping[str, Any], json: str | None) -> None:
    from rec.storage import Storage

    tell(text)
    if json:
        target = Path(json).absolute()
        Storage(str(target.parent)).write_json(target.name, found)


def _estimate_text(found: Mapping[str, Any]) -> str:
    return paragraph(found["told"])


def _written_text(found: Mapping[str, Any], config: ModalitiesConfig) -> str:
    parts = [table(SUMMARY_HEAD, _summary_rows(found)), _cost(found), _thresholds(found["thresholds"])]
    faults = _faults(found)
    passages = f"passages are found of {found['with_passages']:,} of {counted(found['items'], 'item')}"
    if found["ambiguous"]:
        passages += (
            f"; {counted(found['ambiguous'], 'item')} without a year may be quoted what is of another thing: knowledge "
            "has their title with several years"
        )
    end = "`rec prepare` takes these answers, with --again where the data set is there, and asks for none of them."
    told = (*([passages] if config.knowledge is not None else []), *faults, *([end] if config.writer.asks else []))
    return "\n".join(part for part in (*parts, *map(paragraph, told)) if part)


def _faults(found: Mapping[str, Any]) -> list[str]:
    """Return why a model wrote nothing of some items, and of how many."""
    return [f"{counted(number, 'item')} by template: {fault}" for fault, number in found["faults"].items()]


def _comparison_text(found: Mapping[str, Any]) -> str:
    sides: Mapping[str, Any] = found["sides"]
    head = ["modality"]
    for side in sides:
        head += [f"faithfulness {side}", f"coverage {side}"]
    head += ["cosine", "of others", "same words", "equal"]
    rows = []
    for name, drift in found["drift"].items():
        row = [name]
        for told in sides.values():
            of = told["modalities"][name]
            row += ["" if of["faithfulness"] is None else f"{of['faithfulness']:.3f}", f"{of['coverage']:.3f}"]
        rows.append([*row, *(f"{drift[key]:.3f}" for key in ("cosine", "others", "overlap", "same"))])
    with_passages = max(told["with_passages"] for told in sides.values())
    parts = [
        f"{counted(found['items'], 'item')}, passages found for {with_passages:,}",
        table(head, rows),
        "cosine, same words, equal: of the two texts of an item; of others: of texts of two items",
        *(f"{side}: {_cost(told)}" for side, told in sides.items()),
        *(paragraph(f"{side}: {fault}") for side, told in sides.items() for fault in _faults(told)),
        _thresholds(found["thresholds"]),
    ]
    return "\n".join(part for part in parts if part)


def _cost(found: Mapping[str, Any]) -> str:
    """Return what asking took, empty where nobody was asked."""
    if "requests" not in found:
        return ""
    told = found["requests"]
    return paragraph(
        f"{counted(told['made'], 'request')}, {told['retried']:,} of them repeated; {told['from cache']:,} answers "
        f"were there; {told['input tokens']:,} tokens of prompts, {told['output tokens']:,} of answers, "
        f"{told['money']:.4g} spent; {counted(found['repaired'], 'item')} repaired, {found['reflected']:,} reflected on"
    )


def _thresholds(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return by modality the score that tells inventions, and how well."""
    lines = [
        f"data.modalities.faithfulness.thresholds.{name}={one['value']:.3f} finds {one['found']:.1%} of sentences "
        f"that are swapped in from other items, with {one['false_alarms']:.1%} false alarms"
        for name, one in found.items()
    ]
    return "\n".join(map(paragraph, lines))


def _summary_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Return a row of cells per modality: its coverage, who wrote it, how faithful it is."""
    rows = []
    for name, of in found["modalities"].items():
        writers = ", ".join(f"{writer} {count:,}" for writer, count in sorted(of["writers"].items()))
        shares = ["" if of[key] is None else f"{of[key]:.3f}" for key in ("faithfulness", "words", "entities")]
        rows.append([name, f"{of['coverage']:.3f}", writers or "nobody", *shares])
    return rows
