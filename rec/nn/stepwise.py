"""What moves once per optimiser step, however many forwards the step takes."""

from __future__ import annotations


class Stepwise:
    """Mixed into a module whose state moves with steps: forwards, of which microbatches make many, leave it alone."""

    def after_step(self) -> None:
        """Move on; called once after each optimiser step."""
        raise NotImplementedError
