"""Import paths that name no class: what was meant, and what is shipped."""

from pathlib import Path

import pytest

from rec.config import from_table
from rec.errors import ConfigError
from rec.shipped import shipped_for, suggestion
from rec.strict import resolve


def test_what_is_shipped_is_found_without_a_list_of_names() -> None:
    assert {"rec.data.sources.tables:Tables", "rec.data.generated.graph:PlantedGraph"} <= set(
        shipped_for("data.source")
    )
    assert {"rec.systems.msmrec:MSMRec", "rec.systems.lightgcn:LightGCN"} <= set(shipped_for("system"))
    assert not any("Config" in path or "schema" in path for path in shipped_for("data.source"))
    for key in ("system", "data.source"):
        assert all(isinstance(resolve(path), type) for path in shipped_for(key))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "shop",
            "expected an import path package.module:Class, of your own or one of .*rec.data.sources.movielens:MovieL",
        ),
        ("movielens", "did you mean 'rec.data.sources.movielens:MovieLens'?"),
        ("rec.data.sources.movielen:MovieLens", "did you mean 'rec.data.sources.movielens:MovieLens'?"),
        ("rec.data.sources.movielens:Movielens", "did you mean 'rec.data.sources.movielens:MovieLens'?"),
        ("rec.data.sources.mmrec", "did you mean 'rec.data.sources.mmrec:MMRec'?"),
        ("tests.support.ownn:write_events", "did you mean 'tests.support.own:write_events'?"),
    ],
)
def test_a_source_that_is_none_is_told_with_what_was_meant(source: str, words: str) -> None:
    table = {"system": "rec.systems.msmrec:MSMRec", "out": "out", "data": {"root": "data", "source": source}}
    with pytest.raises(ConfigError, match=f"^data.source: no class '{source}' .*; {words}"):
        from_table(table)


@pytest.mark.parametrize(
    ("system", "near"),
    [
        ("msmrec", "rec.systems.msmrec:MSMRec"),
        ("rec.systems.magnet:Magnt", "rec.systems.magnet:Magnet"),
        ("rec.systems.lightgnc:LightGCN", "rec.systems.lightgcn:LightGCN"),
    ],
)
def test_a_system_that_is_none_is_told_with_what_was_meant(system: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"^system: no class '{system}' .*; did you mean '{near}'"):
        from_table({"system": system, "out": "out", "data": {"root": "data"}})


def test_a_module_that_lacks_another_one_is_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "visits_of_a_shop.py").write_text("import no_such_thing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"no class 'visits_of_a_shop:Visits' \(No module named 'no_such_thing'\)$"):
        resolve("visits_of_a_shop:Visits", "data.source")
    assert "did you mean" not in suggestion("shop", "data.source")
