"""Capabilities: what a system can be asked beside being trained. A system inherits those that it has.

Letters: B examples, I items with padding as item 0, W items of a range, C candidates, P pairs, V labels, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from torch import Tensor, nn

from rec.batch import Batch
from rec.errors import ConfigError
from rec.nn.decoding import Decoding as Decoding

if TYPE_CHECKING:
    from rec.evaluation.task import Measured, Profiled
    from rec.sections import Section

B = TypeVar("B", bound=Batch)
M = TypeVar("M", bound=nn.Module)
States = Mapping[str, Tensor]
"""What a ranking needs of each example's own, (B, ...) each."""
Pairs = tuple[Tensor, Tensor]
"""(example, item), each (P,)."""
Truth = Literal["feature", "rating"]
"""What of an example's own truth a writer may be told: what its text is about, how the item was rated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingExamples:
    """What a batch asks to be ranked: one subject per example, the items to find, the items left out."""

    subject_B: Tensor
    """Index of the subject, -1 where it is in no table."""
    target: Pairs
    """The relevant items, one or many for each example."""
    left_out: Pairs
    """Items that are not ranked, such as what was seen; those to be found are ranked all the same."""
    known: Pairs
    """What is known of the subject, whether it is left out or not."""
    forbidden_BI: Tensor | None = None
    """What must never be shown to a subject, (B, I) bool."""


class Ranker(ABC, Generic[B, M]):
    """Ranks a catalogue for subjects: evaluated, served and searched by the task `ranking`."""

    entity: ClassVar[str] = "item"
    """The entity whose members are ranked; index 0 is padding."""
    subject: ClassVar[str] = "user"
    """The entity whose members are ranked for."""
    knows_subjects: ClassVar[bool] = False
    """Whether subjects are told apart by more than what is known of them, so that none of it is enough to rank."""

    @abstractmethod
    def examples(self, batch: B) -> RankingExamples:
        """Return what the batch asks to be ranked."""

    @abstractmethod
    def states(self, module: M, batch: B) -> dict[str, Tensor]:
        """Return all that a ranking needs of each example's own, (B, ...).

        An artifact holds the states of known subjects, so that they are ranked for without looking at their histories.
        """

    @abstractmethod
    def scores(self, module: M, states: States, items: slice) -> Tensor:
        """Return the scores of a range of items, float32 (B, W), to be written to; padding's mean nothing."""

    def event_count(self) -> np.ndarray:
        """Return in how many events of training each item is, int64 (I,): how many items there are, and how popular.

        By default the table `item_count` of the data set, which the system then has to name in `table_names`.
        """
        tables: Mapping[str, np.ndarray] = getattr(self, "static")  # noqa: B009 (a system's, which this is a part of)
        return np.asarray(tables["item_count"])

    def observed(self, module: M, batch: B) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the states, and further columns, (B, ...), for the record of each example in evaluation."""
        return self.states(module, batch), {}

    def forbidden(self, states: States) -> Tensor | None:
        """Return what must never be shown to a subject, (B, I) bool; None where everything may."""
        return None

    def reasons(self, states: States, example: int, item: int) -> list[str]:
        """Return why an item must never be shown to a subject; empty where it may."""
        return []

    def details(self, module: M, states: States, example: int, items: Sequence[int]) -> dict[str, Any]:
        """Return what is told of some items of an answer where a request asks to explain: a list of one each.

        Of `modalities`, the share of each, None for one that an item or its subject does not have.
        """
        return {}

    def item_vectors(self, module: M) -> Tensor | None:
        """Return the items' vectors whose inner products with `queries` are the scores or come near them, (I, D).

        None where there are none.
        """
        return None

    def queries(self, module: M, states: States) -> Tensor:
        """Return the vectors whose inner products with `item_vectors` propose candidates, (B, D).

        Raises:
            ConfigError: the scores are no inner products.
        """
        raise ConfigError(f"serve.index: the scores of {type(self).__name__} are no inner products; use exact")

    def candidate_scores(self, module: M, states: States, item_BC: Tensor) -> Tensor | None:
        """Return the scores of candidates, (B, C), where the inner products only come near them; else None."""
        return None


class SetPredictor(ABC, Generic[B, M]):
    """Predicts which labels of a vocabulary hold together: task `sets`."""

    entity: ClassVar[str]
    """The entity whose members are predicted; label v is its member v."""

    @abstractmethod
    def probabilities(self, module: M, batch: B) -> Tensor:
        """Return the probability of every label, float32 (B, V)."""

    @abstractmethod
    def labels(self, batch: B) -> Tensor:
        """Return which labels hold, (B, V) bool."""

    @abstractmethod
    def subjects(self, batch: B) -> Tensor:
        """Return the subject of each example, int64 (B,), such as the patient of a visit."""

    def interactions(self) -> np.ndarray | None:
        """Return which labels should not hold together, (V, V), symmetric; None where it is not known."""
        return None

    def previous(self, batch: B) -> Tensor | None:
        """Return the labels of each subject's example before this one, (B, V) bool; a row without any: there is none.

        None where a batch does not tell.
        """
        return None

    def severities(self) -> Mapping[tuple[int, int], str]:
        """Return how bad known interactions are, in words, by their two labels, the smaller first; empty: not known."""
        return {}

    def chosen(self, score_BV: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
        """Return which labels examples of these scores are given, bool (B, V): those of at least `threshold`.

        A system that takes labels from sets afterwards does it here, as by `rec.evaluation.tasks.sets.filters`; a
        threshold may be one per example, (B, 1).
        """
        chosen_BV: np.ndarray = score_BV >= threshold
        return chosen_BV

    def embeddings(self, module: M, batch: B) -> tuple[Tensor, Tensor] | None:
        """Return the vectors of the examples, (B, C), and of the labels, (V, C), in one space; None: there are none."""
        return None

    def reasons(self, module: M, batch: B) -> list[dict[str, Any]]:
        """Return, for each example, what weighed most in its set; empty where that is not told.

        `sections` maps parts of the input to their weights, `earlier` is a list of {"visit": place of an earlier
        example among the subject's earlier ones, the first is 0, "weight": its weight}, `missing` names the parts that
        are not there. Each may be left out.
        """
        return []

    def earlier(self, batch: B) -> Tensor | None:
        """Return how many earlier examples each subject has, int64 (B,); None where a batch does not tell."""
        return None


class Rater(ABC, Generic[B, M]):
    """Predicts ratings: task `rating`."""

    @abstractmethod
    def ratings(self, module: M, batch: B) -> Tensor:
        """Return the predicted rating of each example, float32 (B,)."""

    @abstractmethod
    def given_ratings(self, batch: B) -> Tensor:
        """Return the rating that was given, (B,)."""

    @abstractmethod
    def scale(self) -> tuple[float, float]:
        """Return the smallest and the largest rating of the whole data set: predictions are clipped to them."""

    def rated(self, batch: B) -> Mapping[str, Tensor]:
        """Return whose rating of what it is: the index (B,) of each example's members, by entity, as user and item."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A part of a text, as a model reads it."""

    text: str
    experts: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """By mixture layer, the experts that the token was written by, with their weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """How a text came about."""

    gate: str = ""
    """What decided which experts are asked, in words, such as the cluster that the pair is of; empty: nothing did."""
    tokens: Sequence[Token] = ()


class Writer(ABC, Generic[B, M]):
    """Writes text: task `writing`."""

    ways: ClassVar[Collection[str]] = ("temperature", "top_p", "beams", "length_penalty")
    """Which ways of `Decoding` to draw text it knows; neither a request nor `[evaluate]` can ask for another."""

    @abstractmethod
    def write(
        self,
        module: M,
        batch: B,
        decoding: Decoding,
        *,
        all_done: Callable[[bool], bool] = bool,
        heard: Callable[[Sequence[str]], None] | None = None,
    ) -> list[str]:
        """Return the text of each example.

        Args:
            module: The model.
            batch: Examples.
            decoding: How tokens are drawn, and how many at most.
            all_done: Tells whether all ranks have ended, given whether this one has. Asked once a token, so that ranks
                of experts that are spread over workers stop at the same step.
            heard: Receives, after every token, what each example has got since the last call: for streamed answers.
        """

    @abstractmethod
    def references(self, batch: B) -> list[str]:
        """Return the text that was written for each example."""

    def nll(self, module: M, batch: B) -> tuple[Tensor, Tensor] | None:
        """Return the negative log likelihood of the text that was written for each example, in nats, and its tokens.

        Both (B,): the sum over the tokens of the writer's own vocabulary that are scored, the end of the text among
        them where it is told apart, each given those before it and what the system is told; and how many those are.
        None where likelihoods are not told.
        """
        return None

    def features(self, batch: B) -> list[str] | None:
        """Return the feature that each text is to be about, None where features are not known."""
        return None

    def trace(self, module: M, batch: B, texts: Sequence[str]) -> list[Traced]:
        """Return how each example would come by its text, the tokens in their order; empty where that is not told.

        A token is written by the experts that the place passed from whose scores it was taken, the one before it.
        `rec.moe.layer.routings` hears which they were.
        """
        return []

    def written(self, batch: B) -> Mapping[str, Tensor]:
        """Return whose text about what it is: the index (B,) of each example's members, by entity, as user and item."""
        return {}

    def all_features(self) -> Collection[str]:
        """Return every feature of the whole data set; empty where features are not known."""
        return ()

    def opinions(self, batch: B) -> list[str] | None:
        """Return what each text says of its feature, None where opinions are not known."""
        return None

    def all_opinions(self) -> Collection[str]:
        """Return every opinion of the whole data set; empty where opinions are not known."""
        return ()

    def truth_given(self) -> Collection[Truth]:
        """Return what of an example's own truth the system is told when it writes, as configured; empty: nothing.

        It is the track that scores are told with: those of one are never ranked beside those of another.
        """
        return ()


class Explainer(ABC, Generic[B, M]):
    """Tells why an example would get an answer."""

    @abstractmethod
    def explain(self, module: M, batch: B, items: Sequence[int]) -> list[dict[str, Any]]:
        """Return, for one item of each example, at least its `score` and `parts` that add up to it.

        `names` names the parts where they are not the item's id and the system's modalities. `modalities` holds the
        share of each, None for one that the item or the subject does not have: nothing is credited to what is not
        there, and its part is 0.

        Raises:
            RequestError: there is no such answer.
        """


class Reporter(ABC, Generic[B, M]):
    """Adds to what evaluation records and reports tell."""

    told_columns: ClassVar[tuple[str, ...]] = ()
    """Columns of `analyser`, one value of each example, that answers of `rec predict` carry beside the tasks' own and
    that samples in reports show, such as the cluster of an example."""

    def statistics(self, records: Any) -> dict[str, float]:
        """Return further numbers over all records, logged at every evaluation and filed beside the metrics."""
        return {}

    def analyser(self, module: M) -> Callable[[B], dict[str, Tensor]] | None:
        """Return a function that tells more of each example of a batch, as columns; None where nothing is told.

        Called once the metrics are measured, for a report; it may be costly.
        """
        return None

    def enrich(self, measured: Measured) -> list[str]:
        """Add numbers to `measured.numbers`; return notes for people."""
        return []

    def sections(self, measured: Measured, history: Sequence[Mapping[str, Any]]) -> list[Section]:
        """Return parts of a report, from a measurement and the run's evaluations on validation."""
        return []

    def profile(self, profiled: Profiled) -> list[Section]:
        """Return what is told of one subject alone, for a report that asks for it; nothing by default."""
        return []
