"""The writing task: metrics from gathered records are those of the whole corpus; ranks agree on the end of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.evaluation.records import joined
from rec.evaluation.tasks.writing import Writing
from rec.evaluation.tasks.writing.metrics import measure, summary
from rec.systems.capabilities import Decoding, Writer

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
    assert task.metrics(records) == pytest.approx({name: value.value for name, value in wanted.items()})
    assert set(task.metrics(records)) == set(task.directions)


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


def test_baselines_come_from_the_texts_of_training() -> None:
    def batches(split: str) -> Iterator[Texts]:
        yield from [Texts(row=(1, 1, 0))] if split == "train" else [Texts(row=(0, 1))]

    found = Writing().baselines(Told(), None, "test", batches)  # type: ignore[arg-type]
    assert found["most frequent text"]["fmr"] == 0.5
    assert found["most frequent text of the feature"]["bleu4"] == pytest.approx(100)
    assert found["a text drawn at random"]["usr"] is not None


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
