import pytest

from rec.storage import Storage
from rec.tuning.trial import FINISHED, Follower, Trial, read_trial

GOALS = {"ndcg@10": "max", "load_balance": "max"}


def event(step: int, ndcg: float, use: float = 0.5, last: bool = True, two: bool = False) -> dict:
    return {
        "kind": "evaluated",
        "rank": 0,
        "total_step": step,
        "phase": int(last) if two else 0,
        "ndcg@10": ndcg,
        "best": True,
        "loss/ce": float("nan"),
        "moe/a/use_entropy": use,
        "moe/b/use_entropy": 0.9,
        "evaluate_s": 0.25,
    }


@pytest.fixture
def sent() -> list:
    return []


@pytest.fixture
def follower(tmp_path, sent) -> Follower:
    clock = iter(range(0, 1000, 10)).__next__
    return Follower(Trial("t", {"model.width": 8}), Storage(str(tmp_path)), GOALS, sent.append, clock)


def test_a_result_is_sent_with_its_checkpoint_and_holds_the_best_so_far(follower, sent, tmp_path) -> None:
    saved = {"kind": "saved", "rank": 0, "total_step": 0}
    for number, (ndcg, use) in enumerate([(0.2, 0.5), (0.1, 0.8), (0.3, 0.4)]):
        follower(event(number + 1, ndcg, use))
        assert len(sent) == number
        follower(saved)
        follower(saved)  # a checkpoint between evaluations tells nothing
    assert [r["value/ndcg@10"] for r in sent] == [0.2, 0.2, 0.3]
    assert [r["value/load_balance"] for r in sent] == [0.5, 0.5, 0.4]
    assert [r["evaluations"] for r in sent] == [1, 2, 3]
    assert read_trial(Storage(str(tmp_path))).curve == [0.2, 0.1, 0.3]


def test_other_ranks_tell_nothing(follower, sent) -> None:
    follower(event(1, 0.5) | {"rank": 1})
    follower({"kind": "saved", "rank": 1})
    assert sent == []
    assert follower.trial.evaluations == 0


def test_an_objective_that_is_not_measured_is_named(follower, sent) -> None:
    record = event(1, 0.5)
    del record["moe/a/use_entropy"], record["moe/b/use_entropy"]
    follower(record)
    follower({"kind": "saved", "rank": 0})
    assert sent == []
    assert follower.missing.startswith("load_balance; there are")


def test_a_run_that_goes_on_tells_again_and_adds_its_time(tmp_path, sent) -> None:
    before = Trial("t", {}, train_s=100.0, total_s=200.0, evaluate_s=[0.5, 0.75])
    clock = iter(range(0, 1000, 10)).__next__
    again = Follower(Trial("t", {}, train_s=100.0, total_s=200.0), Storage(str(tmp_path)), GOALS, sent.append, clock)
    again.replay([event(1, 0.1), event(2, 0.4)], before, tell=True)
    assert [r["value/ndcg@10"] for r in sent] == [0.1, 0.4]
    assert again.trial.evaluate_s == [0.5, 0.75]
    again.end(FINISHED)
    found = read_trial(Storage(str(tmp_path)))
    assert (found.status, found.total_s) == (FINISHED, 230.0)


def test_only_the_last_phase_is_what_a_trial_is_worth(sent, tmp_path) -> None:
    follower = Follower(Trial("t", {}), Storage(str(tmp_path)), GOALS, sent.append, phases=2)
    saved = {"kind": "saved", "rank": 0}
    for step, ndcg, last in [(1, 0.9, False), (2, 0.8, False), (3, 0.2, True), (4, 0.3, True)]:
        follower(event(step, ndcg, last=last, two=True))
        follower(saved)
    assert [r["value/ndcg@10"] for r in sent] == [0.2, 0.3]
    assert [r["evaluations"] for r in sent] == [1, 2]
    found = read_trial(Storage(str(tmp_path)))
    assert (found.evaluations, found.curve, found.best["ndcg@10"]) == (4, [0.2, 0.3], 0.3)


def test_an_earlier_phase_may_measure_something_else(sent, tmp_path) -> None:
    follower = Follower(Trial("t", {}), Storage(str(tmp_path)), GOALS, sent.append, phases=2)
    record = event(1, 0.0, last=False, two=True)
    del record["ndcg@10"]
    follower(record | {"val_loss": 2.0})
    follower(event(2, 0.5, two=True))
    follower({"kind": "saved", "rank": 0})
    assert follower.missing == ""
    assert [r["value/ndcg@10"] for r in sent] == [0.5]


def test_lower_can_be_better(tmp_path, sent) -> None:
    follower = Follower(Trial("t", {}), Storage(str(tmp_path)), {"rmse": "min"}, sent.append)
    for step, value in enumerate([0.5, 0.3, 0.4]):
        follower(event(step, 0.0) | {"rmse": value})
        follower({"kind": "saved", "rank": 0})
    assert [r["value/rmse"] for r in sent] == [0.5, 0.3, 0.3]


def test_evaluations_that_a_run_makes_again_after_a_loss_are_counted_once(follower, sent) -> None:
    saved = {"kind": "saved", "rank": 0}
    for told in (event(1, 0.2), saved, event(2, 0.9), event(2, 0.4), saved, event(3, 0.3), saved):
        follower(told)
    assert [r["evaluations"] for r in sent] == [1, 2, 3]
    assert follower.trial.curve == [0.2, 0.4, 0.3]
    assert follower.trial.evaluations == 3
    assert follower.trial.best["ndcg@10"] == 0.4
