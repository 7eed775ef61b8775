"""Lines of a page are named by the keys that tell them apart."""

from collections.abc import Sequence

from rec.config import from_table
from rec.report.results.find import Run
from rec.report.results.lines import Line, _set, labels

EXPERTS = "feedforward_mixture"


def line(**model: object) -> Line:
    table = {"system": "rec.systems.msmrec:MSMRec", "out": "o", "data": {"root": "d"}, "model": model}
    run = Run(folder="o", shown="o", config=from_table(table), numbers={}, training=None, measurement=None, data={})
    return Line(runs=(run,), keys=_set(run))


def named(*models: dict[str, object]) -> Sequence[str]:
    return labels([line(**model) for model in models])


def test_one_key_is_enough_where_it_tells_all() -> None:
    assert named({}, {"gate": "none"}) == ["MSMRec", "MSMRec, gate=none"]


def test_a_curve_tells_its_key_in_each_line_the_default_too() -> None:
    mixtures = [{"experts": 8, "router": "random", "z_weight": 0.0}, {"experts": 8}, {"experts": 2}]
    found = named({"feedforward": 128, "dropout": 0.3}, *({EXPERTS: mixture} for mixture in mixtures))
    key = f"{EXPERTS}.experts"
    assert found[0].startswith(f"MSMRec, {key}=0, ")
    assert found[1].startswith(f"MSMRec, {key}=8, {EXPERTS}.router=random")
    assert found[2] == f"MSMRec, {key}=8"
    assert found[3] == f"MSMRec, {key}=2"


def test_lines_that_no_key_tells_apart_are_numbered() -> None:
    assert named({}, {}) == ["MSMRec (1)", "MSMRec (2)"]
