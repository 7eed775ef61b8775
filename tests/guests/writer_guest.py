"""A writer as someone outside the package would write it: what a user would say of an item, and how it is rated.

First a variational autoencoder learns latents of users and items; between the phases a Gaussian mixture is fitted to
the users' latents; then a small language model, whose experts are gated by the user's cluster, learns to write. Users
of a cluster care about one feature, which the text names, and the item's quality there decides the adjective and the
rating. Letters: B examples, T positions, N tokens of all examples, W words of the vocabulary, U users, I items, F width
of a vector, Z width of a latent, C clusters, D width.

TOML and data below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field as Key
from torch import Tensor, nn

from rec.batch import Batch, Column, Columns
from rec.data.schema import Events, Field, RawData, Source, Workplace
from rec.data.views.view import SPLITS
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.writing import Writing
from rec.moe.experts import FeedForwardExperts
from rec.moe.layer import Mixed, MixtureOfExperts, is_spread, routings
from rec.moe.routers import ClusterRouter
from rec.nn.decoding import write
from rec.seeds import generator
from rec.strict import Strict
from rec.systems.api import Phase, PhaseFeed, System
from rec.systems.capabilities import Decoding, Rater, Token, Traced, Writer
from rec.terms import Term

TOML = """
system = "tests.guests.writer_guest:Reviewer"
out = "run"

[model]
width = 32

[data]
root = "data"
source = "tests.guests.writer_guest:Written"
split = { protocol = "given" }
shard_rows = 128

[train]
batch_size = 32
epochs = 6
learning_rate = 0.01

[train.phases.represent]
epochs = 12

[evaluate]
bootstrap = 100

[tune]
trials = 2
scheduler = "none"

[tune.space]
"model.hidden" = { choice = [16, 32] }

[expect]
bleu4 = 90.0
rmse = 0.6
"""
USERS, ITEMS, LATENT, FEATURE_WIDTH = 48, 40, 4, 12
FEATURES = ("price", "sound", "design", "battery")
OPENINGS = ("for the money ,", "when i play music ,", "on my desk ,", "after a long week ,")
NOUNS = ("speaker", "radio", "phone", "player")
ADJECTIVES = ("poor", "fine", "great")
END = "<eos>"
WORDS = tuple(
    dict.fromkeys([END, *" ".join(OPENINGS).split(), "the", *FEATURES, "of", "this", *NOUNS, "is", *ADJECTIVES, "."])
)
NUMBER = {word: number for number, word in enumerate(WORDS)}


class ReviewsConfig(Strict):
    """The keys of `[data.read]`."""

    each: int = Key(20, ge=1)
    """Reviews of every user."""
    seed: int = 0


class Written(Source):
    """Generated reviews: eight of ten of every user train, one validates, one tests."""

    Config = ReviewsConfig
    config: ReviewsConfig

    def open(self, place: Workplace) -> RawData:
        return reviews(self.config.each, self.config.seed)


def reviews(each: int, seed: int) -> RawData:
    """Return generated reviews and what is known of users and items."""
    rng = generator(seed, "reviews")
    cluster_U = np.arange(USERS) % len(FEATURES)
    quality_IQ = rng.integers(0, len(ADJECTIVES), (ITEMS, len(FEATURES)))
    noun_I = rng.integers(0, len(NOUNS), ITEMS)
    centre_CF = rng.standard_normal((len(FEATURES), FEATURE_WIDTH)) * 1.5
    user_UF = centre_CF[cluster_U] + 0.3 * rng.standard_normal((USERS, FEATURE_WIDTH))
    known_IK = np.concatenate([quality_IQ - 1.0, np.eye(len(NOUNS))[noun_I]], 1)
    turn_KF = np.linalg.qr(rng.standard_normal((FEATURE_WIDTH, known_IK.shape[1])))[0].T
    item_IF = 2 * known_IK @ turn_KF + 0.05 * rng.standard_normal((ITEMS, FEATURE_WIDTH))
    bias_U = rng.uniform(-0.5, 0.5, USERS)
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for user in range(USERS):
        for place, item in enumerate(rng.choice(ITEMS, each, replace=False).tolist()):
            cluster = int(cluster_U[user])
            quality = int(quality_IQ[item, cluster])
            words = [OPENINGS[cluster], "the", FEATURES[cluster], "of this", NOUNS[noun_I[item]], "is"]
            rating = 3 + 1.4 * (quality - 1) + bias_U[user] + 0.15 * rng.standard_normal()
            row = {
                "user": f"user {user}",
                "item": f"item {item}",
                "rating": float(np.clip(rating, 1, 5)),
                "feature": FEATURES[cluster],
                "opinion": ADJECTIVES[quality],
            }
            split = SPLITS[max(0, place % 10 - 7)]
            row["part"] = SPLITS.index(split)
            rows[split].append({**row, "text": " ".join([*words, ADJECTIVES[quality], "."])})
    events = [found[i] for found in rows.values() for i in rng.permutation(len(found))]
    return RawData(
        records=Events(
            table=pa.Table.from_pylist(events),
            subject=Field("user", "user"),
            fields=(Field("item", "item"), Field("rating"), Field("text"), Field("feature"), Field("opinion")),
            part="part",
            name="generated reviews",
        ),
        entities={
            "user": pa.table({"id": [f"user {i}" for i in range(USERS)], "cluster": cluster_U}),
            "item": pa.table({"id": [f"item {i}" for i in range(ITEMS)]}),
        },
        arrays={"user_vector": user_UF.astype(np.float32), "item_vector": item_IF.astype(np.float32)},
        synthetic=True,
    )


class Config(Strict):
    """The keys of `[model]`."""

    width: int = Key(32, ge=4)
    hidden: int = Key(32, ge=1)
    """Hidden width of an expert."""
    clusters: int = Key(4, ge=1)
    experts: int = Key(4, ge=1)
    experts_per_row: int = Key(2, ge=1)
    balance_weight: float = Key(0.01, ge=0)
    divergence_weight: float = Key(0.05, ge=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews(Batch):
    """Some pairs of user and item, with what was written and how it was rated."""

    user_B: Tensor
    item_B: Tensor
    rating_B: Tensor
    word_BT: Tensor
    """The words that were written, the end word behind them, -1 where a text is shorter."""
    text: tuple[str, ...]
    feature: tuple[str, ...]
    opinion: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.user_B)

    def owners(self) -> Tensor:
        """Return the example of each token."""
        return (self.word_BT >= 0).nonzero()[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the model makes of a batch; what the phase does not use is None."""

    vector_BF: Tensor
    rebuilt_BF: Tensor | None = None
    mean_BZ: Tensor | None = None
    spread_BZ: Tensor | None = None
    """Logarithm of the variance."""
    score_NW: Tensor | None = None
    mixed: Mixed | None = None
    cluster_N: Tensor | None = None
    rating_B: Tensor | None = None


class Autoencoder(nn.Module):
    """A variational autoencoder of one kind of vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, 32), nn.GELU(), nn.Linear(32, width))

    def latent(self, vector_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance, (B, Z) each."""
        mean_BZ, spread_BZ = self.encoder(vector_BF).chunk(2, 1)
        return mean_BZ, spread_BZ


class Language(nn.Module):
    """One causal block: attention, then experts gated by the user's cluster."""

    def __init__(self, config: Config, given: int, most: int, seed: int) -> None:
        super().__init__()
        width = config.width
        self.given = nn.Linear(given, width)
        self.word = nn.Embedding(len(WORDS), width)
        self.place = nn.Parameter(torch.randn(most + 1, width) * 0.1)
        self.before, self.between, self.after = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mixture = MixtureOfExperts(
            ClusterRouter(width, config.clusters, config.experts, config.experts_per_row),
            FeedForwardExperts(width, config.hidden, config.experts, seed=seed),
        )
        self.out = nn.Linear(width, len(WORDS))

    def forward(self, given_BF: Tensor, word_BT: Tensor, cluster_B: Tensor, kept_BT: Tensor) -> tuple[Tensor, Mixed]:
        """Return the scores of the word at each kept position, (N, W); words stand one position behind."""
        start_B1D = self.given(given_BF)[:, None]
        state_BTD = torch.cat([start_B1D, self.word(word_BT[:, :-1].clamp(min=0))], 1) + self.place[: word_BT.shape[1]]
        length = word_BT.shape[1]
        later_TT = torch.ones(length, length, dtype=torch.bool, device=word_BT.device).triu(1)
        normal_BTD = self.before(state_BTD)
        state_BTD = (
            state_BTD + self.attend(normal_BTD, normal_BTD, normal_BTD, attn_mask=later_TT, need_weights=False)[0]
        )
        # The pair is told to every position: what experts do with it depends on the cluster.
        state_ND = (state_BTD + start_B1D)[kept_BT]
        mixed = self.mixture(self.between(state_ND), cluster_B[:, None].expand_as(word_BT)[kept_BT])
        return self.out(self.after(state_ND + mixed.y_ND)), mixed


class ReviewerModel(nn.Module):
    """Autoencoders of users and items, the mixture of users' latents, language and ratings."""

    phase = ""
    """The phase of training, empty where all of it counts."""
    MOST = 16
    """Longest text in words, the end word included."""

    def __init__(self, config: Config, user_UF: Tensor, item_IF: Tensor, seed: int) -> None:
        super().__init__()
        self.user_UF: Tensor
        self.item_IF: Tensor
        self.register_buffer("user_UF", user_UF)
        self.register_buffer("item_IF", item_IF)
        self.mean_CZ: Tensor
        self.variance_CZ: Tensor
        self.share_C: Tensor
        self.register_buffer("mean_CZ", torch.randn(config.clusters, LATENT))
        self.register_buffer("variance_CZ", torch.ones(config.clusters, LATENT))
        self.register_buffer("share_C", torch.full((config.clusters,), 1 / config.clusters))
        given = LATENT + item_IF.shape[1]
        self.users, self.items = Autoencoder(user_UF.shape[1]), Autoencoder(item_IF.shape[1])
        self.language = Language(config, given, self.MOST, seed)
        self.rate = nn.Sequential(nn.Linear(given + user_UF.shape[1], 64), nn.GELU(), nn.Linear(64, 1))

    def forward(self, batch: Reviews) -> Seen:
        """Return what the phase needs of a batch."""
        vector_BF = torch.cat([self.user_UF[batch.user_B], self.item_IF[batch.item_B]], 1)
        user_BZ, user_spread_BZ = self.users.latent(self.user_UF[batch.user_B])
        found = Seen(vector_BF=vector_BF)
        if self.phase != "write":
            item_BZ, item_spread_BZ = self.items.latent(self.item_IF[batch.item_B])
            mean_BZ, spread_BZ = torch.cat([user_BZ, item_BZ], 1), torch.cat([user_spread_BZ, item_spread_BZ], 1)
            drawn_BZ = mean_BZ + torch.randn_like(mean_BZ) * (0.5 * spread_BZ).exp() if self.training else mean_BZ
            user_part_BZ, item_part_BZ = drawn_BZ.split(LATENT, 1)
            rebuilt_BF = torch.cat([self.users.decoder(user_part_BZ), self.items.decoder(item_part_BZ)], 1)
            found = Seen(vector_BF=vector_BF, rebuilt_BF=rebuilt_BF, mean_BZ=mean_BZ, spread_BZ=spread_BZ)
            if self.phase:
                return found
        kept_BT, cluster_B = batch.word_BT >= 0, self.clusters(user_BZ)
        score_NW, mixed = self.language(self.given(batch), batch.word_BT, cluster_B, kept_BT)
        return replace(
            found,
            score_NW=score_NW,
            mixed=mixed,
            cluster_N=cluster_B[batch.owners()],
            rating_B=self.ratings(batch),
        )

    def given(self, batch: Reviews) -> Tensor:
        """Return what language and ratings are told of each pair, (B, Z + F)."""
        return torch.cat([self.users.latent(self.user_UF[batch.user_B])[0], self.item_IF[batch.item_B]], 1)

    def ratings(self, batch: Reviews) -> Tensor:
        """Return the rating of each pair, (B,)."""
        return 3 + self.rate(torch.cat([self.given(batch), self.user_UF[batch.user_B]], 1))[:, 0]

    def clusters(self, latent_BZ: Tensor) -> Tensor:
        """Return the most probable part of the mixture for each user, int64 (B,)."""
        distance_BCZ = (latent_BZ[:, None] - self.mean_CZ) ** 2 / self.variance_CZ + self.variance_CZ.log()
        return (self.share_C.log() - 0.5 * distance_BCZ.sum(2)).argmax(1)


def fit_mixture(module: nn.Module, feed: PhaseFeed) -> None:
    """Fit the mixture to the latents of all ranks' users, and keep it in the module's buffers."""
    assert isinstance(module, ReviewerModel)
    own: dict[int, np.ndarray] = {}
    with torch.no_grad():
        for batch, counts in feed.rows("train"):
            if counts:
                latent_BZ = module.users.latent(module.user_UF[batch.user_B])[0]
                own |= dict(zip(batch.user_B.tolist(), latent_BZ.cpu().numpy(), strict=True))
    every = {user: latent for part in feed.gather(own) for user, latent in part.items()}

    def fit() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from sklearn.mixture import GaussianMixture

        latent_UZ = np.stack([every[user] for user in sorted(every)]).astype(np.float64)
        parts = len(module.share_C)
        found = GaussianMixture(parts, covariance_type="diag", n_init=5, reg_covar=1e-3, random_state=0).fit(latent_UZ)
        return found.means_, found.covariances_, found.weights_

    for buffer, value in zip((module.mean_CZ, module.variance_CZ, module.share_C), feed.once(fit), strict=True):
        buffer.copy_(torch.as_tensor(value))


@dataclass
class Read:
    """What was read of each row: the pair, its cluster, the words so far and a place for the next."""

    given_BF: Tensor
    cluster_B: Tensor
    word_BT: Tensor

    def reorder(self, row_R: Tensor) -> None:
        """Hold these rows."""
        for name in ("given_BF", "cluster_B", "word_BT"):
            setattr(self, name, getattr(self, name)[row_R])


class Reader:
    """Asks the language model for one word at a time; a model this small keeps no keys and values."""

    def __init__(self, module: ReviewerModel) -> None:
        self.module = module

    def start(self, batch: Reviews) -> tuple[Tensor, Read]:
        """Return the scores of the first words."""
        given_BF = self.module.given(batch)
        blank_B1 = torch.zeros(len(batch), 1, dtype=torch.int64, device=given_BF.device)
        return self._scores(Read(given_BF, self.module.clusters(given_BF[:, :LATENT]), blank_B1))

    def step(self, token_R: Tensor, state: Read) -> tuple[Tensor, Read]:
        """Return the scores of the words after these."""
        state.word_BT = torch.cat([state.word_BT[:, :-1], token_R[:, None], torch.zeros_like(token_R)[:, None]], 1)
        return self._scores(state)

    def _scores(self, state: Read) -> tuple[Tensor, Read]:
        last_BT = torch.zeros_like(state.word_BT, dtype=torch.bool)
        last_BT[:, -1] = True
        return self.module.language(state.given_BF, state.word_BT, state.cluster_B, last_BT)[0], state


def words_of(texts: Sequence[str]) -> Tensor:
    """Return the numbers of the texts' words, the end word behind them, -1 where a text is shorter, (B, T)."""
    words = [[*(NUMBER[word] for word in text.split()), NUMBER[END]][: ReviewerModel.MOST] for text in texts]
    word_BT = torch.full((len(words), max(map(len, words), default=1)), -1)
    for row, found in enumerate(words):
        word_BT[row, : len(found)] = torch.tensor(found)
    return word_BT


class Reviewer(System[Reviews, ReviewerModel], Writer[Reviews, ReviewerModel], Rater[Reviews, ReviewerModel]):
    """Writes what a user would say of an item, and rates it."""

    Config = Config
    columns = (
        Column("user", "int64", entity="user"),
        Column("item", "int64", entity="item"),
        Column("rating", "float32", label=True),
        Column("text", "str", label=True),
        Column("feature", "str", label=True),
        Column("opinion", "str", label=True),
    )
    tables = ("user_vector", "item_vector")
    view = "records"
    tasks = (Writing(decoding=Decoding(max_tokens=ReviewerModel.MOST)), Rating())
    config: Config

    def model(self) -> ReviewerModel:
        """Return a freshly initialised model."""
        user_UF, item_IF = (torch.from_numpy(np.array(self.static[name])) for name in self.tables)
        return ReviewerModel(self.config, user_UF, item_IF, self.seed)

    def phases(self) -> tuple[Phase, ...]:
        """Return the autoencoders' phase, and that of language and ratings, before which users are clustered."""
        return (
            Phase(
                name="represent",
                trains=("users.*", "items.*"),
                terms=("rebuilt", "divergence"),
                batch_size=64,
                learning_rate=0.005,
                optimiser="adam",
                metric="val_loss",
                patience=5,
            ),
            Phase(
                name="write",
                trains=("language.*", "rate.*"),
                terms=("text", "rating", "balance"),
                before=fit_mixture,
            ),
        )

    def collate(self, rows: Columns) -> Reviews:
        """Return the batch for these rows; labels may be empty."""
        texts = tuple(str(text or "") for text in rows["text"])
        return Reviews(
            user_B=torch.tensor(np.asarray(rows["user"], np.int64)),
            item_B=torch.tensor(np.asarray(rows["item"], np.int64)),
            rating_B=torch.tensor(np.asarray(rows["rating"], np.float32)),
            word_BT=words_of(texts),
            text=texts,
            feature=tuple(str(feature or "") for feature in rows["feature"]),
            opinion=tuple(str(opinion or "") for opinion in rows["opinion"]),
        )

    def loss(self, model: Callable[[Reviews], Any], batch: Reviews) -> dict[str, Term]:
        """Return the autoencoders' terms, and those of words, ratings and the gates, as the phase has them."""
        seen: Seen = model(batch)
        module: Any = getattr(model, "module", model)
        terms: dict[str, Term] = {}
        if seen.rebuilt_BF is not None and seen.mean_BZ is not None and seen.spread_BZ is not None:
            error = ((seen.rebuilt_BF - seen.vector_BF) ** 2).sum()
            divergence = 0.5 * (seen.mean_BZ**2 + seen.spread_BZ.exp() - 1 - seen.spread_BZ).sum()
            terms["rebuilt"] = Term(error, len(batch))
            terms["divergence"] = Term(divergence, len(batch), self.config.divergence_weight)
        if seen.score_NW is not None and seen.mixed is not None and seen.rating_B is not None:
            word_N = batch.word_BT[batch.word_BT >= 0]
            terms["text"] = Term(nn.functional.cross_entropy(seen.score_NW, word_N, reduction="sum"), len(word_N))
            terms["rating"] = Term(((seen.rating_B - batch.rating_B) ** 2).sum(), len(batch))
            terms["balance"] = module.language.mixture.gate_balance_term(
                seen.mixed, seen.cluster_N, self.config.clusters, self.config.balance_weight
            )
        return terms

    @torch.no_grad()
    def write(
        self,
        module: ReviewerModel,
        batch: Reviews,
        decoding: Decoding,
        *,
        all_done: Callable[[bool], bool] = bool,
        heard: Callable[[Sequence[str]], None] | None = None,
    ) -> list[str]:
        """Return the text of each example; what is drawn depends on the pair, not on its company."""
        pairs = zip(batch.user_B.tolist(), batch.item_B.tolist(), strict=True)
        return write(
            Reader(module),
            batch,
            replace(decoding, max_tokens=min(decoding.max_tokens, module.MOST)),
            names=[f"{user}/{item}" for user, item in pairs],
            end=NUMBER[END],
            spell=lambda words: " ".join(WORDS[word] for word in words),
            stays=is_spread(module),
            all_done=all_done,
            heard=heard,
        )

    def nll(self, module: ReviewerModel, batch: Reviews) -> tuple[Tensor, Tensor]:
        """Return the negative log likelihood of each text, and its words with the end."""
        kept_BT, given_BF = batch.word_BT >= 0, module.given(batch)
        score_NW, _ = module.language(given_BF, batch.word_BT, module.clusters(given_BF[:, :LATENT]), kept_BT)
        nll_N = nn.functional.cross_entropy(score_NW, batch.word_BT[kept_BT], reduction="none")
        return nll_N.new_zeros(len(batch)).index_add_(0, kept_BT.nonzero()[:, 0], nll_N), kept_BT.sum(1)

    @torch.no_grad()
    def trace(self, module: ReviewerModel, batch: Reviews, texts: Sequence[str]) -> list[Traced]:
        """Return the user's cluster, and the experts of each word."""
        word_BT = words_of(texts).to(batch.user_B.device)
        with routings(module) as heard:
            module(replace(batch, word_BT=word_BT))
        (routing,) = heard.values()
        experts, found = iter(routing.experts()), []
        cluster_B = module.clusters(module.users.latent(module.user_UF[batch.user_B])[0])
        for words, cluster in zip(word_BT.tolist(), cluster_B.tolist(), strict=True):
            tokens = [Token(text=WORDS[word], experts={"language": next(experts)}) for word in words if word >= 0]
            found.append(Traced(gate=f"cluster {cluster}", tokens=tokens))
        return found

    def references(self, batch: Reviews) -> list[str]:
        """Return what was written."""
        return list(batch.text)

    def features(self, batch: Reviews) -> list[str]:
        """Return the feature that each text is about."""
        return list(batch.feature)

    def all_features(self) -> tuple[str, ...]:
        """Return every feature."""
        return FEATURES

    def opinions(self, batch: Reviews) -> list[str]:
        """Return what each text says of its feature."""
        return list(batch.opinion)

    def all_opinions(self) -> tuple[str, ...]:
        """Return every opinion."""
        return ADJECTIVES

    def written(self, batch: Reviews) -> Mapping[str, Tensor]:
        """Return users and items."""
        return self.rated(batch)

    def ratings(self, module: ReviewerModel, batch: Reviews) -> Tensor:
        """Return the predicted rating of each pair, (B,)."""
        return module.ratings(batch)

    def given_ratings(self, batch: Reviews) -> Tensor:
        """Return the rating that was given, (B,)."""
        return batch.rating_B

    def scale(self) -> tuple[float, float]:
        """Return 1 and 5."""
        return 1.0, 5.0

    def rated(self, batch: Reviews) -> Mapping[str, Tensor]:
        """Return users and items."""
        return {"user": batch.user_B, "item": batch.item_B}

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns."""
        texts = [" ".join(rng.choice(WORDS[1:], 1 + row % 5)) for row in range(rows)]
        columns = {
            "user": rng.integers(0, USERS, rows),
            "item": rng.integers(0, ITEMS, rows),
            "rating": rng.uniform(1, 5, rows).astype(np.float32),
            "text": np.array(texts, dtype=object),
            "feature": rng.choice(np.array(FEATURES, dtype=object), rows),
            "opinion": rng.choice(np.array(ADJECTIVES, dtype=object), rows),
        }
        sizes = {"user_vector": USERS, "item_vector": ITEMS}
        vectors = {n: rng.standard_normal((s, FEATURE_WIDTH)).astype(np.float32) for n, s in sizes.items()}
        return columns, vectors
