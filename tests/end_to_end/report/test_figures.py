"""What holds for the figures and tables of every system's report: values to draw, axes with names, no empty columns."""

from collections.abc import Iterator
from typing import Any

import pytest

from rec.config import RunConfig, from_table
from rec.data.config import DataConfig
from rec.data.generated.graph import PlantedGraphConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.evaluation.run import evaluate_run
from rec.report.columns import filled
from rec.report.drawing import has_values
from rec.sections import Bars, Heatmap, Lines, Section, Table, from_plain
from rec.storage import Storage
from rec.train.job import train_here

SMALL = {"users": 60, "items": 40, "interactions": 900, "width": 6}


@pytest.fixture(scope="module")
def graph_trained(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A MAGNET run of two epochs."""
    folder = tmp_path_factory.mktemp("graph-figures")
    data = DataConfig(
        root=str(folder / "data"),
        source="rec.data.generated.graph:PlantedGraph",
        read=PlantedGraphConfig(**SMALL),
        split={"protocol": "mmrec"},
    )
    prepare(data, InProcess(), lambda _: None, ["graph"])
    config = from_table(
        {
            "system": "rec.systems.magnet:Magnet",
            "out": str(folder / "run"),
            "data": data.model_dump(mode="json"),
            "train": {"batch_size": 128, "epochs": 2},
            "evaluate": {"bootstrap": 100},
        }
    )
    train_here(config, lambda _: None, lambda _: None)
    return config


@pytest.fixture(scope="module", params=["trained", "food_trained", "graph_trained"])
def sections(request: pytest.FixtureRequest) -> tuple[Section, ...]:
    """What a measured run has filed."""
    config = request.getfixturevalue(request.param)
    evaluate_run(config, "val")
    return from_plain(Storage(config.out).read_json("evaluation/val/sections.json"))


def parts(sections: tuple[Section, ...], kind: Any) -> Iterator[tuple[str, Any]]:
    for section in sections:
        for part in section.parts:
            if isinstance(part, kind):
                yield section.title, part


def test_every_figure_has_values_and_named_axes(sections: tuple[Section, ...]) -> None:
    found = list(parts(sections, Bars | Lines | Heatmap))
    assert len(found) > 2
    for title, figure in found:
        assert has_values(figure), (title, figure.title)
        assert figure.title
        names = [figure.axis] if isinstance(figure, Bars) else [figure.x_axis, figure.y_axis]
        assert all(names), (title, figure.title)
        if isinstance(figure, Heatmap):
            assert figure.meaning


def test_what_is_drawn_over_training_counts_epochs(sections: tuple[Section, ...]) -> None:
    for title, figure in parts(sections, Lines):
        if "training" in title or "training" in figure.title:
            assert figure.x_axis == "epoch"
            assert all(x == int(x) for series in figure.series for x in series.x)


def test_no_column_of_a_table_is_empty(sections: tuple[Section, ...]) -> None:
    for title, table in parts(sections, Table):
        assert table.rows, title
        assert filled(table) == table, (title, table.head)
        assert not any(set(column) == {"-"} for column in zip(*table.rows, strict=True)), (title, table.head)


def test_every_section_is_explained_in_words_or_by_a_caption(sections: tuple[Section, ...]) -> None:
    for section in sections:
        words = [getattr(part, "text", "") or getattr(part, "caption", "") for part in section.parts]
        assert any(words), section.title


def test_a_sweep_draws_what_fewer_bad_pairs_cost() -> None:
    from rec.report.sweep import trade_off

    def row(name: str, **metrics: float) -> dict[str, Any]:
        return {"variant": name, "metrics": {key: {"mean": value} for key, value in metrics.items()}}

    one = {
        "baselines": {"popularity": {"jaccard_patient": 0.3, "ddi_rate": 0.04}, "mute": {"jaccard_patient": 0.2}},
        "directions": {"jaccard_patient": True, "ddi_rate": False},
    }
    rows = [row("full", jaccard_patient=0.45, ddi_rate=0.08), row("greedy", jaccard_patient=0.44, ddi_rate=0.0)]
    (figure,) = trade_off(rows, one, ("ddi_rate", "jaccard_patient"))
    assert [(s.name, s.x[0], s.y[0], s.muted) for s in figure.series] == [
        ("full", 0.08, 0.45, False),
        ("greedy", 0.0, 0.44, False),
        ("popularity", 0.04, 0.3, True),
    ]
    assert "less ddi_rate and more jaccard_patient" in figure.caption
    assert trade_off(rows, one, None) == []
    assert trade_off([rows[0], row("silent", jaccard_patient=0.1)], one, ("ddi_rate", "jaccard_patient")) == []
