"""The report's figures as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

INK = "#1f2933"
COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626", "#0891b2", "#65a30d", "#db2777", "#64748b")


def learning_curves(history: Sequence[dict[str, Any]], metric: str) -> str:
    """Return the training loss and the validation metric over epochs."""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, len(history) + 1)
    for index, name in enumerate(n for n in history[0] if n.startswith("loss/")):
        left.plot(epochs, [h.get(name, np.nan) for h in history], color=COLOURS[index % 9], label=name)
    left.set(title="training loss", xlabel="evaluation")
    left.legend(frameon=False, fontsize=8)
    values = np.array([h[metric] for h in history])
    right.plot(epochs, values, color=COLOURS[0])
    right.plot(values.argmax() + 1, values.max(), "o", color=COLOURS[1])
    right.set(title=f"validation {metric}, best {values.max():.4f}", xlabel="evaluation")
    return svg(figure)


def metric_bars(ours: dict[str, float], baseline: dict[str, float], names: Sequence[str]) -> str:
    """Return our metrics beside the popularity baseline's."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(names))
    for shift, values, label, colour in (
        (-0.2, ours, "this run", COLOURS[0]),
        (0.2, baseline, "popularity", "#94a3b8"),
    ):
        bars = axes.bar(place + shift, [values[n] for n in names], 0.38, label=label, color=colour)
        axes.bar_label(bars, fmt="%.3f", fontsize=7)
    axes.set_xticks(place, names)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return svg(figure)


def gate_by_group(groups: dict[str, Any], modalities: Sequence[str]) -> str:
    """Return the mean weight of each modality per group of users, with 95 % intervals."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(modalities))
    width = 0.8 / max(len(groups), 1)
    for index, (name, entry) in enumerate(groups.items()):
        mean = np.array(entry["gate"])
        error = np.abs(np.array([entry["gate_low"], entry["gate_high"]]) - mean)
        shift = (index - (len(groups) - 1) / 2) * width
        label = f"{name} ({entry['users']})"
        axes.bar(place + shift, mean, width * 0.95, yerr=error, capsize=2, label=label, color=COLOURS[index])
    axes.axhline(1 / len(modalities), color=INK, linewidth=0.8, linestyle=":")
    axes.set_xticks(place, modalities, rotation=20)
    axes.set_ylabel("mean gate weight")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return svg(figure)


def gate_over_epochs(history: Sequence[dict[str, Any]], modalities: Sequence[str]) -> str:
    """Return each modality's mean weight on validation over training."""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    axes = figure.subplots()
    epochs = np.arange(1, len(history) + 1)
    for index, name in enumerate(modalities):
        axes.plot(epochs, [h[f"gate/{index}"] for h in history], color=COLOURS[index % 9], label=name)
    axes.set(xlabel="evaluation", ylabel="mean gate weight")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return svg(figure)


def expert_health(history: Sequence[dict[str, Any]], layer: str, final: dict[str, Any]) -> str:
    """Return a layer's load over training, its health, the shares per group of users, and how alike experts are."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    (load, lines), (groups, alike) = figure.subplots(2, 2)
    load_TE = np.array([h[f"moe/{layer}/load"] for h in history])
    image = load.imshow(
        load_TE.T,
        origin="lower",
        aspect="auto",
        cmap="viridis",
        vmin=0,
        extent=(0.5, len(history) + 0.5, -0.5, load_TE.shape[1] - 0.5),
    )
    load.set(title="share of assignments", xlabel="evaluation", ylabel="expert")
    figure.colorbar(image, ax=load)
    epochs = np.arange(1, len(history) + 1)
    for index, (key, label) in enumerate(
        (("use_entropy", "entropy of use"), ("decision_entropy", "entropy of decisions"), ("dropped_share", "dropped"))
    ):
        lines.plot(epochs, [h[f"moe/{layer}/{key}"] for h in history], color=COLOURS[index], label=label)
    dead = [h[f"moe/{layer}/unused"] / load_TE.shape[1] for h in history]
    lines.plot(epochs, dead, color=COLOURS[4], label="never used")
    if f"moe/{layer}/trigger_entropy" in history[-1]:
        lines.plot(
            epochs, [h[f"moe/{layer}/trigger_entropy"] for h in history], "--", color=COLOURS[3], label="trigger's"
        )
        switched = [number for number, h in zip(epochs, history, strict=True) if h[f"moe/{layer}/switched_at"] >= 0]
        if switched:
            lines.axvline(switched[0], color="#334155", linewidth=0.8)
            lines.annotate("switch", (switched[0], 0.02), fontsize=7)
    lines.set(title="health (1 is even use, or an undecided router)", xlabel="evaluation", ylim=(-0.02, 1.02))
    lines.legend(frameon=False, fontsize=7)
    place, width = np.arange(load_TE.shape[1]), 0.8 / max(len(final["groups"]), 1)
    for index, (name, shares) in enumerate(final["groups"].items()):
        groups.bar(place + (index + 0.5) * width - 0.4, shares, width, color=COLOURS[index % 9], label=name)
    groups.set(title="mean share per group of users", xlabel="expert")
    if final["groups"]:
        groups.legend(frameon=False, fontsize=7)
    if "similarity" in final:
        figure.colorbar(alike.imshow(final["similarity"], cmap="coolwarm", vmin=-1, vmax=1), ax=alike)
    alike.set(title="cosine between experts' weights", xlabel="expert")
    return svg(figure)


def svg(figure: Figure) -> str:
    """Return a figure as the text of an SVG element, the same for the same figure."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.title.set_fontsize(9)
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "rec", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
