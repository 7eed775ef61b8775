"""Sections like those of today's pages, from numbers that a run files: what renderers are tried on."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from rec.sections import (
    Bars,
    BarSeries,
    Card,
    Code,
    Event,
    Gallery,
    Heatmap,
    Lines,
    LineSeries,
    Mark,
    Section,
    Shelf,
    Table,
    Text,
    interval,
    number,
)

MODALITIES = ("id", "title", "plot", "acting", "poster", "narrative")
GROUPS = {"Niche": 311, "Diverse": 204, "Blockbuster": 428}
LAYER = "blocks.0"


def history(epochs: int = 9, experts: int = 4) -> list[dict[str, Any]]:
    """Return one entry per epoch, as `history.json` holds them."""
    rng = np.random.default_rng(1)
    entries = []
    for epoch in range(epochs):
        load_E = rng.dirichlet(np.full(experts, 30.0))
        entry: dict[str, Any] = {
            "loss/next item": 7.5 - 1.5 * (1 - np.exp(-epoch / 3)),
            "loss/balance": 1.0 + 0.05 / (epoch + 1),
            "ndcg@10": float(0.06 * (1 - np.exp(-epoch / 2)) - 0.0006 * max(epoch - 5, 0)),
            f"moe/{LAYER}/load": load_E.tolist(),
            f"moe/{LAYER}/use_entropy": 0.99 - 0.002 * epoch,
            f"moe/{LAYER}/decision_entropy": 0.98 - 0.05 * epoch,
            f"moe/{LAYER}/dropped_share": 0.01,
            f"moe/{LAYER}/unused": 0.0,
            f"moe/{LAYER}/trigger_entropy": 0.9 - 0.06 * epoch,
            f"moe/{LAYER}/switched_at": 4 if epoch >= 4 else -1,
        }
        entry |= {f"gate/{i}": 1 / 6 + 0.0002 * (i - 2.5) * epoch / epochs for i in range(len(MODALITIES))}
        entries.append(entry)
    return entries


def learning_curves(entries: Sequence[Mapping[str, Any]], metric: str) -> list[Lines]:
    """Return the losses and the validation metric over epochs, the best epoch marked."""
    epoch = np.arange(1, len(entries) + 1)
    names = [name for name in entries[0] if name.startswith("loss/")]
    losses = [LineSeries(name=name, x=epoch, y=[h.get(name) for h in entries]) for name in names]
    values = np.array([h[metric] for h in entries])
    best = int(values.argmax())
    mark = Mark(x=best + 1, y=values[best], name=f"best: {values[best]:.4f} at epoch {best + 1}")
    curve = LineSeries(name=f"validation {metric}", x=epoch, y=values)
    return [
        Lines(title="Training loss", series=losses, x_axis="epoch", y_axis="loss per example"),
        Lines(
            title=f"Validation {metric}",
            caption="The checkpoint of the best epoch is the one that is evaluated.",
            series=[curve],
            marks=[mark],
            x_axis="epoch",
            y_axis=metric,
        ),
    ]


def metric_bars(ours: Mapping[str, float], baseline: Mapping[str, float]) -> Bars:
    """Return our metrics beside those of the popularity baseline."""
    series = [
        BarSeries(name="this run", values=list(ours.values())),
        BarSeries(name="popularity", values=[baseline[name] for name in ours], muted=True),
    ]
    return Bars(title="Beside the most popular items", groups=list(ours), series=series, axis="mean over users")


def gate_by_group(groups: Mapping[str, Mapping[str, Any]], modalities: Sequence[str]) -> Bars:
    """Return the mean weight of each modality per group of users, with 95 % intervals."""
    series = [
        BarSeries(
            name=f"{name} ({entry['users']} users)",
            values=entry["gate"],
            low=entry["gate_low"],
            high=entry["gate_high"],
        )
        for name, entry in groups.items()
    ]
    return Bars(
        title="Weight of each modality per group of users",
        caption="Mean gate weight over a user's history, with its 95 % bootstrap interval over users.",
        groups=modalities,
        series=series,
        axis="mean gate weight (share)",
        reference=1 / len(modalities),
        reference_name="equal use",
    )


def gate_over_epochs(entries: Sequence[Mapping[str, Any]], modalities: Sequence[str]) -> Lines:
    """Return each modality's mean weight on validation over training."""
    epoch = np.arange(1, len(entries) + 1)
    series = [LineSeries(name=m, x=epoch, y=[h[f"gate/{i}"] for h in entries]) for i, m in enumerate(modalities)]
    title = "Weight of each modality over training"
    return Lines(
        title=title,
        series=series,
        x_axis="epoch",
        y_axis="mean gate weight (share)",
        reference=1 / len(modalities),
        reference_name="equal use",
    )


def expert_health(
    entries: Sequence[Mapping[str, Any]], layer: str, final: Mapping[str, Any]
) -> list[Heatmap | Lines | Bars]:
    """Return a layer's load over training, its health, the shares per group of users, and how alike experts are."""
    load_TE = np.array([h[f"moe/{layer}/load"] for h in entries])
    epoch = np.arange(1, len(entries) + 1)
    experts = [str(expert) for expert in range(load_TE.shape[1])]
    names = {"use_entropy": "entropy of use", "decision_entropy": "entropy of decisions", "dropped_share": "dropped"}
    health = [LineSeries(name=w, x=epoch, y=[h[f"moe/{layer}/{k}"] for h in entries]) for k, w in names.items()]
    unused = [h[f"moe/{layer}/unused"] / len(experts) for h in entries]
    health.append(LineSeries(name="never used", x=epoch, y=unused))
    trigger = [h[f"moe/{layer}/trigger_entropy"] for h in entries]
    health.append(LineSeries(name="trigger's entropy", x=epoch, y=trigger, style="dashed"))
    switched = [n for n, h in zip(epoch, entries, strict=True) if h[f"moe/{layer}/switched_at"] >= 0]
    share = [BarSeries(name=name, values=values) for name, values in final["groups"].items()]
    return [
        Heatmap(
            title="Load of the experts",
            caption="The share of all assignments that each expert got.",
            matrix=load_TE.T,
            x_names=[str(n) for n in epoch],
            y_names=experts,
            x_axis="epoch",
            y_axis="expert",
            meaning="share of assignments",
            low=0.0,
        ),
        Lines(
            title="Health of the routing",
            caption="1 is even use, or an undecided router.",
            series=health,
            events=[Event(x=float(n), name="switch") for n in switched[:1]],
            x_axis="epoch",
            y_axis="share of its largest value",
            low=-0.02,
            high=1.02,
        ),
        Bars(
            title="Experts per group of users",
            groups=experts,
            series=share,
            axis="mean share of a group's assignments",
            group_axis="expert",
        ),
        Heatmap(
            title="How alike the experts are",
            matrix=final["similarity"],
            x_names=experts,
            y_names=experts,
            x_axis="expert",
            y_axis="expert",
            meaning="cosine between weights",
            low=-1.0,
            high=1.0,
        ),
    ]


def reliance_by_group(groups: Mapping[str, Mapping[str, Any]]) -> list[Bars]:
    """Return how far scores rest on each modality, and each expert's share, per group of users."""
    names = [f"{name} ({entry['users']} users)" for name, entry in groups.items()]
    first = next(iter(groups.values()))
    reliance = [
        BarSeries(name=modality, values=[entry["reliance"][modality] for entry in groups.values()])
        for modality in first["reliance"]
    ]
    share = [
        BarSeries(name=f"expert {k}", values=[entry["expert share"][k] for entry in groups.values()])
        for k in range(len(first["expert share"]))
    ]
    axis = "change of scores without it (standard deviations)"
    return [
        Bars(title="What rankings rest on", groups=names, series=reliance, axis=axis, horizontal=True),
        Bars(
            title="Who serves them",
            groups=names,
            series=share,
            axis="share of the best 10 items",
            horizontal=True,
            stacked=True,
        ),
    ]


def search(metric: str) -> list[Lines | Bars]:
    """Return a search's progress, what mattered, the trade-off of two objectives, and one panel per key."""
    rng = np.random.default_rng(4)
    curves = [np.sort(rng.uniform(0.02, 0.06, 6)) for _ in range(10)]
    best, cost = np.array([curve.max() for curve in curves]), rng.uniform(1, 9, 10)
    trial, rate = np.arange(1, 11), 10 ** rng.uniform(-4, -2, 10)
    front = [i for i in np.argsort(cost) if best[i] >= best[cost <= cost[i]].max()]
    each = [LineSeries(name="", x=np.arange(1, 7), y=curve) for curve in curves]
    highest = LineSeries(name="best so far", x=trial, y=np.fmax.accumulate(best))
    objectives = [
        LineSeries(name="trials", x=cost, y=best, style="points", muted=True),
        LineSeries(name="undominated", x=cost[front], y=best[front]),
    ]
    loss = BarSeries(name="loss", values=[0.4, 0.1], low=[0.3, 0.0], high=[0.5, 0.2])
    gate = LineSeries(name="", x=rng.integers(0, 3, 10), y=best, style="points")
    return [
        Lines(title="Every trial", series=each, x_axis="epoch", y_axis=metric),
        Lines(
            title="Best so far",
            series=[LineSeries(name="a trial", x=trial, y=best, style="points", muted=True), highest],
            x_axis="trial",
            y_axis=metric,
        ),
        Lines(title="Trade-off", series=objectives, x_axis="cost (s, lower is better)", y_axis=metric),
        Bars(
            title="Importance",
            groups=["train.learning_rate", "model.gate"],
            series=[loss],
            axis="loss of explained variance when shuffled",
            horizontal=True,
        ),
        Lines(
            title="train.learning_rate",
            series=[LineSeries(name="", x=rate, y=best, style="points")],
            x_axis="train.learning_rate",
            y_axis=metric,
            x_log=True,
        ),
        Lines(
            title="model.gate",
            series=[gate],
            x_axis="model.gate",
            y_axis=metric,
            x_names=["mean", "user", "item"],
        ),
    ]


def picture(colour: tuple[int, int, int]) -> bytes:
    """Return a JPEG of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 80), colour).save(stream, "JPEG")
    return stream.getvalue()


def shelves() -> Gallery:
    """Return what some users are shown."""
    rng = np.random.default_rng(2)
    rows = []
    for user in ("u17", "u204"):
        cards = [
            Card(
                caption=[f"A long title of meal number {k}, with beans", f"score {2 - 0.3 * k:.3f}"],
                picture=None if k == 3 else picture(tuple(int(c) for c in rng.integers(0, 255, 3))),  # type: ignore[arg-type]
                marked=k in (1, 4),
            )
            for k in range(9)
        ]
        rows.append(Shelf(lead=user, detail="likes quick meals without meat", cards=cards))
    return Gallery(shelves=rows, mark="relevant")


def full() -> list[Section]:
    """Return every kind of part that today's pages have, with numbers like theirs."""
    rng = np.random.default_rng(3)
    entries = history()
    gates = {}
    for name, users in GROUPS.items():
        gate = rng.dirichlet(np.full(6, 400.0))
        gates[name] = {"users": users, "gate": gate, "gate_low": gate - 0.004, "gate_high": gate + 0.004}
    alike = np.eye(4) + 0.1 * (1 - np.eye(4)) * np.where(np.add.outer(np.arange(4), np.arange(4)) % 2, 1, -1)
    final = {"groups": {name: rng.dirichlet(np.full(4, 9.0)) for name in GROUPS}, "similarity": alike}
    reliance = {
        name: {
            "users": users,
            "reliance": dict(zip(MODALITIES[:3], rng.uniform(0.1, 1, 3), strict=True)),
            "expert share": rng.dirichlet(np.full(4, 5.0)),
        }
        for name, users in GROUPS.items()
    }
    ours = {"hit@10": 0.2035, "ndcg@10": 0.1139, "mrr@10": 0.0871, "coverage@10": 0.41, "auc": 0.871}
    floor = {"hit@10": 0.151, "ndcg@10": 0.0832, "mrr@10": 0.0641, "coverage@10": 0.02, "auc": 0.802}
    rows = [[n, interval(v, v - 0.01, v + 0.01), number(floor[n]), ""] for n, v in ours.items()]
    rows.append(["loss", number(float("nan")), "-", ""])
    wide = [[f"trial-{k}", "finished", *(number(float(v)) for v in rng.uniform(0, 1, 16))] for k in range(12)]
    config = "\n".join(f"key_{k} = {k}" for k in range(40)) + '\nroot = "' + "/a/long/way" * 14 + '"'
    return [
        Section(
            title="Metrics",
            parts=[
                Text(text="943 users, full ranking of all 1,682 items.", tone="note"),
                Table(head=["metric", "this run (95 % interval)", "popularity", "empty"], rows=rows),
                metric_bars(ours, floor),
            ],
        ),
        Section(
            title="Learning curves",
            parts=[
                Text(text="One point per epoch; validation ranks all items."),
                *learning_curves(entries, "ndcg@10"),
            ],
        ),
        Section(
            title="Modality weights",
            parts=[gate_by_group(gates, MODALITIES), gate_over_epochs(entries, MODALITIES)],
        ),
        Section(title=f"Experts of {LAYER}", parts=expert_health(entries, LAYER, final)),
        Section(title="Groups of users", parts=reliance_by_group(reliance)),
        Section(
            title="Some users and what they are shown",
            parts=[Text(text="Labels are synthetic: nobody has judged them.", tone="warning"), shelves()],
        ),
        Section(
            title="Trials", parts=[Table(head=["trial", "status", *(f"model.key_{k}" for k in range(16))], rows=wide)]
        ),
        Section(title="Search", parts=search("ndcg@10")),
        Section(title="Config", parts=[Code(text=config)], folded=True),
    ]
