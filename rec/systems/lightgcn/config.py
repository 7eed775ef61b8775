"""The keys of `[model]` of LightGCN and its kin."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rec.strict import Needs, Spaces, Strict, Variants


class LightGCNConfig(Strict):
    """Keys of `[model]`."""

    NEEDS: ClassVar[Needs] = {"content_form": {"content": {"not": [{}]}}}

    SPACES: ClassVar[Spaces] = {
        "model": {
            "layers": {"choice": [1, 2, 3, 4]},
            "regularisation": {"log": [1e-6, 1e-2]},
            "edge_dropout": {"choice": [0.0, 0.5, 0.8, 0.9]},
        }
    }
    VARIANTS: ClassVar[Variants] = {"as configured": (), "BPR": ("model.layers=0", "model.edge_dropout=0.0")}

    width: int = Field(64, ge=1)
    """Of the vectors of users and items."""
    layers: int = Field(2, ge=0)
    """Propagations over the interaction graph, whose mean counts; 0 is BPR's matrix factorisation."""
    edge_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the interactions that an epoch does without, popular ones first; evaluation uses all."""
    fanout: int = Field(0, ge=0)
    """Neighbours drawn for each node and layer in training, weighed up; interactions stay in files then.

    0 propagates over all of the graph at once, in memory.
    """
    content: dict[str, float] = {}
    """Weights of content graphs, by name: what an item's neighbours there have is added to it (FREEDOM)."""
    content_form: Literal["given", "normalised"] = "normalised"
    """Edges weigh what the file says, or 1 over both ends' degrees' roots."""
    features: tuple[str, ...] = ()
    """Modalities whose vectors are projected beside the item's own (VBPR)."""
    regularisation: float = Field(1e-3, ge=0)
    """Weight of the norms of a step's vectors: of all users' together, of all items' together (MMRec's form)."""

    @property
    def mapped(self) -> bool:
        """Whether interactions stay in files."""
        return self.fanout > 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.edge_dropout and not self.layers:
            raise ValueError("edge_dropout: nothing is propagated with layers=0")
        if self.features and self.content:
            raise ValueError("features, content: one of both")
        return self
