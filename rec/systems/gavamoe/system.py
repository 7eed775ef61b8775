"""GaVaMoE: ratings and written reasons, by gates that clusters of pairs choose.

Letters: B reviews, U users, I items, R levels of ratings, C clusters, M width of an item's vector.
Source: Tang et al. 2024 (GaVaMoE, arXiv 2410.11841) and, where the paper is silent, its published code, with the
departures that `docs/gavamoe.md` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.batch import Column, Columns
from rec.data.views.sentences import texts_of
from rec.errors import ConfigError, DataError
from rec.evaluation.task import Measured
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.writing import Writing
from rec.moe.config import LOSS_TERMS
from rec.moe.layer import is_spread
from rec.nn.decoding import write as write_texts
from rec.nn.language.memory import TextSize, language_memory
from rec.nn.language.tokens import LanguageTokens
from rec.nn.language.words import Vocabulary
from rec.nn.memory import Memory
from rec.sections import Section
from rec.systems.api import Phase, System, Wanted
from rec.systems.capabilities import Decoding, Reporter, Traced, Truth
from rec.systems.gavamoe import report
from rec.systems.gavamoe.batch import COLUMNS, ReviewBatch, collated
from rec.systems.gavamoe.config import GaVaMoEConfig, table_of
from rec.systems.gavamoe.mixture import fit
from rec.systems.gavamoe.model import MIXTURE, VAE, WRITER, GaVaMoEModel, GaVaMoEOutput, ReviewStatistics, assign
from rec.systems.gavamoe.prompt import PairPrompter
from rec.systems.gavamoe.samples import sample
from rec.systems.gavamoe.trace import trace
from rec.systems.review_writer import ReviewWriter, words_of
from rec.terms import Term
from rec.train.config import ParallelConfig, PhaseConfig, TrainConfig

MOST_LEVELS = 100
"""Different ratings that are told apart."""
COUNTS = ("user_count", "item_count", "rating_level", "rating_count")
TEXTS = ("tokenizer", "sentence_features", "sentence_opinions")


class GaVaMoE(
    System[ReviewBatch, GaVaMoEModel],
    ReviewWriter[ReviewBatch, GaVaMoEModel],
    Reporter[ReviewBatch, GaVaMoEModel],
):
    """Explainable recommender."""

    Config = GaVaMoEConfig
    config: GaVaMoEConfig
    columns = COLUMNS
    view = "sentences"
    tasks = (Writing(), Rating())
    told_columns = (report.CLUSTER,)
    loss_terms = LOSS_TERMS | {
        "text_nll": "negative logarithm of the probability of a word",
        "rating_ce": "cross-entropy of ratings",
        "word_ce": "cross-entropy of the words of a pair's texts",
        "kl": "divergence of a pair's latent vector from the mixture of clusters",
    }

    def __init__(self, config: Any, tables: Mapping[str, np.ndarray], seed: int = 0) -> None:
        super().__init__(config, tables, seed)
        least, reviews = config.pairs.clusters, int(np.asarray(tables["user_count"]).sum())
        if least > (most := min(reviews, config.pairs.fit_sample)):
            raise ConfigError(
                f"model.pairs.clusters: {least}, but the mixture has {most:,} pairs (training has {reviews:,}, "
                f"fit_sample is {config.pairs.fit_sample:,}); lower it"
            )
        self.tasks = (Writing(decoding=Decoding(max_tokens=config.language.max_tokens)), Rating())

    @classmethod
    def columns_for(cls, config: Any) -> tuple[Column, ...]:
        """Return the columns; a request tells the feature where the prompt does."""
        told = config.prompt.feature
        return tuple(replace(c, label=c.label and not (told and c.name == "feature")) for c in cls.columns)

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        words = ("sentence_words",) * bool(config.pairs.words)
        return (*COUNTS, *TEXTS, *words, *map(table_of, config.pairs.item_vectors))

    @classmethod
    def wanted_by(cls, config: Any, table: str) -> Wanted | None:
        """Return which key asks for a table."""
        if table == "sentence_words":
            return Wanted("model.pairs.words", "model.pairs.words=0")
        return None if table in COUNTS + TEXTS else Wanted("model.pairs.item_vectors", "model.pairs.item_vectors=[]")

    @cached_property
    def level_R(self) -> np.ndarray:
        """Every rating, ascending.

        Raises:
            DataError: there are too many to be told apart.
        """
        level_R = np.asarray(self.static["rating_level"])
        if len(level_R) > MOST_LEVELS:
            raise DataError(
                f"rating: {len(level_R):,} different values, expected at most {MOST_LEVELS}: GaVaMoE predicts the "
                "probability of each; round them"
            )
        return level_R

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """The words that latents tell, None where they tell none."""
        most = self.config.pairs.words
        return Vocabulary(texts_of(self.static["sentence_words"]), most) if most else None

    @cached_property
    def prompter(self) -> PairPrompter:
        """What makes prompts."""
        tokens = LanguageTokens.from_table(self.static["tokenizer"])
        return PairPrompter(self.config.prompt, tokens, self.config.language.max_tokens)

    def model(self) -> GaVaMoEModel:
        """Return a freshly initialised model."""
        count = {name: torch.from_numpy(np.array(self.static[name])) for name in COUNTS}
        vectors = {name: np.array(self.static[table_of(name)]) for name in self.config.pairs.item_vectors}
        known = ReviewStatistics(
            user_count_U=count["user_count"],
            item_count_I=count["item_count"],
            level_R=torch.from_numpy(self.level_R.copy()),
            level_count_R=count["rating_count"],
            words=len(self.vocabulary) if self.vocabulary else 0,
            features={name: torch.from_numpy(table_IM) for name, table_IM in vectors.items()},
        )
        return GaVaMoEModel(self.config, known, self.prompter, self.seed)

    def phases(self) -> tuple[Phase, ...]:
        """Return the deterministic autoencoder, the variational one with the mixture as its prior, and the writer."""
        pairs = self.config.pairs
        encoder = ["table_*", "mean.*", "decoder.*"]
        encoder += ["layers.*"] * bool(pairs.layers) + ["project.*"] * bool(pairs.item_vectors)
        encoder += ["bias_*"] * pairs.biases + ["word_decoder.*"] * bool(pairs.words)
        words = ("word_ce",) * bool(pairs.words)
        prior = ["mean_CZ", "log_variance_CZ", *(["weight_C"] if pairs.clusters > 1 else [])]
        before = [f"pairs.{name}" for name in encoder]
        return (
            Phase(
                name=VAE,
                trains=tuple(before),
                terms=("rating_ce", *words),
                epochs=50,
                optimiser="adam",
                metric="val_loss",
                patience=5,
            ),
            Phase(
                name=MIXTURE,
                trains=(*before, "pairs.log_variance.*", *(f"prior.{name}" for name in prior)),
                terms=("rating_ce", *words, "kl"),
                epochs=30,
                optimiser="adam",
                metric="val_loss",
                patience=5,
                before=fit,
            ),
            Phase(
                name=WRITER,
                trains=("writer.*", *(["own.*"] if self.config.prompt.own_vectors else [])),
                terms=("text_nll", *(["balance/*"] if self.config.experts.balance_weight else [])),
                metric="val_loss/text_nll",
                before=assign,
            ),
        )

    def start_epoch(self, module: GaVaMoEModel, epoch: int) -> None:
        """Tell the module its epoch, which the weight of the divergence follows."""
        module.epoch = epoch

    def collate(self, rows: Columns) -> ReviewBatch:
        """Return the batch of these rows; labels may be empty."""
        return collated(rows, self.level_R, self.vocabulary)

    def lengths(self, rows: Columns) -> np.ndarray:
        """Return how many tokens each prompt and text have in the writer's phase."""
        words = words_of(rows)
        prompt = self.prompter.prompt(list(rows["rating"]), words["feature"], words["text"])
        length_BX = [(token >= 0).sum(1) for token in (*prompt.token_MBP[:1], prompt.answer_BA)]
        return (length_BX[0] + length_BX[1]).numpy()

    def loss(self, model: Callable[[ReviewBatch], Any], batch: ReviewBatch) -> dict[str, Term]:
        """Return the cross entropy of ratings, the divergence from the prior, and the parts of the writer's loss.

        Each as far as the phase has it. Validation weighs the divergence as the first epoch does, so that losses of
        epochs compare.
        """
        seen: GaVaMoEOutput = model(batch)
        module: Any = getattr(model, "module", model)
        pairs, terms = self.config.pairs, {}
        scale = 1.0 if module.phase == VAE else pairs.scale
        if seen.score_BR is not None:
            error = torch.nn.functional.cross_entropy(seen.score_BR.float(), batch.level_B, reduction="sum")
            terms["rating_ce"] = Term(error, len(batch), scale)
        if seen.word_nll_B is not None:
            terms["word_ce"] = Term(seen.word_nll_B.sum(), batch.word_count, scale * pairs.words_weight)
        if seen.kl_B is not None:
            beta = pairs.beta_at(module.epoch if module.training else 0)
            terms["kl"] = Term(seen.kl_B.sum(), len(batch), scale * beta)
        return terms | (module.writer.terms(seen.written) if seen.written is not None else {})

    def counts(self, module: GaVaMoEModel, batch: ReviewBatch) -> dict[str, float] | None:
        """Return the count of each term of the loss in the module's phase; None where it follows from more."""
        if module.phase == WRITER:
            prompt = self.prompter.prompt(batch.rating_B.tolist(), batch.feature, batch.text)
            return module.writer.counts(prompt)
        found = {"rating_ce": float(len(batch))}
        if self.config.pairs.words:
            found["word_ce"] = float(batch.word_count)
        return found if module.phase == VAE else found | {"kl": float(len(batch))}

    def memory(self, train: TrainConfig, parallel: ParallelConfig) -> Memory:
        """Return the bytes that a worker needs in the writer's phase, the largest, for texts of full length."""
        pairs, language = self.config.pairs, self.config.language
        prompt = self.prompter.prompt([1.0], ["feature"], [""])
        entities = len(self.static["user_count"]) + len(self.static["item_count"])
        own = train.phases.get(WRITER, PhaseConfig())
        told = {"batch_size": own.batch_size, "accumulate": own.accumulate, "tokens": own.tokens}
        return language_memory(
            language,
            self.config.experts,
            train.model_copy(update={key: value for key, value in told.items() if value is not None}),
            parallel,
            TextSize(prompt=prompt.token_MBP.shape[2], answer=language.max_tokens, evaluated=train.evaluate_batch_size),
            clusters=pairs.clusters,
            vocabulary=self.prompter.tokens.vocabulary,
            frozen=entities * pairs.embedding,
            given=pairs.embedding,
        )

    def write(
        self,
        module: GaVaMoEModel,
        batch: ReviewBatch,
        decoding: Decoding,
        *,
        all_done: Callable[[bool], bool] = bool,
        heard: Callable[[Sequence[str]], None] | None = None,
    ) -> list[str]:
        """Return the text of each example; what is drawn depends on the pair, not on its company."""
        return write_texts(
            module.writer,
            module.asked(batch),
            decoding,
            names=batch.pairs,
            end=self.prompter.tokens.end,
            spell=self.prompter.tokens.decode,
            stays=is_spread(module),
            all_done=all_done,
            heard=heard,
        )

    def nll(self, module: GaVaMoEModel, batch: ReviewBatch) -> tuple[Tensor, Tensor]:
        """Return the negative log likelihood of each text, and its tokens with the end."""
        found: tuple[Tensor, Tensor] = module.writer.nll(*module.asked(batch))
        return found

    def trace(self, module: GaVaMoEModel, batch: ReviewBatch, texts: Sequence[str]) -> list[Traced]:
        """Return each pair's gate, and the experts of each token."""
        return trace(module, batch, texts)

    def truth_given(self) -> Collection[Truth]:
        """Return the feature and the rating, each where the prompt tells it."""
        prompt = self.config.prompt
        told: list[Truth] = ["feature"] if prompt.feature else []
        return (*told, "rating") if prompt.rating == "given" else tuple(told)

    def ratings(self, module: GaVaMoEModel, batch: ReviewBatch) -> Tensor:
        """Return the expected rating of each pair, (B,)."""
        return module.ratings(batch)

    def scale(self) -> tuple[float, float]:
        """Return the smallest and the largest rating of the data set."""
        return float(self.level_R[0]), float(self.level_R[-1])

    def analyser(self, module: GaVaMoEModel) -> Callable[[ReviewBatch], dict[str, Tensor]]:
        """Return a function that tells each pair's cluster, and how sure and stable it is."""
        return report.ClusterAnalysis(module)

    def enrich(self, measured: Measured) -> list[str]:
        """Add what there is to say of clusters; return it in words."""
        return report.enrich(measured)

    def sections(self, measured: Measured, history: Sequence[Mapping[str, Any]]) -> list[Section]:
        """Return what a report tells of clusters."""
        return report.sections(measured)

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random reviews and tables, for tests."""
        return sample(rows, rng)
