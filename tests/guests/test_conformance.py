"""The guests do what every system must do."""

from typing import Any

import numpy as np
import pytest

from rec.conformance import Conformance
from rec.systems.capabilities import Truth
from tests.guests import sets_guest, writer_guest


class TestPrescriber(Conformance):
    system = sets_guest.Prescriber
    configs = [{}, {"width": 8}]


class TestReviewer(Conformance):
    system = writer_guest.Reviewer
    configs = [{}, {"experts": 2, "experts_per_row": 1, "clusters": 3}]


class Leaky(writer_guest.Reviewer):
    """Names the true feature in its texts, and says nothing of it."""

    def write(self, module: Any, batch: Any, decoding: Any, **asked: Any) -> list[str]:
        texts = super().write(module, batch, decoding, **asked)
        return [f"{feature} {text}" for feature, text in zip(batch.feature, texts, strict=True)]


class LeakyByRating(writer_guest.Reviewer):
    """Follows the true rating, and tells of the feature alone."""

    def truth_given(self) -> tuple[Truth, ...]:
        return ("feature",)

    def write(self, module: Any, batch: Any, decoding: Any, **asked: Any) -> list[str]:
        return ["great" if rating > 3 else "poor" for rating in batch.rating_B.tolist()]


class Honest(LeakyByRating):
    """The same, and says so."""

    def truth_given(self) -> tuple[Truth, ...]:
        return ("feature", "rating")


@pytest.mark.parametrize(("system", "leaks"), [(Leaky, True), (LeakyByRating, True), (Honest, False)])
def test_a_writer_that_reads_what_it_does_not_tell_is_found(system: type[writer_guest.Reviewer], leaks: bool) -> None:
    rows, tables = system.sample(TestReviewer.ROWS, np.random.default_rng(0))
    built = (system(system.Config(), tables), dict(rows))
    check = TestReviewer().test_a_writer_is_told_no_truth_but_what_it_tells
    if leaks:
        with pytest.raises(AssertionError):
            check(built)
    else:
        check(built)
