"""A finder as someone outside the package would write it: a review is about its last word."""

from collections.abc import Sequence

from rec.data.reviews.finder import Candidate, Finder


class LastWord(Finder):
    """Finds the last word."""

    def candidates(self, text: str) -> Sequence[Candidate]:
        """Return the last word."""
        return [Candidate(text, text.split()[-1], "", 1)]
