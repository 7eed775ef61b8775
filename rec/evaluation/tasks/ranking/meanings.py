"""What the ranking task's words mean, for people who meet them in a report."""

from __future__ import annotations

from rec.evaluation.tasks.ranking import popularity_groups

PLANTED = "the planted truth"
"""The ranking by the preferences that made generated data."""

AT = {
    "hit": "share of examples with a relevant item among the first {cut}",
    "recall": "share of an example's relevant items that stand among the first {cut}",
    "precision": "share of the first {cut} items that are relevant",
    "ndcg": "1 where the relevant items lead, less the further down they stand, 0 beyond place {cut}",
    "map": "precision at the place of each relevant item, averaged; 0 beyond place {cut}",
    "mrr": "1 / place of the first relevant item, 0 beyond place {cut}",
    "coverage": "share of the catalogue that stands among anybody's first {cut}",
}
"""By metric, with a cut-off."""
WORDS = {
    "mrr": "1 / place of the first relevant item",
    "auc": "share of pairs of a relevant and another item in the right order; 0.5 is chance",
    "popularity": "the items with the most training events first, the same for everybody",
    "random": "items in an order drawn at random",
    "similar users": "what users with similar texts liked in training",
    PLANTED: "the preferences that made the generated data: what is missing there is chance",
    popularity_groups.NAMES[0]: "users with the smallest shares of popular items among theirs, the lowest third of the "
    "range; an item is popular where it has more than evaluate.popular_share of all events",
    popularity_groups.NAMES[1]: "users in the third between",
    popularity_groups.NAMES[2]: "users with the largest shares of popular items, the highest third of the range",
}


def of(name: str) -> str:
    """Return what a metric, a simple answer or a group is, empty where nothing is said of it."""
    kind, at, cut = name.partition("@")
    return AT[kind].format(cut=cut) if at and kind in AT else WORDS.get(name, "")
