"""The keys of `[tune]`: what is searched, how, and when a search stops."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from rec.space import parse
from rec.strict import Needs, Strict, alike


class TuneConfig(Strict):
    """What `rec tune` searches, how, and when it stops."""

    NEEDS: ClassVar[Needs] = {
        **alike(("grace", "reduction"), {"scheduler": ["asha"]}),
        "perturb_every": {"scheduler": ["pbt"]},
        **alike(("search", "seed", "objectives"), {"scheduler": {"not": ["pbt"]}}),
    }

    metric: str = ""
    """What trials are compared by, in the metric's own direction; empty takes that of the last phase."""
    objectives: dict[str, Literal["max", "min"]] = {}
    """Further metrics of validation to trade off against `metric`, such as "evaluate_s", "load_balance"."""
    search: Literal["tpe", "random"] = "tpe"
    """Optuna's tree of Parzen estimators, or independent draws."""
    scheduler: Literal["none", "asha", "pbt"] = "asha"
    """Every trial to its end; asynchronous successive halving; or population-based training."""
    trials: int = Field(20, ge=1)
    """Trials of the search; the size of the population for pbt."""
    concurrent: int = Field(0, ge=0)
    """Trials at the same time; 0 runs as many as the cluster holds."""
    grace: int = Field(1, ge=1)
    """Evaluations that asha leaves every trial."""
    reduction: int = Field(3, ge=2)
    """asha keeps one of so many trials at each level."""
    perturb_every: int = Field(2, ge=1)
    """Evaluations between the points at which pbt replaces its worst trials."""
    max_hours: float = Field(0.0, ge=0)
    """Hours after which this command stops the search; 0 sets no limit."""
    max_worker_hours: float = Field(0.0, ge=0)
    """Worker hours, over all trials and commands, after which the search stops: its cost; 0 sets no limit."""
    seed: int = 0
    """Of the points that are drawn."""
    use: tuple[str, ...] = ()
    """Ready-made spaces by name; `rec tune --spaces` lists them."""
    space: dict[str, dict[str, Any]] = {}
    """Values per dotted key, beside and before the ready-made ones."""

    @field_validator("space")
    @classmethod
    def _space_is_well_formed(cls, table: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        parse(table)
        return table
