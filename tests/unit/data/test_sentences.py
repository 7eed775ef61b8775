"""The view of sentences, and groups of users by how much they wrote."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rec.data.prepared import Prepared
from rec.data.schema import Events, Field, RawData, Source, Workplace
from rec.data.views.sentences import SPARSITY_GROUPS, as_table, sparsity, texts_of, words_by_count
from rec.errors import ConfigError, DataError
from rec.nn.language.tokens import LanguageTokens
from rec.strict import Strict
from tests.support.own import own, prepared, write_events

PARTS = [0, 0, 1, 1, 2, 2, 0, 0]
ROWS = {
    "user": ["b", "a", "b", "c", "a", "d", "a", "e"],
    "item": ["x", "y", "y", "x", "x", "y", "z", "x"],
    "rating": [5, 4, 3, 2, 1, 5, 4, 3],
    "text": ["one", "two", "three", "four", None, "six", "seven", "eight"],
    "feature": ["f", "g", "f", "g", "f", None, "g", "f"],
    "cluster_id": [0, 1, 1, 0, 1, 0, 1, 0],
    "part": PARTS,
}


class WrittenConfig(Strict):
    """The keys of `[data.read]`."""

    without: str = ""
    counterpart: str = "item"
    opinion: tuple[str | None, ...] = ()


class Written(Source):
    """Eight reviews of five users."""

    Config = WrittenConfig
    config: WrittenConfig

    def open(self, place: Workplace) -> RawData:
        """Return the reviews."""
        fields = [Field("item", "item"), *map(Field, ("rating", "text", "feature", "cluster_id"))]
        fields = [field for field in fields if field.name != self.config.without]
        subject = Field("user", "user")
        opinion = {"opinion": list(self.config.opinion)} if self.config.opinion else {}
        fields += [Field(name) for name in opinion]
        events = Events(
            table=pa.table({**ROWS, **opinion}),
            subject=subject,
            fields=tuple(fields),
            part="part",
            counterpart=self.config.counterpart,
        )
        return RawData(records=events)


def made(root: Path, read: dict[str, Any] | None = None, **sections: Any) -> Prepared:
    table = {"source": "tests.unit.data.test_sentences:Written", "read": read or {}, "split": {"protocol": "given"}}
    return prepared(root, table | sections)


def test_rows_are_reviews_in_the_order_of_the_input_with_every_further_column(tmp_path: Path) -> None:
    data = made(tmp_path).seen_as("sentences")
    train = data.rows("train").to_pylist()
    assert train[0] == {
        "record": 3, "user": 1, "item": 0, "rating": 5.0, "text": "one", "feature": "f", "opinion": "", "cluster_id": 0
    }  # fmt: skip
    assert [row["text"] for row in train] == ["one", "two", "seven", "eight"]
    test = data.rows("test").to_pylist()
    assert [(row["text"], row["feature"]) for row in test] == [("", "f"), ("six", "")]
    raw = data.users["id"].to_pylist()
    assert [raw[row["user"]] for row in test] == ["a", "d"]
    texts = data.records(["text"])["text"].to_pylist()
    assert [texts[row["record"]] for row in train] == [row["text"] for row in train]


def test_the_view_tells_how_much_each_user_wrote_in_training(tmp_path: Path) -> None:
    data = made(tmp_path).seen_as("sentences")
    assert data.array("user_count").tolist() == [2, 1, 0, 0, 1]
    assert data.array("item_count").tolist() == [2, 1, 1]
    assert data.array("user_sparsity").tolist() == [2, 0, 5, 5, 1]


def test_the_view_tells_how_often_each_item_and_each_rating_is_in_training(tmp_path: Path) -> None:
    data = made(tmp_path).seen_as("sentences")
    train = data.rows("train")
    items = len(data.entity("item"))
    assert data.array("item_count").tolist() == np.bincount(train["item"].to_numpy(), minlength=items).tolist()
    every = [rating for split in ("train", "val", "test") for rating in data.rows(split)["rating"].to_pylist()]
    assert data.array("rating_level").tolist() == sorted(set(every))
    known = train["rating"].to_pylist()
    assert data.array("rating_count").tolist() == [known.count(level) for level in sorted(set(every))]


def test_the_view_tells_words_of_training_and_features_and_ratings_of_all_reviews(tmp_path: Path) -> None:
    data = made(tmp_path).seen_as("sentences")
    assert texts_of(data.array("sentence_words")) == ["eight", "one", "seven", "two"]
    assert texts_of(data.array("sentence_features")) == ["f", "g"]
    assert texts_of(data.array("sentence_opinions")) == []
    assert data.array("rating_scale").tolist() == [1, 5]


def test_opinions_of_all_reviews_are_told_where_records_have_some(tmp_path: Path) -> None:
    data = made(tmp_path, {"opinion": ["good", "poor", "good", "", "bad", None, "fine", "good"]}).seen_as("sentences")
    assert texts_of(data.array("sentence_opinions")) == ["bad", "fine", "good", "poor"]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["b a", "c b"], ["b", "a", "c"]),
        ([" good  good\tday ", ""], ["good", "day"]),
        (["caf\u00e9 \U0001f600", "\U0001f600"], ["\U0001f600", "caf\u00e9"]),
        ([], []),
    ],
)
def test_words_by_how_often_they_are_written(texts: list[str], words: list[str]) -> None:
    assert words_by_count(pa.chunked_array([texts], pa.string())) == words
    assert texts_of(as_table(words)) == words


@pytest.mark.parametrize(
    ("count", "group"),
    [
        ([3, 1, 0, 2, 9, 5], [2, 0, 5, 1, 4, 3]),
        ([1] * 7, [0, 0, 1, 1, 2, 3, 4]),
        ([0, 0], [5, 5]),
        ([4, 4, 1], [1, 2, 0]),
    ],
)
def test_groups_of_equal_size_from_the_fewest_reviews_to_the_most(count: list[int], group: list[int]) -> None:
    assert sparsity(np.array(count)).tolist() == group


def test_groups_differ_by_one_in_size_and_no_user_of_one_wrote_more_than_one_of_the_next(
    rng: np.random.Generator,
) -> None:
    count = rng.integers(0, 30, 1003)
    group = sparsity(count)
    sizes = np.bincount(group, minlength=len(SPARSITY_GROUPS))
    assert np.ptp(sizes[:5]) <= 1
    assert sizes[5] == (count == 0).sum()
    assert all(count[group == a].max() <= count[group == b].min() for a, b in itertools.pairwise(range(5)))


@pytest.mark.parametrize("without", ["rating", "text", "feature"])
def test_records_that_are_no_reviews_are_refused(without: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"sentences: records without '{without}'; there are user, item"):
        made(tmp_path, {"without": without}).seen_as("sentences")


def test_records_that_are_no_events_are_refused(tmp_path: Path) -> None:
    config = own(tmp_path / "out", write_events(tmp_path / "e.csv"))
    data = prepared(tmp_path / "out", config.model_dump(exclude={"root"}))
    with pytest.raises(DataError, match=r"needs records that are reviews: .*the data set has no events"):
        data.seen_as("sentences")


def test_a_counterpart_makes_filters_and_splits_of_two_and_without_one_they_are_refused(tmp_path: Path) -> None:
    warm = {"protocol": "warm", "validation": 0.1, "test": 0.1}
    data = made(tmp_path / "a", filter={"core": 2})
    assert data.manifest["dropped"] == {"record of a user or item with fewer than 2 records": 4}
    assert (data.users["id"].to_pylist(), data.items["id"].to_pylist()) == (["a", "b"], ["x", "y"])
    for sections, words in (
        ({"filter": {"core": 2}}, "data.filter.core: has no effect on .*whose records are events"),
        ({"filter": {"repeats": "once"}}, "data.filter.repeats: has no effect on"),
        ({"split": warm}, "data.split.protocol: 'warm' is of records of two"),
    ):
        with pytest.raises(ConfigError, match=words):
            made(tmp_path / "b", {"counterpart": ""}, **sections)
    with pytest.raises(DataError, match="counterpart 'rating': no field with members; there are item"):
        made(tmp_path / "c", {"counterpart": "rating"})


def test_a_tokenizer_of_bytes_is_learned_from_what_is_written_in_training(tmp_path: Path) -> None:
    data = made(tmp_path / "a", encode={"text": {"tokenizer": "bytes", "vocabulary": 300}})
    tokens = LanguageTokens.from_table(data.tables(["tokenizer"])["tokenizer"])
    assert tokens.vocabulary <= 300
    assert tokens.decode(tokens.encode(["Any 😀 text"])[0]) == "Any 😀 text"
    sizes = {text: len(tokens.encode([text])[0]) for text in ("one", "eight", "four", "six")}
    assert sizes["one"] < 3 > sizes["eight"]  # training's; pieces of validation's and test's are not known
    assert sizes["four"] + sizes["six"] > 4


@pytest.mark.parametrize("tokenizer", ["bytes", "local"])
def test_a_tokenizer_without_texts_is_refused(tmp_path: Path, tokenizer: str) -> None:
    encode = {"text": {"tokenizer": tokenizer, "vocabulary": 300}}
    with pytest.raises((ConfigError, DataError), match=r"data\.encode"):
        made(tmp_path / "a", {"without": "text"} if tokenizer == "bytes" else None, encode=encode)
