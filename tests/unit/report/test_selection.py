"""What a page leaves out: places that hold every candidate, groups of one, the same map twice."""

from rec.report.selection import of_all_candidates, selected, without_metrics
from rec.sections import Bars, BarSeries, Heatmap, Section, Table, Text

DROPPED = {"hit@100", "recall@100", "map@100"}


def share_map(title: str, first: float) -> Heatmap:
    names = ["0", "1"]
    matrix = [[first, 0.5], [0.25, 0.75]]
    return Heatmap(title=title, matrix=matrix, x_names=names, y_names=names, x_axis="e", y_axis="g", meaning="share")


def test_places_that_hold_every_candidate_are_found() -> None:
    assert of_all_candidates(["hit@10", "hit@60", "ndcg@100", "mrr"], 60) == {"hit@60", "ndcg@100"}
    assert of_all_candidates(["hit@100"], None) == set()


def test_metrics_are_left_out_of_what_is_told() -> None:
    numbers = {"shown": ["hit@10", "hit@100"], "metrics": {"hit@10": 0.5, "hit@100": 1.0}}
    assert without_metrics(numbers, DROPPED) == {"shown": ["hit@10"], "metrics": {"hit@10": 0.5}}
    alone = {"shown": ["hit@100"], "metrics": {"hit@100": 1.0}}
    assert without_metrics(alone, DROPPED) == alone


def test_metrics_are_left_out_of_tables_and_bars() -> None:
    table = Table(head=["", "hit@10", "mrr = map@100", "hit@100 = recall@100"], rows=[["this run", "1", "2", "3"]])
    series = BarSeries(name="this run", values=[1, 3], low=[0, 2], high=[2, 4])
    bars = Bars(title="t", groups=["hit@10", "hit@100"], series=[series], axis="value")
    (section,) = selected([Section(title="s", parts=[table, bars])], DROPPED)
    assert section.parts[0] == Table(head=["", "hit@10", "mrr"], rows=[["this run", "1", "2"]])
    kept = BarSeries(name="this run", values=[1], low=[0], high=[2])
    assert section.parts[1] == Bars(title="t", groups=["hit@10"], series=[kept], axis="value")


def test_one_group_alone_is_no_group() -> None:
    def groups(*names: str) -> Section:
        table = Table(head=["group", "hit@10"], rows=[[name, "1"] for name in names])
        return Section(title="Groups: ranking", parts=[Text(text="x"), table])

    assert selected([groups("all")], ()) == []
    assert len(selected([groups("a", "b")], ())) == 1


def test_a_map_is_shown_once() -> None:
    first, again, other = share_map("a", 0.5), share_map("b", 0.500001), share_map("c", 0.4)
    found = selected([Section(title="s", parts=[first]), Section(title="t", parts=[again, other])], ())
    assert [[part.title for part in section.parts] for section in found] == [["a"], ["c"]]
