"""What the rating task's words mean, for people who meet them in a report."""

from __future__ import annotations

from rec.evaluation.tasks.rating.baselines import BIASES

WORDS = {
    "rmse": "root of the mean squared error, in steps of the scale; large errors count most",
    "mae": "mean absolute error, in steps of the scale",
    "mean rating": "the mean of all ratings of training, whatever is rated",
    BIASES: "the mean of all ratings of training, and by how much each member's lie above it",
}
OF = "mean rating of the "


def of(name: str) -> str:
    """Return what a metric or a simple answer is, empty where nothing is said of it."""
    if name.startswith(OF):
        return f"the mean of the ratings that the {name.removeprefix(OF)} has in training"
    return WORDS.get(name, "")
