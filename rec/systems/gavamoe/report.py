"""What a report tells of clusters: who is in them, how stable they are, and what they are worth on held-out pairs.

Letters: B pairs, N pairs of a sample, C clusters, Z width of a latent, S draws of noise, L levels of it, K components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.evaluation.records import column
from rec.evaluation.task import Measured
from rec.sections import Lines, LineSeries, Section, Table, Text, number
from rec.seeds import derive
from rec.systems.gavamoe import evidence, evidence_report
from rec.systems.gavamoe.batch import ReviewBatch
from rec.systems.gavamoe.mixture import EncodedSample, drawn, fitted
from rec.systems.gavamoe.model import GaVaMoEModel

Numbers = dict[str, Any]
CLUSTER, PROBABILITY, STABILITY = "cluster_id", "cluster_probability", "cluster_stability"
"""Columns of records."""
NOISE, DRAWS = (0.5, 1.0, 2.0), 8
"""Standard deviations of a pair's latent by which it is moved, and how often at each."""
SAMPLE, JUDGED = 10_000, 2_000
"""Pairs that clusters are judged by, and those of them that are compared in pairs."""
MOST_COMPONENTS = 8


class ClusterAnalysis:
    """Tells each pair's cluster, how probable it is, and how often noise leaves it as it is."""

    def __init__(self, module: GaVaMoEModel) -> None:
        self.module = module
        noise = torch.Generator().manual_seed(derive(module.seed, "cluster noise"))
        self.noise_SZ = torch.randn(DRAWS, module.config.pairs.latent, generator=noise)

    def __call__(self, batch: ReviewBatch) -> dict[str, Tensor]:
        """Return the columns of a batch: (B,), (B,) and (B, L)."""
        module = self.module
        own_BC = module.responsibilities(batch)
        cluster_B = own_BC.argmax(1)
        latent = module.pairs(batch.user_B, batch.item_B)
        strange_B = module.pairs.strange(batch.user_B, batch.item_B)
        kept = []
        for scale in NOISE:
            noise_SZ = scale * self.noise_SZ.to(latent.mean_BZ.device)
            moved_BSZ = latent.mean_BZ[:, None] + (0.5 * latent.log_variance_BZ).exp()[:, None] * noise_SZ
            found_BS = module.prior.cluster(moved_BSZ.flatten(0, 1)).view(len(batch), DRAWS)
            kept.append(((found_BS == cluster_B[:, None]) | strange_B[:, None]).float().mean(1))
        return {CLUSTER: cluster_B, PROBABILITY: own_BC.max(1).values, STABILITY: torch.stack(kept, 1)}


def enrich(measured: Measured) -> list[str]:
    """Add numbers of clusters, gates and experts; return the most telling ones in words."""
    records, batches, module = measured.records, measured.batches, measured.module
    if batches is None or CLUSTER not in records.column_names or not len(records):
        return []
    assert isinstance(module, GaVaMoEModel)
    held = drawn(module, batches(measured.split), SAMPLE, measured.data.split_rows(measured.split))
    train = drawn(module, batches("train"), SAMPLE, module.reviews)
    numbers: Numbers = {
        "probability": float(column(records, PROBABILITY).mean()),
        "stability": dict(zip(map(str, NOISE), column(records, STABILITY).mean(0).tolist(), strict=True)),
        "parts": {name: quality(module, found, measured.seed) for name, found in
                  (("train", train), (measured.split, held))},
        "bic": bic(train.mean_NZ, measured.seed),
        "agreement": agreement(train.mean_NZ, module.config.pairs.clusters, measured.seed),
        "users": several(module, train),
    }  # fmt: skip
    users = measured.data.users
    if "cluster" in users.column_names:
        numbers["planted"] = planted(np.asarray(users["cluster"].to_numpy()), held, assigned(module, held))
    measured.numbers["clusters"] = numbers
    measured.numbers["evidence"] = evidence.measure(measured)
    return [*notes(numbers, measured.split), *evidence_report.notes(measured.numbers["evidence"])]


@torch.no_grad()
def assigned(module: GaVaMoEModel, found: EncodedSample) -> np.ndarray:
    """Return the cluster of each latent, (N,)."""
    return module.prior.cluster(_on(module, found.mean_NZ)).cpu().numpy()


def _on(module: GaVaMoEModel, mean_NZ: np.ndarray) -> Tensor:
    return torch.from_numpy(mean_NZ).to(module.prior.mean_CZ.device)


@torch.no_grad()
def quality(module: GaVaMoEModel, found: EncodedSample, seed: int) -> Numbers:
    """Return how well the prior's clusters hold for a sample of pairs.

    `silhouette` is how much nearer latents are to their own cluster than to the next one, from -1 to 1; `likelihood`
    the mean log-density of a latent under the prior; `explained` the share of the ratings' variance that lies between
    clusters; `size` and `rating` are of each cluster.
    """
    from sklearn.metrics import silhouette_score

    cluster_N, count = assigned(module, found), module.config.pairs.clusters
    numbers: Numbers = {"pairs": len(cluster_N), "silhouette": None, "explained": None}
    numbers["likelihood"] = float(module.prior.log_joint(_on(module, found.mean_NZ)).logsumexp(1).mean())
    judged = slice(0, JUDGED)
    if 1 < len(np.unique(cluster_N[judged])) < len(cluster_N[judged]):
        numbers["silhouette"] = float(silhouette_score(found.mean_NZ[judged], cluster_N[judged], random_state=seed))
    size_C = np.bincount(cluster_N, minlength=count)
    rating_C = np.bincount(cluster_N, found.rating_N, minlength=count) / np.maximum(size_C, 1)
    spread = float(found.rating_N.astype(np.float64).var())
    if spread > 0:
        mean = found.rating_N.mean(dtype=np.float64)
        numbers["explained"] = float((size_C * (rating_C - mean) ** 2).sum() / len(cluster_N) / spread)
    numbers["size"] = size_C.tolist()
    numbers["rating"] = [float(value) if size else None for value, size in zip(rating_C, size_C, strict=True)]
    return numbers


def bic(mean_NZ: np.ndarray, seed: int) -> dict[str, float]:
    """Return the Bayesian information criterion of mixtures of 1 to 8 components, lower is better."""
    most = min(MOST_COMPONENTS, len(mean_NZ) // 2)
    return {str(k): float(fitted(mean_NZ, k, seed).bic(mean_NZ.astype(np.float64))) for k in range(1, most + 1)}


def agreement(mean_NZ: np.ndarray, components: int, seed: int) -> Numbers:
    """Return how far mixtures that are fitted to two halves of a sample agree on all of it.

    `adjusted_rand` is 1 where they make the same clusters and 0 where they agree by chance; `same` is the share of
    pairs in the same cluster once clusters are matched.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score

    if len(mean_NZ) < 2 * components:
        return {}
    labels = [fitted(mean_NZ[half::2], components, seed + half).predict(mean_NZ.astype(np.float64)) for half in (0, 1)]
    table_CC = np.zeros((components, components))
    np.add.at(table_CC, tuple(labels), 1)
    matched = linear_sum_assignment(-table_CC)
    return {
        "adjusted_rand": float(adjusted_rand_score(*labels)),
        "same": float(table_CC[matched].sum() / len(mean_NZ)),
    }


def several(module: GaVaMoEModel, found: EncodedSample) -> float | None:
    """Return the share of users with pairs in several clusters, among those of the sample with several pairs."""
    user, place_N, count_U = np.unique(found.user_N, return_inverse=True, return_counts=True)
    there_UC = np.zeros((len(user), module.config.pairs.clusters), bool)
    there_UC[place_N, assigned(module, found)] = True
    many_U = there_UC.sum(1) > 1
    return float(many_U[count_U > 1].mean()) if (count_U > 1).any() else None


def planted(cluster_U: np.ndarray, found: EncodedSample, cluster_N: np.ndarray) -> Numbers:
    """Return how well clusters tell the planted clusters of users: 1 is all, 0 is nothing beyond chance."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    truth_N = cluster_U[found.user_N]
    return {
        "adjusted_rand": float(adjusted_rand_score(truth_N, cluster_N)),
        "adjusted_mutual_information": float(adjusted_mutual_info_score(truth_N, cluster_N)),
    }


def notes(numbers: Numbers, split: str) -> list[str]:
    """Return the numbers in words."""
    held, train = numbers["parts"][split], numbers["parts"]["train"]
    told = [f"clusters: {numbers['stability']['1.0']:.1%} of {split}'s pairs keep theirs under their own noise"]
    if held["explained"] is not None and train["explained"] is not None:
        told.append(
            f"clusters explain {held['explained']:.1%} of the ratings' variance on {split}, {train['explained']:.1%} "
            "on train"
        )
    if numbers["agreement"]:
        told.append(f"mixtures fitted to two halves of a sample agree on {numbers['agreement']['same']:.1%} of it")
    if "planted" in numbers:
        told.append(
            f"planted clusters are found with an adjusted Rand index of {numbers['planted']['adjusted_rand']:.3f}"
        )
    return told


def sections(measured: Measured) -> list[Section]:
    """Return the tables and figures of clusters, gates and experts."""
    numbers = measured.numbers.get("clusters")
    if not numbers:
        return []
    parts: dict[str, Numbers] = numbers["parts"]
    head = ["cluster", *(f"{what} of {name}" for name in parts for what in ("pairs", "mean rating"))]
    rows = []
    for cluster in range(len(next(iter(parts.values()))["size"])):
        cells = [str(cluster)]
        for part in parts.values():
            cells += [f"{part['size'][cluster]:,}", number(part["rating"][cluster], 2)]
        rows.append(cells)
    who = Table(head=head, rows=rows, caption="Of a sample; ids are those of the column `cluster_id` of records.")
    names = {
        "silhouette": "silhouette, -1 to 1",
        "likelihood": "mean log-density under the prior",
        "explained": "share of the ratings' variance between clusters",
    }
    worth = Table(
        head=["", *parts],
        rows=[[words, *(number(part[n], 3) for part in parts.values())] for n, words in names.items()],
    )
    stable = Table(
        head=["noise, in standard deviations of a pair's latent", "pairs that keep their cluster"],
        rows=[[scale, f"{share:.1%}"] for scale, share in numbers["stability"].items()],
    )
    k = [float(name) for name in numbers["bic"]]
    curve = Lines(
        title="BIC by number of components", x_axis="components", y_axis="BIC, lower is better",
        series=[LineSeries(name="", x=k, y=list(numbers["bic"].values()))],
    )  # fmt: skip
    note = (
        "A cluster is the most probable component of the prior at the mean of a pair's latent; strangers are of the "
        "heaviest one. What holds on train alone is memory."
    )
    told = Text(text="; ".join(notes(numbers, measured.split)) + ".")
    clusters = Section(title="Clusters of pairs", parts=[Text(text=note, tone="note"), told, who, worth, stable, curve])
    return [clusters, *evidence_report.sections(measured.numbers["evidence"])]
