"""What is asked of a server of embeddings, however it behaves."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rec.benchmarks.chat_server import Chat, embedding
from rec.config import RunConfig, from_table
from rec.data.config import EndpointConfig
from rec.data.modalities.client import Failure
from rec.data.modalities.embeddings import EndpointEncoder, vectors_of
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.errors import ConfigError, DataError
from rec.json_text import json_text
from tests.end_to_end.test_keys import MSMREC, check_unread, reads
from tests.support.films import film_tables

TEXTS = [f"film {n} of {n % 3} spies" for n in range(20)]


def encoder(chat: Chat, folder: Path, environment: dict[str, str] | None = None, **keys: Any) -> EndpointEncoder:
    size = keys.pop("batch_size", 4)
    config = EndpointConfig.model_validate({"url": chat.embeddings, "model": "m", "concurrency": 4} | keys)
    return EndpointEncoder(config, batch_size=size, cache=f"{folder}/answers", environment=environment or {})


def expected(texts: list[str], width: int = 8) -> np.ndarray:
    return np.stack([embedding(text, width) for text in texts])


@pytest.mark.parametrize("base64", [False, True])
def test_texts_are_asked_in_batches_and_their_vectors_come_in_order(tmp_path: Path, chat: Chat, base64: bool) -> None:
    chat.behave(base64=base64)
    found = encoder(chat, tmp_path).encode([*TEXTS, "", f" {TEXTS[3]} "])
    np.testing.assert_allclose(found, np.concatenate([expected(TEXTS), np.zeros((1, 8)), expected(TEXTS[3:4])]), 1e-6)
    assert found.dtype == np.float32
    told = chat.told()
    assert told["requests"] == 5
    assert set(told["asked"].values()) == {1}
    assert {"model": "m", "encoding_format": "float"}.items() <= told["last"][0].items()


def test_vectors_that_are_there_are_not_asked_for_again(tmp_path: Path, chat: Chat) -> None:
    first = encoder(chat, tmp_path).encode(TEXTS)
    again = encoder(chat, tmp_path, url=f"{chat.base}/nowhere")
    np.testing.assert_array_equal(again.encode(TEXTS), first)
    assert (again.told.requests, again.kept) == (0, 20)
    assert encoder(chat, tmp_path).encode([*TEXTS, "one more"]).shape == (21, 8)
    told = chat.told()
    assert (told["requests"], told["asked"]["one more"]) == (6, 1)
    assert encoder(chat, tmp_path, dimensions=5).encode(TEXTS[:2]).shape == (2, 5)
    assert chat.told()["last"][-1]["dimensions"] == 5


def test_a_server_that_fails_cuts_and_answers_badly_gives_all_vectors(tmp_path: Path, chat: Chat) -> None:
    chat.behave(fail=0.15, reset=0.05, garbage=0.3)
    texts = [f"film {n}" for n in range(200)]
    np.testing.assert_allclose(encoder(chat, tmp_path).encode(texts), expected(texts), 1e-6)
    assert 50 < chat.told()["requests"] < 100


def test_a_server_that_limits_is_left_alone_for_as_long_as_it_says(tmp_path: Path, chat: Chat) -> None:
    chat.behave(fail=0.2, status=429, retry_after="1")
    asked = encoder(chat, tmp_path, concurrency=1)
    asked.encode([f"film {n}" for n in range(60)])
    times = chat.told()["times"]
    assert asked.told.retries > 0
    assert max(after - before for before, after in itertools.pairwise(times)) >= 0.9


def test_what_is_too_much_at_once_is_asked_for_by_halves(tmp_path: Path, chat: Chat) -> None:
    chat.behave(most_texts=1)
    found = encoder(chat, tmp_path, batch_size=20, concurrency=1).encode(TEXTS)
    np.testing.assert_allclose(found, expected(TEXTS), 1e-6)


def test_a_text_that_is_refused_is_named_and_the_others_are_kept(tmp_path: Path, chat: Chat) -> None:
    chat.behave(refuse=[TEXTS[7]])
    asked = encoder(chat, tmp_path, concurrency=1)
    with pytest.raises(
        DataError, match=r"endpoint.url: .* answered 413: too long; the text of 17 .* 'film 7 of 1 spies"
    ):
        asked.encode(TEXTS)
    chat.behave()
    encoder(chat, tmp_path).encode(TEXTS)
    assert chat.told()["asked"].keys() <= {*TEXTS[6:8], *TEXTS[8:]}


def test_the_key_comes_from_the_environment_and_is_told_to_nobody(tmp_path: Path, chat: Chat) -> None:
    chat.behave(key="s3cr3t")
    with pytest.raises(ConfigError, match=r"data.text.endpoint.key: the environment has no variable 'MY_KEY'"):
        encoder(chat, tmp_path, key="MY_KEY").encode(TEXTS)
    with pytest.raises(DataError, match=r"answered 401: wrong key Bearer \[key\] .*endpoint.key names 'MY_KEY'"):
        encoder(chat, tmp_path, {"MY_KEY": "wr0ng"}, key="MY_KEY").encode(TEXTS)
    assert encoder(chat, tmp_path, {"MY_KEY": "s3cr3t"}, key="MY_KEY").encode(TEXTS).any()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"s3cr3t" in path.read_bytes()]


def test_a_spent_budget_ends_it_and_the_same_command_goes_on(tmp_path: Path, chat: Chat) -> None:
    texts = [f"{n:08}" for n in range(12)]  # of two tokens each
    keys: dict[str, Any] = {"budget_tokens": 10, "concurrency": 1, "batch_size": 2}
    with pytest.raises(DataError, match=r"endpoint.budget_tokens: 8 of 10 tokens are used; 4 of 12 texts that were"):
        encoder(chat, tmp_path, **keys).encode(texts)
    encoder(chat, tmp_path).encode(texts)
    assert chat.told()["asked"] == dict.fromkeys(texts, 1)


def test_a_server_that_is_not_there_is_told_with_its_address(tmp_path: Path, chat: Chat) -> None:
    with pytest.raises(DataError, match=r"no answer after 2 requests: http://127.0.0.1:9/v1/embeddings"):
        encoder(chat, tmp_path, url="http://127.0.0.1:9/v1/embeddings", retries=1).encode(TEXTS[:1])
    with pytest.raises(DataError, match=r"endpoint.url: .*/nowhere answered 404"):
        encoder(chat, tmp_path, url=f"{chat.base}/nowhere").encode(TEXTS[:1])


def test_a_model_that_changed_behind_its_name_is_told(tmp_path: Path, chat: Chat) -> None:
    encoder(chat, tmp_path).encode(TEXTS[:2])
    chat.behave(width=6)
    with pytest.raises(DataError, match=r"vectors of 6 and of 8 numbers by one name of a model, 'm'"):
        encoder(chat, tmp_path).encode(TEXTS[:4])


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({}, "is no list of embeddings"),
        ({"data": [{"index": 0, "embedding": [1.0]}]}, "has 1 embeddings, expected one for each of 2"),
        ({"data": [{"index": n, "embedding": [1.0]} for n in (0, 2)]}, "has 2 embeddings, expected one for each of 2"),
        ({"data": [{"index": n, "embedding": [1.0] * (n + 1)} for n in (0, 1)]}, "embedding 1 .* has shape"),
        ({"data": [{"index": n, "embedding": [1.0, None]} for n in (0, 1)]}, "or numbers that are not finite"),
        ({"data": [{"index": n, "embedding": "????"} for n in (0, 1)]}, "embedding 0 .* has shape"),
    ],
)
def test_an_answer_that_is_none_is_a_failure(told: Any, fault: str) -> None:
    with pytest.raises(Failure, match=fault):
        vectors_of(json_text(told).encode(), 2)


def test_a_key_of_an_endpoint_is_read_or_refused(tmp_path: Path, chat: Chat) -> None:
    data = film_tables(tmp_path)
    data["text"] = {"modalities": ["plot"], "encoder": "endpoint", "endpoint": {"url": chat.embeddings, "model": "m"}}
    data["text"]["endpoint"]["input_price"] = 1.0
    folders = iter(range(1000))

    def run(config: RunConfig) -> None:
        there = config.data.model_copy(update={"root": f"{tmp_path}/{next(folders)}/data"})
        prepare(there, InProcess(), lambda _: None)

    config = from_table({"system": MSMREC, "out": "o", "data": data | {"root": f"{tmp_path}/data"}})
    with reads() as found:
        run(config)
    assert {("EndpointConfig", "budget_tokens"), ("EndpointConfig", "dimensions")} <= found
    check_unread(config, found, ("data",), run)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ({"encoder": "http://a/v1/embeddings"}, "encoder: 'http://a/v1/embeddings' is an address: set encoder="),
        ({"encoder": "endpoint"}, "endpoint.url: needs an address that starts with http:// or https://, got ''"),
        ({"encoder": "endpoint", "endpoint": {"url": "http://a"}}, "endpoint.model: needs the name of a model"),
        ({"encoder": "endpoint", "endpoint": {"budget_money": 1.0}}, "budget_money: has no effect without input_price"),
    ],
)
def test_keys_that_do_not_fit_are_refused(text: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        from_table({"system": MSMREC, "out": "o", "data": {"root": "d", "text": text}})
