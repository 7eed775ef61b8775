"""What is told of a trained run: metrics, groups of users, modality weights, and each user's rank on file.

evaluation/{split}/metrics.json     every number
evaluation/{split}/ranks.parquet    one row per user: user, target, rank (or every metric), group, gate weights
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from rec.config import RunConfig, from_json
from rec.data.prepared import Prepared, write_table
from rec.data.stream import CachedReader
from rec.errors import DataError
from rec.keys import EvaluateConfig
from rec.meters import Rows
from rec.metrics import groups as user_groups
from rec.metrics.bootstrap import interval, paired, resampled_means
from rec.metrics.ranking import coverage, full_ranks, means, of_ranks
from rec.report import relevant
from rec.report.experts import Routed
from rec.seeds import generator
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.engine import LocalEngine, load_model
from rec.train.feed import PlannedFeed
from rec.train.job import build
from rec.train.loop import evaluate

HEADLINE = ("hit@10", "ndcg@10")
RELEVANT = ("precision@5", "recall@10", "recall@20", "ndcg@20", "map@5", "auc")
"""Told with intervals as well, where users have several relevant items."""
COMPARED = (*HEADLINE, "hit@100", "mrr", *RELEVANT)
Numbers = dict[str, Any]


def evaluate_run(config: RunConfig, split: str) -> Numbers:
    """Measure the run's best checkpoint on a split, write the results beside it, and return them."""
    storage = Storage(config.out)
    data = Prepared.open(config.data.root)
    system = build(config, data)
    checkpoint = CheckpointStore(storage.below("checkpoints")).load_best()
    module = system.model()
    load_model(module, checkpoint.tensors)
    torch.set_num_threads(max(config.parallel.threads, torch.get_num_threads()))
    engine = LocalEngine(module, config.train, "cuda" if config.parallel.gpu else "cpu")
    feed = PlannedFeed(data, system, config.train, CachedReader(data.storage, system.columns), 0, 1)
    routed = Routed(module)
    metrics, meters = evaluate(system, engine, routed.follow(feed.evaluate(split)))
    record = meters.get("rows")
    if not isinstance(record, Rows):
        raise DataError(f"{config.system}: measures no row per user, so nothing can be ranked")
    rows = record.columns()
    values = per_user(rows)
    there = ~np.isnan(values["ndcg@10"])
    numbers: Numbers = {"split": split, "step": checkpoint.step, "users": int(there.sum()), "metrics": metrics}
    numbers["synthetic_labels"] = data.manifest.get("synthetic_labels", False)
    if "top" in rows:
        numbers["metrics"]["coverage@10"] = coverage(rows["top"], data.num_items)
    rng = generator(config.train.seed, "bootstrap")
    shown = [name for name in (*HEADLINE, *RELEVANT) if name in values]
    numbers["interval"] = {
        name: interval(values[name][there], config.evaluate.bootstrap, rng).plain() for name in shown
    }
    if "rank" in rows:
        numbers["popularity"] = means(popularity_ranks(data, split))
        names, group = list(user_groups.NAMES), _groups(data, split, rows, config.evaluate)
    else:
        numbers["floors"] = relevant.floors(data, split, values)
        numbers["popularity"] = numbers["floors"]["popularity"]
        numbers["relevant per user"] = float(rows["relevant"].mean())
        numbers["cold kinds"] = relevant.cold(rows, config.evaluate.bootstrap, rng)
        numbers["examples"] = relevant.examples(rows, data, split)
        names, group = relevant.groups(data, rows)
        told = relevant.analyse(system, module, feed.evaluate(split), engine.device)
        if told:
            numbers["worth"] = relevant.worth(told, rows, names, group, data, config.evaluate, rng)
    numbers |= _by_group(rows, values, names, group, data, config.evaluate, rng)
    numbers["experts"] = routed.numbers(names, group)
    if (in_time := gate_in_time(rows, config.evaluate.bootstrap, rng)) is not None:
        numbers["gate_in_time"] = in_time
    if (truth := recovery(rows, data)) is not None:
        numbers["recovery"] = truth
    numbers["expect"] = {
        name: {"expected": value, "found": metrics.get(name), "met": bool(metrics.get(name, -1) >= value)}
        for name, value in config.expect.items()
    }
    _write(storage, split, numbers, rows, np.array(names)[group], data)
    return numbers


def per_user(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every metric of each measured user: from the rank of one target, or as measured for several."""
    if "rank" in rows:
        return {name: value.numpy() for name, value in of_ranks(torch.tensor(rows["rank"])).items()}
    return {name.removeprefix("metric/"): rows[name] for name in rows if name.startswith("metric/")}


def popularity_ranks(data: Prepared, split: str) -> np.ndarray:
    """Return each user's rank when every unseen item is scored by its training count."""
    count = torch.from_numpy(np.array(data.array("item_count"))).float()
    table = data.rows(split)
    ranks = []
    for start in range(0, len(table), 512):
        part = table.slice(start, 512)
        lists = part["history"].combine_chunks()
        length = pc.list_value_length(lists).to_numpy()
        score = count.expand(len(part), -1).clone()
        user = torch.from_numpy(np.repeat(np.arange(len(part)), length))
        item = torch.from_numpy(pc.list_flatten(lists).to_numpy().astype(np.int64))
        ranks.append(full_ranks(score, torch.from_numpy(part["target"].to_numpy().astype(np.int64)), user, item))
    return torch.cat(ranks).numpy()


def recovery(rows: dict[str, np.ndarray], data: Prepared) -> Numbers | None:
    """Return how well the gate's weights tell the planted modalities, None where nothing was planted.

    `found` is the share of users whose most weighted modality, relative to the average user, is one they follow;
    `chance` what guessing would give; `correlation` Pearson's between weights and truth over users and modalities.
    """
    if "gate" not in rows or "followed" not in data.users.column_names:
        return None
    followed = np.array(data.users["followed"].to_pylist())[rows["user"]]
    if followed.shape != rows["gate"].shape:
        return None
    weight = rows["gate"] - rows["gate"].mean(0)
    best = weight.argmax(1)
    return {
        "found": float(followed[np.arange(len(best)), best].mean()),
        "chance": float(followed.mean()),
        "correlation": float(np.corrcoef(weight.ravel(), (followed - followed.mean(0)).ravel())[0, 1]),
    }


def halves_distance(rows: dict[str, np.ndarray]) -> Numbers | None:
    """Return the mean Jensen-Shannon distance between a history's halves in time, and between random-like halves."""
    if "gate_first" not in rows:
        return None
    long = rows["length"] > 1
    distances = {}
    for name, key in (("in_time", "gate_first"), ("every_other", "gate_even")):
        distances[name] = float(_jensen_shannon(rows[key], second_half(rows, key))[long].mean())
    return distances


def compare(a: str, b: str, resamples: int, split: str = "test") -> list[Numbers]:
    """Return, per headline metric, the paired bootstrap of run A against run B.

    A run is a folder that was evaluated; one with seeds counts by the mean over its seeds of each user's metric.

    Raises:
        DataError: a run was not evaluated, or the two rank other users.
    """
    first, second = _per_user(a, split), _per_user(b, split)
    if any(not np.array_equal(first[name], second[name]) for name in ("user", "target") if name in first):
        raise DataError(f"{a} and {b}: ranked other users or targets; both must come from one prepared data set")
    rng = generator(0, "compare")
    results = []
    there = ~np.isnan(first["ndcg@10"] + second["ndcg@10"])
    for name in [n for n in COMPARED if n in first]:
        result = paired(first[name][there], second[name][there], resamples, rng)
        results.append(
            {
                "metric": name,
                "a": float(first[name][there].mean()),
                "b": float(second[name][there].mean()),
                "difference": result.difference.plain(),
                "not_above_zero": result.worse_share,
            }
        )
    return results


def seed_folders(folder: str) -> list[str]:
    """Return the folders of a run's seeds, or the run itself where it has none."""
    names = [name for name in Storage(folder).list() if name.startswith("seed-")]
    return [f"{folder.rstrip('/')}/{name}" for name in names] or [folder]


def read_config(folder: str) -> RunConfig:
    """Return the resolved config that a run's folder holds."""
    return from_json(Storage(folder).read("config.json").decode())


def summarise(results: list[Numbers]) -> Numbers:
    """Return mean, standard deviation and every value of each metric over seeds."""
    names = [name for name in results[0]["metrics"] if not name.startswith("gate/")]
    table = {name: [r["metrics"][name] for r in results] for name in names}
    return {
        name: {"mean": float(np.mean(v)), "sd": float(np.std(v, ddof=1)) if len(v) > 1 else 0.0, "values": v}
        for name, v in table.items()
    }


def _per_user(folder: str, split: str) -> dict[str, np.ndarray]:
    tables = []
    for part in seed_folders(folder):
        storage, name = Storage(part), f"evaluation/{split}/ranks.parquet"
        if not storage.exists(name):
            raise DataError(f"{part}: not evaluated on {split}; run `rec evaluate` first")
        with storage.open(name) as file:
            tables.append(pq.read_table(file).sort_by("user"))
    kept = ("rank", *(n for n in tables[0].column_names if n.startswith("metric/")))
    values = [per_user({n: t[n].to_numpy() for n in kept if n in t.column_names}) for t in tables]
    merged = {name: np.mean([v[name] for v in values], axis=0) for name in values[0]}
    return merged | {n: tables[0][n].to_numpy() for n in ("user", "target") if n in tables[0].column_names}


def _groups(data: Prepared, split: str, rows: dict[str, np.ndarray], config: EvaluateConfig) -> np.ndarray:
    """Return each measured user's group, by the popular share of everything the user has seen (the target too)."""
    table = data.rows("test")
    histories = [
        np.append(np.asarray(h), t)
        for h, t in zip(table["history"].to_numpy(), table["target"].to_numpy(), strict=True)
    ]
    popular = user_groups.popular_items(np.asarray(data.array("item_total")), config.popular_share)
    share = user_groups.popular_share(histories, popular)
    by_user = np.empty(data.num_users, dtype=np.int64)
    by_user[table["user"].to_numpy()] = user_groups.groups(share)
    found: np.ndarray = by_user[rows["user"]]
    return found


def _by_group(
    rows: dict[str, np.ndarray],
    values: dict[str, np.ndarray],
    names: list[str],
    group: np.ndarray,
    data: Prepared,
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> Numbers:
    """Return metrics per group and for cold items, and modality weights per group with intervals."""
    numbers: Numbers = {"groups": {}, "modalities": list(data.modalities)}
    if "rank" in rows:
        cold = np.asarray(data.array("item_count"))[rows["target"]] <= config.cold_count
        if cold.any():
            numbers["cold"] = {"users": int(cold.sum()), **{n: float(values[n][cold].mean()) for n in HEADLINE}}
    for index, name in enumerate(names):
        inside = (group == index) & ~np.isnan(values["ndcg@10"])
        if not inside.any():
            continue
        entry: Numbers = {"users": int(inside.sum())}
        entry |= {n: interval(values[n][inside], config.bootstrap, rng).plain() for n in HEADLINE}
        if "gate" in rows:
            entry |= _weights("gate", rows["gate"][inside], config.bootstrap, rng)
            entry["halves"] = halves_distance({k: v[inside] for k, v in rows.items()})
        numbers["groups"][name] = entry
    return numbers


def gate_in_time(rows: dict[str, np.ndarray], resamples: int, rng: np.random.Generator) -> Numbers | None:
    """Return the gate's mean weights over the first and the second half of histories, with intervals."""
    if "gate_first" not in rows:
        return None
    long = rows["length"] > 1
    return {
        "first half": _weights("gate", rows["gate_first"][long], resamples, rng) | {"users": int(long.sum())},
        "second half": _weights("gate", second_half(rows, "gate_first")[long], resamples, rng)
        | {"users": int(long.sum())},
    }


def second_half(rows: dict[str, np.ndarray], first: str) -> np.ndarray:
    """Return the mean weights over what `first`, the larger half, leaves of each history, (U, K)."""
    length = rows["length"][:, None].astype(np.float64)
    size = np.ceil(length / 2)
    rest = np.clip((rows["gate"] * length - rows[first] * size) / np.maximum(length - size, 1), 0, None)
    share: np.ndarray = rest / np.maximum(rest.sum(1, keepdims=True), 1e-12)
    return share


def _weights(name: str, value: np.ndarray, resamples: int, rng: np.random.Generator) -> Numbers:
    resampled = resampled_means(value, resamples, rng)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return {name: value.mean(0).tolist(), f"{name}_low": low.tolist(), f"{name}_high": high.tolist()}


def _write(
    storage: Storage, split: str, numbers: Numbers, rows: dict[str, np.ndarray], label: np.ndarray, data: Prepared
) -> None:
    ids = data.users["id"].take(pa.array(rows["user"]))
    columns: dict[str, Any] = {"user": rows["user"], "id": ids, "group": label}
    columns |= {n: rows[n] for n in ("target", "rank", "relevant") if n in rows}
    columns |= {name: value for name, value in rows.items() if name.startswith("metric/")}
    columns |= {name: rows[name].tolist() for name in ("top", "gate", "gate_first") if name in rows}
    write_table(storage, f"evaluation/{split}/ranks.parquet", pa.table(columns))
    storage.write_json(f"evaluation/{split}/metrics.json", numbers)


def _jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    middle = (p + q) / 2

    def divergence(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x * np.log2(np.where(x > 0, x, 1) / np.where(middle > 0, middle, 1)), 0).sum(1)

    return np.sqrt(np.clip((divergence(p) + divergence(q)) / 2, 0, None))
