"""Every metric, simple answer and group that a report names is explained in a few words."""

import pytest

from rec.evaluation.task import Task
from rec.evaluation.tasks.ranking import Ranking
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.rating import baselines as rating_baselines
from rec.evaluation.tasks.sets import Sets
from rec.evaluation.tasks.sets import baselines as sets_baselines
from rec.evaluation.tasks.writing import Writing
from rec.evaluation.tasks.writing import baselines as writing_baselines

OTHERS = {
    "ranking": ["popularity", "random", "similar users", "the planted truth", "Niche", "Diverse", "Blockbuster"],
    "rating": ["mean rating", "mean rating of the item", rating_baselines.BIASES],
    "sets": [sets_baselines.FREQUENT, sets_baselines.REPEATED, sets_baselines.COMMON],
    "writing": [
        *(writing_baselines.ITEM_TEMPLATE, writing_baselines.FIRST_OF_ITEM, writing_baselines.FREQUENT_OF_ITEM),
        *(writing_baselines.FREQUENT, writing_baselines.RANDOM, *writing_baselines.LEAKS),
    ],
}


@pytest.mark.parametrize("task", [Ranking(), Ranking(cuts=(1, 7)), Rating(), Sets(), Writing()], ids=lambda t: t.name)
def test_what_reports_name_is_explained(task: Task) -> None:
    for name in (*task.directions, *task.descriptive, *OTHERS[task.name]):
        assert task.meaning(name), name
        assert not task.meaning(name).endswith("."), name
    assert task.meaning("something else") == ""


def test_every_metric_of_a_ranking_tells_its_cut() -> None:
    task = Ranking(cuts=(3, 25))
    for name in task.directions:
        assert task.meaning(name), name
        cut = name.partition("@")[2]
        assert cut in task.meaning(name), name
