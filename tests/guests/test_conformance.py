"""The guests do what every system must do."""

from rec.conformance import Conformance
from tests.guests import sets_guest, writer_guest


class TestPrescriber(Conformance):
    system = sets_guest.Prescriber
    configs = [{}, {"width": 8}]


class TestReviewer(Conformance):
    system = writer_guest.Reviewer
    configs = [{}, {"experts": 2, "experts_per_row": 1, "clusters": 3}]
