"""What gates and experts are worth: the wrong gate on purpose, who uses which expert, and how much experts differ.

All of it on a bounded sample of the split's reviews, in eval mode, in one process.
Letters: B reviews, C gates, L gated layers, E experts, K tokens that are no padding, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.evaluation.bootstrap import paired_sums
from rec.evaluation.task import Measured
from rec.evaluation.tasks.writing.likelihood import per_token
from rec.moe.evidence import mutual_information, output_similarity, rows_of, switched_off
from rec.moe.layer import MixtureOfExperts, is_spread, layers_of, routings
from rec.moe.routing import Routing
from rec.seeds import generator
from rec.systems.gavamoe.batch import ReviewBatch
from rec.systems.gavamoe.mixture import in_sample
from rec.systems.gavamoe.model import GaVaMoEModel
from rec.systems.gavamoe.prompt import Prompt
from rec.systems.gavamoe.writer import Pairs

Numbers = dict[str, Any]
REVIEWS, FEW_REVIEWS = 500, 100
"""About so many reviews of a split are written with every gate, and so many of them without each expert."""
PASSES = 64
"""Experts that are switched off at most, by whole layers, from the first to the last as evenly as they can be."""
STATES = 1024
"""Tokens that a layer's experts are compared on."""
SHUFFLES = 20
"""Times that clusters are given to other reviews, as a control."""
SPREAD = "experts are spread over workers, evidence of gates and experts is for one process; evaluate the run alone"


@dataclass(kw_only=True)
class SampleEvidence:
    """What was heard of the reviews of a sample, part by part."""

    gates: int
    layers: Mapping[str, MixtureOfExperts]
    cluster: list[np.ndarray] = field(default_factory=list)
    """The gate of each review."""
    group: list[np.ndarray] = field(default_factory=list)
    tokens: list[np.ndarray] = field(default_factory=list)
    right: list[np.ndarray] = field(default_factory=list)
    """Negative log likelihood of each review in nats, as the model has it ..."""
    by_gate: list[np.ndarray] = field(default_factory=list)
    """... and with each gate for all, (B, C)."""
    slots: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """By layer, how many of each review's slots came to each expert, (B, E)."""
    states: dict[str, list[Tensor]] = field(default_factory=dict)
    """By layer, what came to its experts, (K, D)."""
    asked: list[tuple[Prompt, Pairs]] = field(default_factory=list)
    """Of the first reviews, for passes without an expert."""

    def joined(self, name: str) -> np.ndarray:
        """Return a column over all reviews."""
        return np.concatenate(getattr(self, name))


def why_no_swap(module: GaVaMoEModel) -> str:
    """Return why there is no wrong gate, in words; empty where there is one."""
    config = module.config
    if not config.experts.experts:
        return "there are no experts, so that there is no gate to be wrong"
    if config.experts.gates == "one":
        return "all pairs share one gate, so that there is no wrong one"
    return "there is one cluster, so that there is no wrong gate" if config.pairs.clusters == 1 else ""


@torch.no_grad()
def measure(measured: Measured) -> Numbers:
    """Return the numbers; where something cannot be told, why not stands in its place, in words."""
    module = measured.module
    assert isinstance(module, GaVaMoEModel)
    module.eval()
    layers = dict(layers_of(module.writer))
    if not layers or is_spread(module):
        return {"reviews": 0, "why_no_swap": SPREAD if layers else why_no_swap(module), "layers": {}}
    why = why_no_swap(module)
    found = sampled(measured, module, layers, gates=0 if why else module.config.pairs.clusters)
    numbers: Numbers = {"reviews": len(found.joined("right")), "tokens": int(found.joined("tokens").sum())}
    numbers["why_no_swap"] = why
    if not why:
        numbers["swap"] = swap(found, int(module.share_C.argmax()), measured)
    activation = activations(found, measured)
    alike = {name: output_similarity(layer, torch.cat(found.states[name])) for name, layer in layers.items()}
    off = without_experts(module, found, measured)
    numbers["layers"] = {
        name: {**activation[name], "similarity": alike[name].tolist(), "off": off["layers"].get(name, [])}
        for name in layers
    }
    return numbers | {"off_reviews": off["reviews"]}


def sampled(
    measured: Measured, module: GaVaMoEModel, layers: Mapping[str, MixtureOfExperts], *, gates: int
) -> SampleEvidence:
    """Return what the model makes of a sample, each review with its own gate and with each of so many for all."""
    found = SampleEvidence(gates=gates, layers=layers)
    total, few = min(REVIEWS, len(measured.records)), FEW_REVIEWS
    for batch, group_B in parts(measured):
        prompt, pairs = module.asked(batch)
        most = -(-STATES * len(batch) // total)
        with routings(module.writer) as heard, rows_of(layers, most) as rows:
            right_B, tokens_B = module.writer.nll(prompt, pairs)
        kept_BT = module.writer.context.kept_BT
        assert kept_BT is not None
        owner_K = kept_BT.nonzero()[:, 0]
        for name, routing in heard.items():
            found.slots.setdefault(name, []).append(slots(routing, owner_K, len(batch)))
            found.states.setdefault(name, []).append(rows[name])
        by_gate = [module.writer.nll(prompt, with_gate(pairs, gate))[0] for gate in range(gates)]
        columns = {"cluster": pairs.cluster_B, "tokens": tokens_B, "right": right_B}
        for name, value_B in columns.items():
            getattr(found, name).append(value_B.cpu().numpy())
        found.group.append(group_B)
        found.by_gate.append(torch.stack(by_gate, 1).cpu().numpy() if by_gate else np.zeros((len(batch), 0)))
        if few > 0:
            found.asked.append((prompt, pairs))
            few -= len(batch)
    return found


def parts(measured: Measured) -> Iterator[tuple[ReviewBatch, np.ndarray]]:
    """Yield the sample of the split in batches, with the group of each review."""
    assert measured.batches is not None
    start, total = 0, len(measured.records)
    for batch in measured.batches(measured.split):
        places = np.flatnonzero(in_sample(batch.record_B.cpu().numpy(), REVIEWS, total))
        if len(places):
            yield batch.taken(places.tolist()), measured.groups.label_B[start + places]
        start += len(batch)


def with_gate(pairs: Pairs, gate: int) -> Pairs:
    """Return the same pairs, all of one gate."""
    cluster_B = torch.full_like(pairs.cluster_B, gate)
    if pairs.share_BC is None:
        return replace(pairs, cluster_B=cluster_B)
    whole_BC = nn.functional.one_hot(cluster_B, pairs.share_BC.shape[1]).to(pairs.share_BC)
    return replace(pairs, cluster_B=cluster_B, share_BC=whole_BC)


def slots(routing: Routing, owner_K: Tensor, reviews: int) -> np.ndarray:
    """Return how many of each review's slots came to each expert, int64 (B, E)."""
    experts = routing.probability_NE.shape[1]
    place_KS = owner_K[:, None] * experts + routing.expert_NK
    used_S = place_KS[routing.weight_NK > 0]
    return torch.bincount(used_S, minlength=reviews * experts).view(reviews, experts).cpu().numpy()


def difference(ours: np.ndarray, theirs: np.ndarray, tokens: np.ndarray, measured: Measured, name: str) -> Numbers:
    """Return by how many nats per token the first sums are above the second, with the 95 % interval over reviews."""
    rng = generator(measured.seed, "evidence", name)
    first, second = ([per_token(nll_B, tokens)] for nll_B in (ours, theirs))
    return paired_sums(first, second, None, measured.config.bootstrap, rng).difference.plain()


def swap(found: SampleEvidence, heaviest: int, measured: Measured) -> Numbers:
    """Return what the wrong gates cost: in the mean, each in turn, and the heaviest one for all reviews."""
    cluster_B, tokens_B, right_B = (found.joined(name) for name in ("cluster", "tokens", "right"))
    by_gate_BC = found.joined("by_gate")
    own_BC = np.arange(found.gates) == cluster_B[:, None]
    wrong_B = np.where(own_BC, 0, by_gate_BC).sum(1) / (found.gates - 1)

    def told(nll_B: np.ndarray, name: str, inside_B: np.ndarray) -> Numbers:
        count_B = tokens_B[inside_B]
        ours, theirs = nll_B[inside_B], right_B[inside_B]
        entry: Numbers = {"reviews": len(count_B), "nll": None, "right": None, "difference": None}
        if len(count_B):
            entry |= {"nll": float(ours.sum() / count_B.sum()), "right": float(theirs.sum() / count_B.sum())}
            entry["difference"] = difference(ours, theirs, count_B, measured, name)
        return entry

    every_B = np.ones(len(right_B), bool)
    gap_BC, matrix = by_gate_BC - right_B[:, None], []
    for cluster in range(found.gates):
        inside_B = cluster_B == cluster
        count = tokens_B[inside_B].sum()
        matrix.append((gap_BC[inside_B].sum(0) / count).tolist() if count else [None] * found.gates)
    return {
        "right": float(right_B.sum() / tokens_B.sum()),
        "wrong": told(wrong_B, "wrong", every_B),
        "heaviest": {"gate": heaviest, **told(by_gate_BC[:, heaviest], "heaviest", every_B)},
        "gates": [
            {"gate": gate, **told(by_gate_BC[:, gate], f"gate {gate}", ~own_BC[:, gate])} for gate in range(found.gates)
        ],
        "by_cluster": matrix,
    }


def activations(found: SampleEvidence, measured: Measured) -> dict[str, Numbers]:
    """Return per layer the share of slots that each expert gets, of each cluster and group, and what clusters tell.

    `information` is the mutual information of a slot's cluster and expert in nats, `shuffled` the same with clusters
    given to other reviews, in the mean; `most` is the entropy of clusters, which it cannot exceed.
    """
    cluster_B, group_B = found.joined("cluster"), found.joined("group")
    rng = generator(measured.seed, "evidence", "clusters of others")
    others = [rng.permutation(cluster_B) for _ in range(SHUFFLES)]
    names = measured.groups.names or ("all",)
    count = int(cluster_B.max(initial=0)) + 1
    numbers = {}
    for name, counted in found.slots.items():
        slots_BE = np.concatenate(counted)
        by_cluster = summed(slots_BE, cluster_B, count)
        shuffled = [mutual_information(summed(slots_BE, other_B, count)) for other_B in others]
        numbers[name] = {
            "clusters": {str(c): row for c, row in enumerate(shares(by_cluster)) if row},
            "groups": {n: row for n, row in zip(names, shares(summed(slots_BE, group_B, len(names))), strict=True)
                       if row},
            "share": shares(slots_BE.sum(0, keepdims=True))[0],
            "information": mutual_information(by_cluster),
            "shuffled": float(np.mean(shuffled)),
            "most": mutual_information(np.diag(by_cluster.sum(1))),
        }  # fmt: skip
    return numbers


def summed(slots_BE: np.ndarray, label_B: np.ndarray, labels: int) -> np.ndarray:
    """Return the slots of all reviews of each label, (labels, E)."""
    total = np.zeros((labels, slots_BE.shape[1]))
    np.add.at(total, label_B, slots_BE)
    return total


def shares(count_GE: np.ndarray) -> list[list[float]]:
    """Return each row's shares, empty for a row of nothing."""
    return [(row / row.sum()).tolist() if row.sum() else [] for row in count_GE]


def without_experts(module: GaVaMoEModel, found: SampleEvidence, measured: Measured) -> Numbers:
    """Return how much worse the first reviews are written without each expert, by layer; not where there is one."""
    reviews = sum(len(prompt) for prompt, _ in found.asked)
    right_B, tokens_B = (found.joined(name)[:reviews] for name in ("right", "tokens"))
    told: dict[str, list[Numbers]] = {}
    for name in chosen({name: layer.num_experts for name, layer in found.layers.items()}):
        layer = found.layers[name]
        for expert in range(layer.num_experts):
            with switched_off(layer, expert):
                nll_B = np.concatenate([module.writer.nll(*asked)[0].cpu().numpy() for asked in found.asked])
            gap = difference(nll_B, right_B, tokens_B, measured, f"{name} without {expert}")
            told.setdefault(name, []).append({"expert": expert, "difference": gap})
    return {"reviews": reviews, "layers": told}


def chosen(experts: Mapping[str, int]) -> Sequence[str]:
    """Return the layers whose experts are switched off: all with several, as far as `PASSES` reaches."""
    names = [name for name, count in experts.items() if count > 1]
    most = max(1, PASSES // max([experts[name] for name in names], default=1))
    if len(names) <= most:
        return names
    return [names[place] for place in np.unique(np.linspace(0, len(names) - 1, most).round().astype(int))]
