"""What is told of runs whose users have several relevant items: floors, groups, cold items, worth of modalities."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from rec.batch import Batch
from rec.data.prepared import Prepared
from rec.keys import EvaluateConfig
from rec.meters import Rows
from rec.metrics.bootstrap import interval, paired
from rec.metrics.relevance import relevance, top_relevance
from rec.nn.pairs import flattened
from rec.seeds import generator
from rec.system import System

Numbers = dict[str, Any]
AT_ONCE = 256
FEW = 5
EXAMPLES = 6


def floors(data: Prepared, split: str, metrics: Collection[str]) -> dict[str, dict[str, float]]:
    """Return what simple rankings reach: popular items, random ones, and what users with similar texts liked.

    Users' texts are compared by their TF-IDF vectors, where those were prepared. Where the data were generated, the
    truth by which relevant items were drawn ranks too: what is left beyond it is chance. All rank what a model ranks,
    and are told by the same metrics.
    """
    count_I = np.asarray(data.array("item_count")).astype(np.float32)
    rankings = {"popularity": lambda users: np.broadcast_to(count_I, (len(users), len(count_I)))}
    rng = generator(0, "random ranking")
    rankings["random"] = lambda users: rng.random((len(users), len(count_I)), dtype=np.float32)
    if data.storage.exists("user_text.npy"):
        rankings["similar users"] = _similar_users(data)
    if "truth" in data.items.column_names and "truth" in data.users.column_names:
        truth_IT = np.stack(data.items["truth"].to_numpy())
        truth_IT = np.concatenate([np.zeros_like(truth_IT[:1]), truth_IT])
        truth_UT = np.stack(data.users["truth"].to_numpy())
        rankings["the planted truth"] = lambda users: truth_UT[users] @ truth_IT.T
    table = data.rows(split)
    contains_IT = None
    if data.storage.exists("item_contains.npy"):
        contains_IT = torch.from_numpy(np.array(data.array("item_contains"))).float()
    cuts = sorted({int(name.partition("@")[2]) for name in metrics if "@" in name})
    parts: dict[str, list[dict[str, torch.Tensor]]] = {name: [] for name in rankings}
    for start in range(0, len(table), AT_ONCE):
        rows = table.slice(start, AT_ONCE)
        users = rows["user"].to_numpy()
        hidden_BI, target = _hidden(data, users, rows, contains_IT), flattened(rows["target"].to_numpy())
        user_B = torch.from_numpy(users.copy())
        for name, score in rankings.items():
            score_BI = torch.tensor(score(users))
            if "auc" in metrics:
                found = relevance(score_BI, target, hidden_BI, user_B, cuts)
            else:
                found, _ = top_relevance(score_BI.masked_fill_(hidden_BI, -torch.inf), target, user_B, cuts)
            parts[name].append(found)
    return {
        name: {n: float(torch.cat([part[n] for part in of]).nanmean()) for n in of[0]} for name, of in parts.items()
    }


def _hidden(data: Prepared, users: np.ndarray, rows: pa.Table, contains_IT: torch.Tensor | None) -> torch.Tensor:
    hidden_BI = torch.zeros(len(users), data.num_items + 1, dtype=torch.bool)
    if contains_IT is not None:
        hidden_BI = torch.from_numpy(np.array(data.array("user_avoid")[users])).float() @ contains_IT.T > 0
    hidden_BI[:, 0] = True
    hidden_BI[flattened(rows["history"].to_numpy())] = True
    return hidden_BI


def _similar_users(data: Prepared) -> Any:
    """Return a score of items for users: the summed similarity of users who liked them in training."""
    rows = data.rows("train")
    liked = flattened(rows["target"].to_numpy())
    vector_UM = np.asarray(data.array("user_text"))
    teacher_M = vector_UM[rows["user"].to_numpy()]

    def score(users: np.ndarray) -> np.ndarray:
        similar_BR = torch.from_numpy(vector_UM[users] @ teacher_M.T)
        found_BI = torch.zeros(len(users), data.num_items + 1)
        return found_BI.index_add_(1, liked[1], similar_BR[:, liked[0]]).numpy()

    return score


def groups(data: Prepared, rows: dict[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    """Return names of groups of users, and each user's: as the users' table says, else by what is known of them."""
    if "group" in data.users.column_names:
        of_user = data.users["group"].to_pandas().astype(str).to_numpy()[rows["user"]]
        names = sorted(set(of_user))
        return names, np.searchsorted(names, of_user)
    names = ["nothing known", f"up to {FEW} items known", "more known"]
    return names, np.digitize(rows["history"], [1, FEW + 1])


def cold(rows: dict[str, np.ndarray], resamples: int, rng: np.random.Generator) -> Numbers:
    """Return ndcg@10 and recall@10 for cold items, among all items and among cold ones, and for cold users."""
    found: Numbers = {}
    for name in ("cold items", "among cold items"):
        if f"{name}/ndcg@10" not in rows:
            continue
        values = {m: rows[f"{name}/{m}"] for m in ("ndcg@10", "recall@10", "auc")}
        there = ~np.isnan(values["ndcg@10"])
        if there.any():
            found[name] = {"users": int(there.sum())} | _intervals(values, there, resamples, rng)
    there = (rows["history"] == 0) & ~np.isnan(rows["metric/ndcg@10"])
    if there.any():
        values = {m: rows[f"metric/{m}"] for m in ("ndcg@10", "recall@10", "auc") if f"metric/{m}" in rows}
        found["cold users"] = {"users": int(there.sum())} | _intervals(values, there, resamples, rng)
    return found


def _intervals(
    values: dict[str, np.ndarray], there: np.ndarray, resamples: int, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    found = {}
    for name, value in values.items():
        kept = value[there & ~np.isnan(value)]
        if len(kept):
            found[name] = interval(kept, resamples, rng).plain()
    return found


def analyse(
    system: System[Any], module: nn.Module, batches: Iterator[tuple[Batch, bool]], device: Any
) -> dict[str, np.ndarray]:
    """Return what the system tells of each user beyond metrics, as columns; empty where it tells nothing."""
    record = Rows()
    module.eval()
    with torch.inference_mode():
        tell = system.analyser(module)
        if tell is None:
            return {}
        for batch, counts in batches:
            if counts:
                record.add(tell(batch.to(device)))
    return record.columns()


def worth(
    told: dict[str, np.ndarray],
    rows: dict[str, np.ndarray],
    names: list[str],
    group: np.ndarray,
    data: Prepared,
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> Numbers:
    """Return what leaving out a modality or spoiling pictures costs, and how groups of users differ in it."""
    value, found = rows["metric/ndcg@10"], Numbers(without={}, spoiled={}, groups={})
    there = ~np.isnan(value)
    for key, column in told.items():
        kind, _, name = key.partition("/")
        if kind not in ("without", "spoiled"):
            continue
        loss = paired(value[there], column[there], config.bootstrap, rng).difference
        entry: Numbers = {"ndcg@10": float(column[there].mean())}
        entry["loss"] = loss.plain()
        if f"overlap/{name}" in told:
            entry["top 5 kept"] = float(told[f"overlap/{name}"].mean())
        found[kind][name] = entry
    reliances = [key for key in told if key.startswith("reliance/")]
    for number, label in enumerate(names):
        inside = group == number
        if not inside.any():
            continue
        entry = {"users": int(inside.sum())}
        entry["reliance"] = {key.partition("/")[2]: float(told[key][inside].mean()) for key in reliances}
        if "expert share" in told:
            entry["expert share"] = told["expert share"][inside].mean(0).tolist()
        found["groups"][label] = entry
    if "needs_image" in data.users.column_names and "reliance/item image" in told:
        found["needs image"] = _recovered(told, data.users["needs_image"].to_numpy()[rows["user"]])
    return found


def _recovered(told: dict[str, np.ndarray], truth: np.ndarray) -> Numbers:
    """Return how well it can be told who truly needs the picture, as areas under the ROC curve.

    By ablation: how far a user's scores move without pictures. By routed share: a logistic regression from the user's
    shares of experts, fitted on four fifths of the users and judged on the fifth, in turns.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    if truth.all() or not truth.any():
        return {}
    found = {"by ablation": float(roc_auc_score(truth, told["reliance/item image"]))}
    if "expert share" in told:
        probability = cross_val_predict(
            LogisticRegression(max_iter=1000), told["expert share"], truth, cv=5, method="predict_proba"
        )[:, 1]
        found["by routed share"] = float(roc_auc_score(truth, probability))
    return found


def examples(rows: dict[str, np.ndarray], data: Prepared, split: str) -> list[Numbers]:
    """Return some users with the best items they are shown and which of those are relevant, for people to look at."""
    targets = dict(zip(*(data.rows(split)[n].to_pylist() for n in ("user", "target")), strict=True))
    known = [n for n in data.users.column_names if n in ("id", "text", "group")]
    found = []
    chosen = generator(0, "examples").permutation(len(rows["user"]))[:EXAMPLES]
    for place in np.sort(chosen).tolist():
        user = int(rows["user"][place])
        told = {name: data.users[name][user].as_py() for name in known}
        shown = zip(rows["top"][place, :FEW].tolist(), rows["top score"][place, :FEW].tolist(), strict=True)
        items = [{"item": i, "score": s, "relevant": i in targets[user]} for i, s in shown if np.isfinite(s)]
        found.append({"user": told, "items": items, "relevant": len(targets[user])})
    return found
