"""What is asked of a server of chat completions, however it behaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rec.benchmarks.chat_server import Chat
from rec.data.modalities.items import Written
from rec.data.modalities.job import ModalityJob
from rec.errors import DataError
from tests.support.films import job_of

NAMES = ["narrative", "pace"]


def asked(chat: Chat, folder: Path, count: int = 20, more: Any = None, **writer: Any) -> ModalityJob:
    keys = {"kind": "chat", "url": chat.url, "model": "m", "cache": f"{folder}/answers", "concurrency": 8} | writer
    return job_of(folder, count, writer=keys, **(more or {}))


def all_of(job: ModalityJob) -> list[Written]:
    return [one for some in job.write() for one in some]


def test_every_item_is_asked_once_and_comes_in_order(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, delay_s=0.005)
    found = all_of(asked(chat, tmp_path))
    assert [one.texts["pace"] for one in found] == [f"Film {n} as pace" for n in range(20)]
    told = chat.told()
    assert set(told["asked"].values()) == {1}
    assert 1 < told["most_open"] <= 8


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_asked_holds_prompt_examples_and_parameters(tmp_path: Path, chat: Chat, stream: bool) -> None:
    chat.behave(names=NAMES)
    (one,) = all_of(asked(chat, tmp_path, 1, stream=stream, format="json_schema", max_tokens=99))
    assert one.texts == {"narrative": "Film 0 as narrative", "pace": "Film 0 as pace"}
    body = chat.told()["last"][0]
    assert body["max_tokens"] == 99
    assert body["response_format"]["json_schema"]["schema"]["required"] == NAMES
    assert [message["role"] for message in body["messages"]] == ["system", *["user", "assistant"] * 2, "user"]
    assert "keys narrative, pace;" in body["messages"][0]["content"]
    assert body["messages"][-1]["content"].startswith("Title: Film 0 (1950)\nGenres: Drama\n")
    assert body["messages"][-1]["content"].endswith("Context: nothing is known")
    assert one.output_tokens > 0


def test_a_server_that_fails_every_fifth_request_answers_all_items(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, fail=0.1, reset=0.05, garbage=0.2)  # of the last those that are neither of the others
    found = all_of(asked(chat, tmp_path, 300, concurrency=32))
    assert {one.fault for one in found} == {""}
    requests = chat.told()["requests"]
    assert 300 * 1.15 < requests <= 300 * 1.3


def test_a_server_that_limits_is_left_alone_for_as_long_as_it_says(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, fail=0.05, status=429, retry_after="1")
    job = asked(chat, tmp_path, 40)
    assert {one.fault for one in all_of(job)} == {""}
    told = chat.told()
    gaps = [after - before for before, after in zip(told["times"], told["times"][1:], strict=False)]
    assert job.writer.model.told.retries > 0  # type: ignore[attr-defined]
    assert max(gaps) >= 0.9


def test_requests_keep_to_the_limit_per_minute(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES)
    all_of(asked(chat, tmp_path, 45, requests_per_minute=20 * 60))
    # A second's 20 may come at once, 25 more take as many twentieths of a second.
    assert chat.told()["span_s"] >= 1.1


def test_tokens_keep_to_the_limit_per_minute(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES)
    job = asked(chat, tmp_path, 30, tokens_per_minute=60 * 4000, max_tokens=100)
    all_of(job)
    # A second's 4,000 may come at once; the others take as many seconds as there are of those.
    used = job.writer.model.told.usage.total  # type: ignore[attr-defined]
    assert chat.told()["span_s"] >= 0.8 * (used - 4000) / 4000 > 0.8


@pytest.mark.parametrize("kind", ["malformed", "cut"])
def test_an_answer_that_cannot_be_used_is_asked_again_with_the_reason(tmp_path: Path, chat: Chat, kind: str) -> None:
    chat.behave(names=NAMES, **{kind: ["Film 3"]})
    found = all_of(asked(chat, tmp_path, 5))
    assert [one.repaired for one in found] == [False, False, False, True, False]
    assert found[3].texts["pace"] == "Film 3 as pace"
    assert chat.told()["asked"]["Film 3"] == 2
    last = [body for body in chat.told()["last"] if len(body["messages"]) == 8]
    reason = "it is not JSON" if kind == "malformed" else "it was longer than allowed and was cut"
    assert reason in last[0]["messages"][-1]["content"]


def test_an_item_without_a_usable_answer_is_marked_and_written_by_template(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, hopeless=["Film 1"], refuse=["Film 2"])
    found = all_of(asked(chat, tmp_path, 4))
    assert [bool(one.fault) for one in found] == [False, True, True, False]
    assert "cannot be used, nor the one after it: it is not JSON" in found[1].fault
    assert "answered 400: too long" in found[2].fault
    assert found[1].texts["narrative"] == "Two spies meet in Paris and talk."
    assert set(found[1].writers.values()) == {"template"}
    assert chat.told()["asked"] == {"Film 0": 1, "Film 1": 2, "Film 2": 1, "Film 3": 1}


def test_a_streamed_answer_that_breaks_off_is_asked_again(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, break_off=0.3)
    found = all_of(asked(chat, tmp_path, 20, stream=True))
    assert {one.fault for one in found} == {""}
    assert found[7].texts["pace"] == "Film 7 as pace"
    assert chat.told()["requests"] > 20


def test_a_slow_stream_is_not_taken_for_a_silent_one(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, word_s=0.08)  # 8 parts take longer than the timeout, no part does
    found = all_of(asked(chat, tmp_path, 2, stream=True, timeout_s=0.5))
    assert {one.fault for one in found} == {""}
    assert chat.told()["requests"] == 2


def test_a_silent_server_is_given_up_with_the_reason(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, delay_s=30)
    (one,) = all_of(asked(chat, tmp_path, 1, timeout_s=0.1, retries=1))
    assert "no answer after 2 requests" in one.fault
    assert "Timeout" in one.fault


def test_a_server_that_answers_nothing_ends_the_job(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, fail=1.0)
    with pytest.raises(DataError, match="11 questions in a row have no answer"):
        all_of(asked(chat, tmp_path, 60, retries=0, concurrency=2))
    assert chat.told()["requests"] <= 13


def test_a_request_that_failed_comes_before_new_ones(tmp_path: Path, chat: Chat) -> None:
    """Else a server that hangs is known for one only when all that waits has failed as often as it may."""
    chat.behave(names=NAMES, fail=1.0)
    with pytest.raises(DataError, match="in a row have no answer"):
        all_of(asked(chat, tmp_path, 400, retries=1, concurrency=2))
    # Eleven questions fail twice; those behind them were hardly begun.
    assert chat.told()["requests"] < 40


def test_nothing_is_asked_twice_and_a_changed_prompt_asks_what_it_changes(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES)
    first = all_of(asked(chat, tmp_path, 12))
    again = asked(chat, tmp_path, 12)
    assert [one.texts for one in all_of(again)] == [one.texts for one in first]
    assert chat.told()["requests"] == 12
    # {plot} is "" of every third film: their question stays as it was.
    user = "Title: {title} ({year})\nGenres: {genres}\nDirector: {directors}\nWriters: {writers}\nActors: {actors}\n"
    changed = {"prompt": {"user": user + "Plot: {plot}{plot}\nContext: {context}", "examples": []}}
    same = {"prompt": {"user": user + "Plot: {plot}\nContext: {context}", "examples": []}}
    all_of(asked(chat, tmp_path, 12, more=same))
    assert chat.told()["requests"] == 24
    all_of(asked(chat, tmp_path, 12, more=changed))
    assert chat.told()["requests"] == 32
    all_of(asked(chat, tmp_path, 15, more=changed))  # three new items
    assert chat.told()["requests"] == 35
    all_of(asked(chat, tmp_path, 12, more=changed, temperature=0.5))
    assert chat.told()["requests"] == 47


def test_items_of_which_the_same_is_known_are_asked_about_once(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, delay_s=0.01)
    all_of(asked(chat, tmp_path, 30, more={"prompt": {"user": "Title: {genres}", "examples": []}}))
    assert chat.told()["asked"] == {"Drama": 1, "Musical": 1, "Action": 1}


def test_what_nothing_supports_is_reflected_on(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES, invent=["Film 1"])
    found = all_of(asked(chat, tmp_path, 3, {"faithfulness": {"threshold": 0.5, "reflect": True}}))
    assert [one.reflected for one in found] == [False, True, False]
    assert found[1].texts["pace"] == "Film 1 as pace"
    last = next(body for body in chat.told()["last"] if len(body["messages"]) == 8)
    assert "narrative: Zanzibar Quixote" in last["messages"][-1]["content"]


@pytest.mark.parametrize(("then", "text"), [("template", "Two spies meet in Paris and talk."), ("mask", "")])
def test_what_stays_unsupported_is_written_by_template_or_left_out(
    tmp_path: Path, chat: Chat, then: str, text: str
) -> None:
    chat.behave(names=NAMES, invent=["Film 1"])
    keys = {"faithfulness": {"threshold": 0.5, "then": then}}
    found = all_of(asked(chat, tmp_path, 3, keys))
    assert found[1].texts["narrative"] == text
    assert found[1].writers["narrative"] == ("template" if then == "template" else "masked")
    assert found[1].faithfulness["narrative"].score < 0.5
    assert chat.told()["requests"] == 3


def test_a_budget_of_half_the_cost_stops_with_half_the_items(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES)
    whole = asked(chat, tmp_path / "whole", 100, max_tokens=40)
    all_of(whole)
    used = whole.writer.model.told.usage.total  # type: ignore[attr-defined]
    chat.behave(names=NAMES)
    job = asked(chat, tmp_path, 100, max_tokens=40, budget_tokens=used // 2)
    with pytest.raises(DataError, match=r"budget_tokens: .* of 100 items are written, and kept in .*goes on") as told:
        all_of(job)
    done = int(str(told.value).split("; ")[1].split()[0])
    assert 47 <= done <= 50
    assert job.writer.model.told.usage.total <= used // 2  # type: ignore[attr-defined]
    rest = asked(chat, tmp_path, 100, max_tokens=40, budget_tokens=used)
    assert len(all_of(rest)) == 100
    assert set(chat.told()["asked"].values()) == {1}


def test_a_budget_of_money_is_kept(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES)
    prices = {"input_price": 1.0, "output_price": 10.0}
    job = asked(chat, tmp_path, 50, max_tokens=40, budget_money=0.01, **prices)
    with pytest.raises(DataError, match=r"budget_money: .* of 0.01 is spent"):
        all_of(job)
    assert 0.008 < job.prices.money(job.writer.model.told.usage) <= 0.01  # type: ignore[attr-defined]


def test_the_cost_is_told_before_the_first_request(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=NAMES)
    job = asked(chat, tmp_path, 20, input_price=1.0, output_price=2.0)
    found = job.estimate()
    assert found is not None
    assert chat.told()["requests"] == 0
    assert (found.questions, found.exact) == (20, True)
    all_of(job)
    used = job.writer.model.told.usage  # type: ignore[attr-defined]
    assert found.usage.input == pytest.approx(used.input, rel=0.15)
    assert found.money == pytest.approx(job.prices.money(found.usage))
    again = asked(chat, tmp_path, 20).estimate()
    assert again is not None
    assert again.questions == 0
