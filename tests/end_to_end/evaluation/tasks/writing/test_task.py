"""The writing task: metrics from gathered records are those of the whole corpus; ranks agree on the end of texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.errors import ConfigError
from rec.evaluation.records import joined
from rec.evaluation.task import Groups, Measured
from rec.evaluation.tasks.config import EvaluateConfig
from rec.evaluation.tasks.writing import Writing
from rec.evaluation.tasks.writing import baselines as simple
from rec.evaluation.tasks.writing.metrics import measure, summary
from rec.evaluation.tasks.writing.sections import chosen
from rec.evaluation.tasks.writing.settings import track
from rec.evaluation.tasks.writing.training import read
from rec.sections import Table, Text
from rec.systems.capabilities import Decoding, Truth, Writer

FEATURES = ("price", "sound", "strap")
WRITTEN = ("the price is great", "the sound is fine", "the sound is fine", "", "a strap and a price")
WANTED = ("the price is poor", "the sound is fine", "the strap broke", "fine sound", "a price")
ABOUT = ("price", "sound", "strap", "sound", "price")


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts(Batch):
    row: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.row)


class Told(Writer[Texts, nn.Module]):
    """Writes given texts, word by word."""

    def __init__(self, features: bool = True) -> None:
        self.known = features
        self.asked: list[bool] = []

    def write(
        self,
        module: nn.Module,
        batch: Texts,
        decoding: Decoding,
        *,
        all_done: Callable[[bool], bool] = bool,
        heard: Callable[[Sequence[str]], None] | None = None,
    ) -> list[str]:
        words = [WRITTEN[i].split() for i in batch.row]
        for step in range(decoding.max_tokens):
            self.asked.append(all(len(text) <= step for text in words))
            if all_done(self.asked[-1]):
                break
        return [" ".join(text[: decoding.max_tokens]) for text in words]

    def references(self, batch: Texts) -> list[str]:
        return [WANTED[i] for i in batch.row]

    def features(self, batch: Texts) -> list[str] | None:
        return [ABOUT[i] for i in batch.row] if self.known else None

    def all_features(self) -> tuple[str, ...]:
        return FEATURES if self.known else ()


ALL = Texts(row=tuple(range(len(WRITTEN))))


@pytest.mark.parametrize("cuts", [[[0, 1, 2, 3, 4]], [[0], [1, 2], [3], [4]]])
def test_metrics_of_gathered_records_are_those_of_all_texts(cuts: list[list[int]]) -> None:
    task = Writing()
    records = joined([task.records(Told(), nn.Identity(), Texts(row=tuple(cut))) for cut in cuts])
    wanted = summary(measure(WRITTEN, WANTED, feature=ABOUT, features=FEATURES))
    told = {name: value.value for name, value in wanted.items()} | {"nll": None}
    assert task.metrics(records) == pytest.approx(told)
    assert set(task.metrics(records)) == set(task.directions) - set(task.late)


def test_without_features_their_metrics_have_no_value() -> None:
    found = Writing().metrics(Writing().records(Told(features=False), nn.Identity(), ALL))
    assert (found["fmr"], found["fcr"], found["div"]) == (None, None, None)
    assert found["usr"] == 4 / 5


def test_nothing_written_has_no_value() -> None:
    records = Writing().records(Told(), nn.Identity(), ALL).slice(0, 0)
    assert set(Writing().metrics(records).values()) == {None}


def test_texts_are_cut_and_spaced_before_they_are_scored() -> None:
    class Fixed(Told):
        def write(self, *_: object, **__: object) -> list[str]:
            return ["good, and loud!"]

        def references(self, batch: Texts) -> list[str]:
            return ["good , but dear"]

    record = Writing(most_words=2, space_signs=True).records(Fixed(False), nn.Identity(), Texts(row=(0,)))
    assert record["scored"].to_pylist() == ["good ,"]
    assert record["text"].to_pylist() == ["good, and loud!"]
    assert record["rouge1_f"].to_pylist() == pytest.approx([100.0], abs=1e-4)


class AboutItems(Told):
    """Texts 0 and 1 are of item 0, 2 of item 1, the others of item 2."""

    def written(self, batch: Texts) -> Mapping[str, Tensor]:
        return {"item": torch.tensor([(0, 0, 1, 2, 2)[row] for row in batch.row])}


def batches_of(train: tuple[int, ...], test: tuple[int, ...]) -> Callable[[str], Iterator[Texts]]:
    def batches(split: str) -> Iterator[Texts]:
        for row in train if split == "train" else test:
            yield Texts(row=(row,))

    return batches


def test_baselines_come_from_the_texts_of_training() -> None:
    def batches(split: str) -> Iterator[Texts]:
        yield from [Texts(row=(1, 1, 0))] if split == "train" else [Texts(row=(0, 1))]

    found = Writing().baselines(Told(), None, "test", batches)  # type: ignore[arg-type]
    assert found[simple.FREQUENT]["fmr"] == 0.5
    assert found[simple.OF_FEATURE]["bleu4"] == pytest.approx(100)
    assert found[simple.RANDOM]["usr"] is not None
    assert found[simple.TRUE_TEMPLATE]["fmr"] == 1
    assert simple.ITEM_TEMPLATE not in found  # no items are told
    assert set(Writing().baselines(Told(False), None, "test", batches)) == {  # type: ignore[arg-type]
        simple.FREQUENT, simple.RANDOM
    }  # fmt: skip


ANSWERS = {
    simple.ITEM_TEMPLATE: ["a fine price", "a fine strap", "a fine sound"],
    simple.FIRST_OF_ITEM: ["the price is poor", "the strap broke", "fine sound"],
    simple.FREQUENT_OF_ITEM: ["the price is poor", "the strap broke", "a price"],
    simple.FREQUENT: ["the price is poor"] * 3,
    simple.TRUE_TEMPLATE: ["a fine sound", "a fine strap", "a fine price"],
    simple.SAME_FEATURE: ["the sound is fine", "the strap broke", "a price"],
    simple.OF_FEATURE: ["the sound is fine", "the strap broke", "the price is poor"],
}
"""To texts 1, 2 and 4, of items 0, 1 and 2, after training's 0, 1, 1, 0, 2, 3, 4: price and sound of item 0 are as
frequent, and price was first."""


@pytest.mark.parametrize("name", [*ANSWERS, simple.RANDOM])
def test_every_simple_answer_by_hand(name: str) -> None:
    system = AboutItems()
    training, _ = read(system, batches_of((0, 1, 1, 0, 2, 3, 4), ()), "item")
    rng = np.random.default_rng(0)
    found = dict(simple.answers("a fine {feature}", training, system, Texts(row=(1, 2, 4)), rng))
    assert set(found) == {*ANSWERS, simple.RANDOM}
    if name == simple.RANDOM:
        assert set(found[name]) <= set(WANTED)
    else:
        assert found[name] == ANSWERS[name]


def test_an_item_without_training_is_answered_as_all_are() -> None:
    system = AboutItems()
    training, support = read(system, batches_of((0, 1, 1), ()), "item")
    found = dict(simple.answers("a {feature}", training, system, Texts(row=(2,)), np.random.default_rng(0)))
    assert found[simple.ITEM_TEMPLATE] == ["a sound"]
    assert found[simple.FIRST_OF_ITEM] == ["the price is poor"]
    assert found[simple.SAME_FEATURE] == ["the price is poor"]
    assert found[simple.FREQUENT_OF_ITEM] == ["the sound is fine"]
    assert support is not None
    assert np.isnan(support.measure([1], ["the strap broke"])["factual"]).all()


def test_what_is_told_the_true_feature_is_marked_and_is_more_than_a_leak_free_writer_is_told() -> None:
    class Given(Told):
        def truth_given(self) -> tuple[Truth, ...]:
            return ("feature",)

    assert Writing().told_more(Told()) == simple.LEAKS
    assert Writing().told_more(Given()) == ()
    assert all(name.endswith("(leak)") for name in simple.LEAKS)
    assert not any("leak" in name for name in ANSWERS if name not in simple.LEAKS)


def measured(system: Writer[Texts, nn.Module], task: Writing, rows: tuple[int, ...], **keys: Any) -> Measured:
    records = task.records(system, nn.Identity(), Texts(row=rows))
    return Measured(
        system=system, module=nn.Identity(), data=None, split="test", config=EvaluateConfig(**keys), seed=0,  # type: ignore[arg-type]
        records=records, values=task.values(records), groups=Groups((), np.zeros(len(rows), np.int64)),
        batches=batches_of((0, 1, 2), rows),
    )  # fmt: skip


def test_factuality_is_told_first_once_training_is_at_hand() -> None:
    task, found = Writing(), measured(AboutItems(), Writing(), (0, 2, 4))
    values = task.late_values(found)
    # Item 0 has reviews of price and sound, item 1 one of a strap, item 2 none.
    assert values["factual"][:2].tolist() == [1, 0]
    assert np.isnan(values["factual"][2])
    assert task.shown[:2] == ("factual", "hallucinated")
    metrics = task.metrics(found.records, task.values(found.records) | values)
    assert (metrics["factual"], metrics["hallucinated"], metrics["stating"]) == (0.5, 0.5, 1)
    assert found.kept["unsupported"] == [[], ["sound"], []]
    notes = task.enrich(found)
    assert [note for note in notes if "opinions are not known" in note]
    assert "factual: 1 example of items without a training review, left out" in notes
    plain = measured(Told(), Writing(), (0, 1))
    assert task.late_values(plain) == {}


def test_simple_answers_are_told_with_their_factuality() -> None:
    found = Writing().baselines(AboutItems(), None, "test", batches_of((0, 1, 2), (0, 2)))  # type: ignore[arg-type]
    assert found[simple.FIRST_OF_ITEM]["factual"] == 1
    assert found[simple.FREQUENT]["factual"] == 0.5  # a price for the item of the strap


def test_settings_tell_track_cuts_and_decoding() -> None:
    told = Writing().settings(Told())
    assert told == {
        "track": "leak-free", "scored": "all words", "signs": "as written",
        "decoding": "the most probable token each time", "length": "at most 32 tokens",
    }  # fmt: skip
    beams = Writing(most_words=15, space_signs=True, decoding=Decoding(beams=4, max_tokens=20)).settings(Told())
    assert beams["scored"] == "the first 15 words of both texts"
    assert beams["signs"] == "set apart from words"
    assert beams["decoding"] == "the best text of a beam search, beams 4"
    assert beams["length"] == "at most 20 tokens"
    drawn = Writing(decoding=Decoding(temperature=0.7, top_p=0.9, seed=3)).settings(Told())
    assert drawn["decoding"] == "drawn with temperature 0.7, seed 3, top_p 0.9"


class Greedy(Told):
    """Draws nothing at random and follows one text alone."""

    ways = ()


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, Decoding(max_tokens=20)),
        ({"max_tokens": 5}, Decoding(max_tokens=5)),
        ({"beams": 3, "length_penalty": 0.5}, Decoding(max_tokens=20, beams=3, length_penalty=0.5)),
        ({"temperature": 0.7, "top_p": 0.9, "seed": 3}, Decoding(max_tokens=20, temperature=0.7, top_p=0.9, seed=3)),
    ],
)
def test_the_config_decides_how_texts_are_written(keys: dict[str, Any], found: Decoding) -> None:
    asked = EvaluateConfig.model_validate({"decoding": keys})
    assert Writing(decoding=Decoding(max_tokens=20)).configured(Told(), asked).decoding == found


def test_what_a_writer_cannot_do_is_refused_by_its_key() -> None:
    for keys, name in (({"beams": 3}, "beams"), ({"temperature": 0.7, "seed": 1}, "temperature")):
        asked = EvaluateConfig.model_validate({"decoding": keys})
        with pytest.raises(
            ConfigError, match=f"evaluate.decoding.{name}: Greedy writes no texts in this way; it knows max_tokens"
        ):
            Writing().configured(Greedy(), asked)
    drawn = Writing(decoding=Decoding(temperature=0.5))
    asked = EvaluateConfig.model_validate({"decoding": {"beams": 2}})
    with pytest.raises(ConfigError, match=r"evaluate\.decoding: a beam search draws nothing at random"):
        drawn.configured(Told(), asked)
    both = EvaluateConfig.model_validate({"decoding": {"beams": 2, "temperature": 0.0}})
    assert drawn.configured(Told(), both).decoding == Decoding(beams=2)


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ((), "leak-free"), (("feature",), "given the true feature"), (("rating",), "given the true rating"),
        (("rating", "feature"), "given the true feature and the true rating"),
    ],
)  # fmt: skip
def test_tracks_in_words(truth: tuple[str, ...], words: str) -> None:
    assert track(truth) == words


@pytest.mark.parametrize(
    ("keys", "words", "apart"), [({}, 7, True), ({"words": 15, "signs": "kept"}, 15, False), ({"words": 0}, 0, True)]
)
def test_the_config_cuts_texts_as_it_says(keys: dict[str, Any], words: int, apart: bool) -> None:
    task = Writing(most_words=7, space_signs=True)
    told = task.settle(Told(), nn.Identity(), (), EvaluateConfig(**keys))
    found = task.settled(told)
    assert (found.most_words, found.space_signs) == (words, apart)
    model = EvaluateConfig.model_validate({"bertscore": {"model": "some/model", "layer": 3}})
    told = task.settle(Told(), nn.Identity(), (), model)
    found = task.settled(json.loads(json.dumps(told)))
    assert found.bertscore == model.bertscore
    assert found.settings(Told())["bertscore"] == "model, layer 3, not rescaled"
    asked = EvaluateConfig.model_validate({"judge": {"url": "http://x", "model": "m", "prompt": "Say a number."}})
    found = task.settled(task.settle(Told(), nn.Identity(), (), asked))
    assert found.settings(Told())["gptscore"] == "m, a prompt of its own"


def test_the_best_and_the_worst_texts_are_shown_once_each() -> None:
    places = chosen(np.array([5.0, 1, 9, 3, 7]))
    assert {title: found.tolist() for title, found in places.items()} == {
        "the best by rouge_l_f1": [2, 4], "the worst by rouge_l_f1": [1, 3], "drawn at random": [0]
    }  # fmt: skip
    many = chosen(np.arange(100.0))
    assert many["the best by rouge_l_f1"].tolist() == [99, 98, 97, 96, 95, 94]
    assert many["the worst by rouge_l_f1"].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(set(many["drawn at random"]) & set(range(6, 94))) == 6
    assert {k: v.tolist() for k, v in chosen(np.array([1.0])).items()} == {"drawn at random": [0]}


def test_the_report_shows_samples_with_what_nothing_supports() -> None:
    task, found = Writing(), measured(AboutItems(), Writing(), (0, 1, 2, 3, 4))
    task.late_values(found)
    section = task.sections(found)[0]
    tables = [part for part in section.parts if isinstance(part, Table)]
    assert [table.caption for table in tables] == [
        "the best by rouge_l_f1", "the worst by rouge_l_f1", "drawn at random"
    ]  # fmt: skip
    rows = [row for table in tables for row in table.rows]
    assert tables[0].head == ("written", "by the model", "rouge_l_f1", "without support")
    assert sorted(row[0] for row in rows) == sorted(WANTED)
    assert next(row for row in rows if row[0] == "the strap broke")[3] == "sound"
    assert isinstance(section.parts[0], Text)
    assert "track: leak-free" in section.parts[0].text


class Other:
    """The other rank, whose texts end after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        self.left -= 1
        return value + float(self.left > 0)


@pytest.mark.parametrize(("other", "steps"), [(1, 5), (9, 9)])
def test_a_rank_goes_on_until_all_have_ended(other: int, steps: int) -> None:
    system = Told()
    Writing().records(system, nn.Identity(), Texts(row=(0, 1)), ranks=Other(other))
    assert len(system.asked) == steps


def agreed(rank: int, world: int) -> int:
    class World:
        def sum_over_ranks(self, value: Tensor) -> Tensor:
            torch.distributed.all_reduce(value)
            return value

    system = Told()
    Writing().records(system, nn.Identity(), Texts(row=(rank + 3,)), ranks=World())
    return len(system.asked)


@pytest.mark.slow
def test_processes_agree_on_the_end(ranks: object) -> None:
    assert ranks.run(2, agreed) == [6, 6]  # type: ignore[attr-defined]
