"""The keys of `[model]` of the baselines on codes."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rec.strict import Needs, Spaces, Strict, Variants, alike


class CodeBaselineConfig(Strict):
    """Keys of `[model]`."""

    NEEDS: ClassVar[Needs] = {
        **alike(("width", "dropout", "margin_weight", "ddi_weight"), {"kind": ["recurrent"]}),
        **alike(("ddi_target", "ddi_slack"), {"kind": ["recurrent"], "ddi_weight": {"not": [0.0]}}),
    }
    SPACES: ClassVar[Spaces] = {
        "model": {
            "width": {"choice": [32, 64, 128, 256]},
            "dropout": {"uniform": [0.0, 0.7]},
            "margin_weight": {"choice": [0.0, 0.05, 0.2]},
            "history": {"choice": ["none", "codes", "medications"]},
        }
    }
    VARIANTS: ClassVar[Variants] = {
        "recurrent": (),
        "recurrent, without interactions": ("model.ddi_weight=0.0",),
        "recurrent, with earlier medications": ("model.history=medications",),
        "recurrent, this visit alone": ("model.history=none",),
        "logistic": ("model.kind=logistic",),
        "logistic, this visit alone": ("model.kind=logistic", "model.history=none"),
    }

    kind: Literal["recurrent", "logistic"] = "recurrent"
    """Recurrent units over the visits' summed code vectors, or a logistic regression for each medication."""
    fields: tuple[Literal["diagnoses", "procedures", "symptoms"], ...] = Field(
        ("diagnoses", "procedures"), min_length=1
    )
    """Which codes of a visit are read."""
    history: Literal["none", "codes", "medications"] = "codes"
    """What is known of earlier visits: nothing, their codes as SafeDrug has it, or also what was given there."""
    width: int = Field(64, ge=1)
    """Of the code vectors and of the units' states."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of the elements of code vectors that are dropped."""
    margin_weight: float = Field(0.05, ge=0, le=1)
    """Weight of the margin loss; the cross entropy has the rest."""
    ddi_weight: float = Field(0.0005, ge=0)
    """Weight of the interactions among what is predicted, over ordered pairs, for visits above `ddi_target`; 0 has
    none."""
    ddi_target: float = Field(0.06, ge=0, le=1)
    """Share of interacting pairs in a visit's predicted set from which on its loss turns to them."""
    ddi_slack: float = Field(0.05, gt=0)
    """Share above the target at which a visit's loss is interactions alone (published: kp)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.fields)) < len(self.fields):
            raise ValueError(f"fields: each once, got {', '.join(self.fields)}")
        return self
