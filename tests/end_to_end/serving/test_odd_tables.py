"""What is served of tables that people really bring: ids that addresses cannot hold, truths, tags in any case."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from rec.config import from_table
from rec.data.config import DataConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.config import ServeConfig
from rec.serving.export import export
from rec.train.job import train_here
from tests.conftest import TINY_HEALTHMOE
from tests.end_to_end.serving.test_app import Noted, ask
from tests.unit.data.test_images import encoded

ODD = (
    "a/b",
    "..",
    ".",
    "%2F",
    "?",
    "#x",
    "\U0001f600",
    "a b",
    "a+b",
    "&id=1",
    "a/media",
    "http://a/b",
    "\\",
    "x" * 256,
)
PLAIN = tuple(f"i{n}" for n in range(6))
ITEMS = ODD + PLAIN


def write_tables(folder: Path) -> dict[str, Any]:
    """Write twelve users, a half of whom smoke and one of whom must avoid peanuts, and items of which one has some."""
    items = pd.DataFrame({"sku": ITEMS, "words": [f"salt number {n}" for n in range(len(ITEMS))]})
    items["has"] = [["Peanut "] if name == "a/b" else ["MILK"] for name in ITEMS]
    items["photo"] = [encoded(size=(20 + n, 20)) for n in range(len(ITEMS))]
    items.to_parquet(folder / "items.parquet")
    users = pd.DataFrame({"who": [f"u{n}" for n in range(12)], "smoker": [True, False] * 6})
    users["born"] = [pd.Timestamp(1950 + n, 1, 1) if n else pd.NaT for n in range(12)]
    users["age"] = [str(20 + n) for n in range(12)]
    users.assign(allergy=["peanut", *[None] * 11], story="likes salt").to_parquet(folder / "users.parquet")
    pairs = [(f"u{u}", ITEMS[(u + d) % len(ITEMS)]) for u in range(12) for d in range(1, 7)]
    pd.DataFrame(pairs, columns=["who", "sku"]).to_parquet(folder / "pairs.parquet")
    columns = {"user": "who", "item": "sku", "item_text": ["words"], "image": "photo", "user_text": ["story"]}
    columns |= {"user_attributes": ["smoker", "born", "age"], "avoid": "allergy", "contains": "has"}
    read = {name: f"{folder}/{name}.parquet" for name in ("items", "users")} | {"records": [f"{folder}/pairs.parquet"]}
    return {
        "read": read | {"columns": columns}, "filter": {"unseen": ["user", "item"]}, "split": {"protocol": "ratio"},
        "encode": {"image": {"size": 16, "thumbnail": 24}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    folder = tmp_path_factory.mktemp("odd")
    data = DataConfig.model_validate({"root": f"{folder}/data", **write_tables(folder)})
    prepare(data, InProcess(), lambda _: None)
    table = {"system": "rec.systems.healthmoe:HealthMoE", "out": f"{folder}/run", "model": TINY_HEALTHMOE}
    config = from_table(table | {"data": {"root": f"{folder}/data"}, "train": {"batch_size": 16, "epochs": 1}})
    train_here(config, lambda _: None, lambda _: None)
    return Answerer(export(config, f"{folder}/artifact", lambda _: None))


@pytest.fixture
def client(answerer: Answerer) -> Any:
    with TestClient(create(answerer, ServeConfig(), Noted(), None, "r")) as found:
        yield found


def test_the_picture_of_every_id_is_found(client: TestClient, answerer: Answerer) -> None:
    found = ask(client, profile={"text": "salt"}, k=len(ITEMS))["items"]
    assert {entry["item"] for entry in found} == set(ITEMS)
    members = answerer.entities["item"]
    for entry in found:
        picture = client.get("/" + entry["image"])
        assert picture.status_code == 200, entry
        assert picture.content == members.picture(int(members.find([entry["item"]])[0]))
        assert picture.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize("name", ITEMS)
def test_what_is_known_of_every_id_is_told(client: TestClient, name: str) -> None:
    found = client.get("/v1/member", params={"entity": "item", "id": name})
    assert found.json()["id"] == name
    assert client.get("/" + found.json()["image"]).status_code == 200
    assert ask(client, path="explain", item=name, profile={"text": "salt"})["item"] == name


@pytest.mark.parametrize("name", ["", "a", "a/b\0", "%2f", "...", "x" * 255])
def test_other_ids_are_not_known(client: TestClient, name: str) -> None:
    for path in ("media", "member"):
        assert client.get(f"/v1/{path}", params={"entity": "item", "id": name}).status_code == 404
    assert client.get("/v1/media", params={"entity": "film", "id": name}).status_code == 404


def test_a_path_with_slashes_leads_to_a_picture_too(client: TestClient) -> None:
    assert client.get("/v1/items/a%2Fb/image").content.startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize(
    ("attributes", "same"),
    [
        ({"smoker": True}, {"smoker": "True"}),
        ({"smoker": False}, {"smoker": "false"}),
        ({"age": 30}, {"age": "30"}),
        ({"age": 30.0}, {"age": 30}),
        ({"born": "1955-01-01"}, {"born": "1955-01-01T00:00:00Z"}),
        ({"smoker": None, "age": 25}, {"age": 25}),
    ],
)
def test_values_of_json_are_those_of_the_table(client: TestClient, attributes: Any, same: Any) -> None:
    first, second = (ask(client, profile={"attributes": given}, k=5)["items"] for given in (attributes, same))
    assert first == second


def test_a_profile_with_a_users_own_values_is_encoded_as_that_user(answerer: Answerer) -> None:
    rows = {"user": [5, -1], "history": [[], []], "target": [[], []]}
    profile = {"attributes": {"smoker": False, "born": "1955-01-01", "age": 25}}
    batch = answerer.system.collate(rows | {"profile": [None, profile]})
    assert batch.attributes_BA[0].tolist() == batch.attributes_BA[1].tolist()
    assert batch.present_BM[:, 1].tolist() == [True, True]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"profile": {"attributes": {"smoker": 1}}}', "expected one of False, True"),
        (b'{"profile": {"attributes": {"age": "old"}}}', "expected a number, got 'old'"),
        (b'{"profile": {"attributes": {"age": NaN}}}', "finite number"),
        (b'{"profile": {"attributes": {"age": -Infinity}}}', "finite number"),
        (b'{"profile": {"attributes": {"age": 1e999}}}', "finite number"),
        (b'{"profile": {"attributes": {"age": [1]}}}', "body.profile.attributes.age"),
    ],
)
def test_values_that_no_table_holds_are_refused(client: TestClient, body: bytes, told: str) -> None:
    answer = client.post("/v1/recommend", content=body)
    assert answer.status_code == 422
    assert told in answer.text


@pytest.mark.parametrize("tag", ["peanut", "Peanut", " PEANUT "])
def test_what_is_avoided_never_comes_back_however_it_is_written(client: TestClient, tag: str) -> None:
    found = ask(client, profile={"text": "salt"}, avoid=[tag], k=len(ITEMS))
    assert {entry["item"] for entry in found["items"]} == set(ITEMS) - {"a/b"}
    assert [entry["contains"] for entry in found["withheld"]] == [["peanut"]]


def test_what_a_table_says_is_avoided_never_comes_back(client: TestClient) -> None:
    found = ask(client, user="u0", k=len(ITEMS))
    assert "a/b" not in {entry["item"] for entry in found["items"]}


@pytest.mark.parametrize("name", ["nut", "pea nut", "\U0001f95c", "0"])
def test_what_is_to_be_avoided_and_not_known_is_refused_by_the_field_that_was_sent(
    client: TestClient, name: str
) -> None:
    told = ask(client, 422, profile={"text": "salt"}, avoid=[name])["detail"]
    assert told == f"avoid: {name!r} is not known; known: MILK, peanut"
