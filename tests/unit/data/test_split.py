"""Splits: every protocol by hand-worked examples, and keys without effect."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from rec.data.config import SplitConfig
from rec.data.prepared import Prepared
from rec.data.schema import PART, TIME
from rec.data.stages.records import Records
from rec.data.stages.split import SPLITS, Split, eight_one_one, point, split_records
from rec.data.tables import TimeForm
from rec.errors import ConfigError, DataError
from tests.support.own import own, prepared, write_events


def records(users: list[int], form: TimeForm | None = None, **columns: list[int]) -> Records:
    """Records of users in order; items are numbered on from 1."""
    table = {name: np.array(values) for name, values in columns.items()}
    return Records(np.array(users), np.arange(1, len(users) + 1), np.arange(len(users)), table, form)


def split(found: Records, **keys: Any) -> tuple[Split, Counter[str]]:
    dropped: Counter[str] = Counter()
    config = SplitConfig.model_validate(keys)
    return split_records(found, int(found.user_E.max()) + 1, len(found), config, dropped, "here"), dropped


def test_leave_one_out_holds_out_the_last_two_of_each_user() -> None:
    found, _ = split(records([0, 0, 0, 0, 1, 1, 1, 1, 1]))
    assert found.part_E.tolist() == [0, 0, 1, 2, 0, 0, 0, 1, 2]


def test_a_ratio_is_kept_over_all_users_and_training_is_never_empty() -> None:
    found, _ = split(records(np.repeat(np.arange(400), 5).tolist()), protocol="ratio", validation=0.1, test=0.2)
    shares = np.bincount(found.part_E, minlength=3) / 2000
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)
    assert set(found.records.user_E[found.part_E == 0]) == set(range(400))


def test_a_ratio_depends_on_the_seed_alone() -> None:
    given = records(np.repeat(np.arange(40), 5).tolist())
    first, again, other = (split(given, protocol="ratio", seed=seed)[0].sha256() for seed in (1, 1, 2))
    assert first == again != other


def test_cold_users_and_items_have_no_training_record_and_halves_are_apart() -> None:
    user = np.repeat(np.arange(60), 10)
    item = np.tile(np.arange(30), 20) + 1
    given = Records(user, item, np.arange(600), {})
    dropped: Counter[str] = Counter()
    config = SplitConfig(protocol="ratio", cold_users=0.2, cold_items=0.2)
    found = split_records(given, 60, 30, config, dropped, "here")
    part = found.part_E
    for names in (found.records.user_E, found.records.item_E):
        cold = [set(names[part == n].tolist()) - set(names[part == 0].tolist()) for n in (1, 2)]
        assert all(cold)
        assert not cold[0] & cold[1]
    assert len(found.records) + dropped["record of a cold user and a cold item of the other half"] == 600


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(5, (3, 1, 1)), (9, (7, 1, 1)), (10, (8, 1, 1)), (14, (12, 1, 1)), (15, (12, 1, 2)), (20, (16, 2, 2))],
)
def test_a_user_is_split_eight_to_one_to_one(count: int, sizes: tuple[int, int, int]) -> None:
    user, item = np.repeat([0, 3], count), np.tile(np.arange(count), 2)
    part = eight_one_one(user, item, 0)
    for each in (0, 3):
        assert tuple(np.bincount(part[user == each], minlength=3)) == sizes
    assert np.array_equal(part, eight_one_one(user, item, 0))
    assert not np.array_equal(part, eight_one_one(user, item, 1)) or count == 5


def test_mmrec_keeps_the_order_of_the_input_whatever_times_say() -> None:
    given = Records(np.zeros(6, int), np.arange(6, 0, -1), np.arange(5, -1, -1), {TIME: np.arange(6)})
    found, _ = split(given, protocol="mmrec")
    assert found.records.row_E.tolist() == list(range(6))
    assert found.records.item_E.tolist() == list(range(1, 7))


def test_subjects_are_split_with_all_their_records() -> None:
    given = records(np.repeat(np.arange(20), 3).tolist())
    found, _ = split(given, protocol="subjects", validation=0.1, test=0.2)
    parts = [set(found.records.user_E[found.part_E == n].tolist()) for n in range(3)]
    assert [len(part) for part in parts] == [14, 2, 4]
    assert len(set.union(*parts)) == 20


@pytest.mark.parametrize("shares", [(0.1, 0.2), (0.2, 0.1), (0.25, 0.25)])
def test_by_time_nothing_at_or_after_a_held_out_record_is_trained_on(shares: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    user, time = np.sort(rng.integers(0, 20, 400)), rng.integers(0, 50, 400)  # many equal times
    found, _ = split(records(user.tolist(), time=time.tolist()), protocol="time", validation=shares[0], test=shares[1])
    kept, part = found.records.columns[TIME], found.part_E
    assert kept[part == 0].max() < kept[part == 1].min()
    assert kept[part == 1].max() < kept[part == 2].min()
    assert np.bincount(part, minlength=3) / 400 == pytest.approx([1 - sum(shares), *shares], abs=0.05)


def test_dates_say_where_validation_and_test_begin() -> None:
    second = 86_400
    times = [0, second - 1, second, 2 * second - 1, 2 * second, 3 * second]
    given = records([0] * 6, TimeForm("number", unit="s"), time=times)
    found, _ = split(given, protocol="time", validation_from="1970-01-02", test_from="1970-01-03T00:00:00+00:00")
    assert found.part_E.tolist() == [0, 0, 1, 1, 2, 2]
    found, _ = split(given, protocol="time", validation_from=second, test_from=2 * second)
    assert found.part_E.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_point_in_time_is_told_in_the_units_of_the_records() -> None:
    assert point("1970-01-01T00:00:01.5", TimeForm("number", unit="ms")) == 1500
    assert point("1970-01-01T01:00:00+01:00", TimeForm("zoned", unit="ns")) == 0


@pytest.mark.parametrize(
    ("form", "keys", "words"),
    [
        (
            TimeForm("number", unit="s"),
            {"validation_from": "soon", "test_from": "later"},
            "'soon' is no point in time; expected a date",
        ),
        (TimeForm(), {"validation_from": "2020-01-01", "test_from": "2021-01-01"}, "numbers without a unit"),
        (TimeForm("date", unit="us"), {"validation_from": 4, "test_from": 5}, "4 is a number, but .* times are dates"),
        (TimeForm("real"), {"validation_from": 4, "test_from": 5}, "times are fractions whose order alone is kept"),
        (
            TimeForm("number", unit="s"),
            {"validation_from": 5, "test_from": 5},
            "validation_from: expected a point in time before",
        ),
    ],
)
def test_points_in_time_that_are_none_are_refused(form: TimeForm, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        split(records([0] * 4, form, time=[1, 2, 3, 4]), protocol="time", **keys)


def test_records_of_users_without_training_are_dropped_and_counted() -> None:
    given = records([0, 0, 0, 1], part=[0, 1, 2, 2])
    found, dropped = split(given, protocol="given")
    assert found.part_E.tolist() == [0, 1, 2]
    assert dropped == {"record of a user without training": 1}


@pytest.mark.parametrize(
    ("form", "keys", "words"),
    [
        (
            TimeForm("date", unit="us"),
            {"validation_from": "1970-01-02", "test_from": "2031-01-01"},
            "test_from: '2031-01-01' leaves nothing for test: .* from 1970-01-01T00:00:00 to 1970-01-05T00:00:00",
        ),
        (
            TimeForm("date", unit="us"),
            {"validation_from": "1969-01-02", "test_from": "1970-01-03"},
            "validation_from: '1969-01-02' leaves nothing for training: .* from 1970-01-01T00:00:00 to",
        ),
        (
            TimeForm("number", unit="us"),
            {"validation_from": "2031-01-01", "test_from": "2032-01-01"},
            "validation_from: '2031-01-01' leaves nothing for validation and test",
        ),
        (
            TimeForm("number"),
            {"validation_from": 5, "test_from": 10**12},
            "test_from: 1000000000000 leaves nothing for test: the records that are kept are from 0 to 345600000000",
        ),
        (TimeForm("number", digits=6), {"validation_from": 0.5, "test_from": 10**6}, "are from 0 to 345600"),
    ],
)
def test_points_in_time_outside_of_the_records_are_refused_with_their_range(
    form: TimeForm, keys: dict[str, Any], words: str
) -> None:
    day = 86_400 * 10**6
    with pytest.raises(ConfigError, match=f"^data.split.{words}" if ":" in words[:20] else words):
        split(records([0] * 5, form, time=[n * day for n in range(5)]), protocol="time", **keys)


def test_a_given_split_is_taken_as_it_is() -> None:
    assert split(records([0, 0, 0], part=[2, 0, 1]), protocol="given")[0].part_E.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("protocol", "words"), [("given", "brings the split"), ("time", "tells when records happened")]
)
def test_a_protocol_that_the_source_cannot_serve_is_refused(protocol: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"data.split.protocol: '{protocol}' needs a source that {words}"):
        split(records([0, 0, 0, 0]), protocol=protocol)


@pytest.mark.parametrize(("parts", "name"), [([0, 0, 2], "val"), ([1, 1, 2], "train"), ([0, 1, 1], "test")])
def test_an_empty_part_is_refused(parts: list[int], name: str) -> None:
    with pytest.raises(DataError, match=f"here: no record for {name} among 3"):
        split(records([0, 0, 0], **{PART: parts}), protocol="given")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"validation": 0.2}, "validation: has no effect on 'leave-one-out', only on ratio, warm, subjects, time"),
        ({"protocol": "mmrec", "test": 0.1}, "test: has no effect on 'mmrec'"),
        ({"protocol": "subjects", "cold_users": 0.1}, "cold_users: has no effect on 'subjects', only on ratio"),
        ({"protocol": "time", "seed": 1}, "seed: has no effect on 'time', only on ratio, warm, mmrec, subjects"),
        ({"protocol": "ratio", "test_from": 5, "validation_from": 4}, "validation_from: has no effect on 'ratio'"),
        ({"protocol": "time", "test_from": 5}, "validation_from, test_from: one needs the other"),
        ({"protocol": "time", "test_from": 5, "validation_from": 4, "test": 0.3}, "test: has no effect beside"),
    ],
)
def test_keys_without_effect_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SplitConfig.model_validate(keys)


def known(tmp_path: Path, **keys: Any) -> Prepared:
    read = own(tmp_path, write_events(tmp_path / "e.csv")).read
    return prepared(
        tmp_path / f"out-{len(keys)}{'-'.join(map(str, keys.values()))}", {"read": read, "split": keys}, view="pairs"
    )


def test_test_knows_validation_unless_told_otherwise(tmp_path: Path) -> None:
    whole, hidden = known(tmp_path), known(tmp_path, known_in_test="train")
    for a, b, val in zip(
        *(d.rows(s).to_pylist() for d, s in ((whole, "test"), (hidden, "test"), (whole, "val"))), strict=True
    ):
        assert a["history"] == [*b["history"], *val["target"]]
        assert a["target"] == b["target"]
    assert val["history"] == b["history"]


def test_mmrec_hides_validation_unless_told_otherwise(tmp_path: Path) -> None:
    hidden = known(tmp_path, protocol="mmrec")
    whole = known(tmp_path, protocol="mmrec", known_in_test="train and val")
    assert hidden.manifest["split"]["hides_validation"]
    for a, b in zip(whole.rows("test").to_pylist(), hidden.rows("test").to_pylist(), strict=True):
        assert set(a["history"]) > set(b["history"])


def test_the_last_record_of_a_held_out_subject_is_to_be_found_and_the_others_are_known(tmp_path: Path) -> None:
    data = known(tmp_path, protocol="subjects", validation=0.2, test=0.34)
    frame = pd.read_csv(tmp_path / "e.csv")
    ids = {"user": data.users["id"].to_pylist(), "item": [None, *data.items["id"].to_pylist()]}
    held = [row for name in SPLITS[1:] for row in data.rows(name).to_pylist()]
    assert len(held) == 3
    for row in held:
        theirs = frame[frame["who"] == ids["user"][row["user"]]]["what"].tolist()
        assert [ids["item"][i] for i in [*row["history"], *row["target"]]] == theirs
        assert len(row["target"]) == 1


@pytest.mark.parametrize(("users", "items", "rows"), [(40, 25, 600), (200, 30, 900), (7, 300, 1200)])
def test_warm_shares_are_exact_and_leave_every_user_and_item_one_record_of_training(
    users: int, items: int, rows: int, rng: np.random.Generator
) -> None:
    pair = np.sort(rng.choice(users * items, rows, replace=False))
    given = Records(pair // items, pair % items + 1, np.arange(rows), {})
    config = SplitConfig(protocol="warm", validation=0.1, test=0.2)
    found = split_records(given, users, items, config, Counter(), "here")
    assert np.bincount(found.part_E).tolist() == [rows - rows // 10 - rows // 5, rows // 10, rows // 5]
    train = found.part_E == 0
    assert set(given.user_E[train]) == set(given.user_E)
    assert set(given.item_E[train]) == set(given.item_E)
    other = split_records(given, users, items, config.model_copy(update={"seed": 1}), Counter(), "here")
    assert (other.part_E != found.part_E).any()


def test_a_warm_split_that_would_leave_a_user_or_an_item_without_training_is_refused() -> None:
    given = Records(np.array([0, 0, 1, 1]), np.array([1, 2, 3, 4]), np.arange(4), {})
    with pytest.raises(DataError, match=r"2 of 4 records are to be held out, but only 0 can be .*data.filter.core"):
        split_records(given, 2, 4, SplitConfig(protocol="warm", validation=0.25, test=0.25), Counter(), "here")
