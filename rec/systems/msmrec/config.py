"""The keys of `[model]` of MSMRec."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rec.moe.config import MixtureConfig
from rec.nn.modality import Fusion, Texts
from rec.nn.sequence import BlockForm
from rec.strict import (
    DENSE_ACTIVE,
    DENSE_TOTAL,
    RANDOM_GATE,
    UNIFORM_GATE,
    Needs,
    Spaces,
    Strict,
    Twins,
    Variants,
    alike,
    joined,
)
from rec.systems.msmrec.knowledge import KnowledgeAdaptorConfig


class MSMRecConfig(Strict):
    """Keys of `[model]`."""

    NEEDS: ClassVar[Needs] = {
        **alike(("feedforward", "feedforward_mixture"), {"block": ["pre_norm", "published"]}),
        "negatives": {"loss": ["ss", "gbce", "sampled"]},
        "negatives_power": {"loss": ["sampled"]},
        "table_rate": {"item_table": ["sharded"]},
        "calibration": {"loss": ["gbce"]},
        "fusion": {"gate": ["item"]},
        "gate_window": {"gate": ["agreement"]},
        "strict_gate": {"gate": ["item", "user", "agreement", "random"]},
        "temperature": {"gate": {"not": ["mean", "none"]}},
        **alike(("entropy_weight", "balance_weight"), {"gate": {"not": ["random", "mean", "none"]}}),
        **alike(
            ("texts", "projector_hidden", "projector_shared", "top_k", "top_share", "input_mix", "output_mix"),
            {"gate": {"not": ["none"]}},
        ),
        "mix_scale": {"gate": {"not": ["none"]}, "input_mix": [True]},
    }

    SPACES: ClassVar[Spaces] = {
        "gate": {
            "gate": {"choice": ["item", "user", "agreement", "mean"]},
            "temperature": {"log": [0.05, 2.0], "when": {"gate": {"not": ["mean"]}}},
            "entropy_weight": {"uniform": [-0.01, 0.01], "when": {"gate": {"not": ["mean"]}}},
            "balance_weight": {"log": [1e-4, 1e-1], "when": {"gate": {"not": ["mean"]}}},
            "top_k": {"choice": [0, 1, 2], "when": {"gate": {"not": ["mean"]}}},
        },
        "model": {
            "width": {"choice": [32, 64, 128]},
            "blocks": {"int": [1, 3]},
            "dropout": {"uniform": [0.0, 0.5]},
        },
    }

    VARIANTS: ClassVar[Variants] = {
        "SASRec": ("model.gate=none", "model.knowledge.towers=none"),
        "HSTU": ("model.gate=none", "model.knowledge.towers=none", "model.block=hstu"),
        "SASRec + KAR": ("model.gate=none", "model.knowledge.towers=both"),
        "MSMRec": ("model.gate=item", "model.knowledge.towers=none"),
        "MSMRec + KAR": ("model.gate=item", "model.knowledge.towers=both"),
        "SASRec + KAR, user text at every step": (
            "model.gate=none", "model.knowledge.towers=both", "model.knowledge.from_start=true"
        ),
        "SASRec + KAR, items only": ("model.gate=none", "model.knowledge.towers=item"),
        "MSMRec, four heaviest texts": ("model.gate=item", "model.knowledge.towers=none", "model.top_k=4"),
        "MSMRec, texts of 80 % of the weight": (
            "model.gate=item", "model.knowledge.towers=none", "model.top_share=0.8"
        ),
        "MSMRec, attention": ("model.gate=item", "model.knowledge.towers=none", "model.fusion=attention"),
        "MSMRec, network": (
            "model.gate=item", "model.knowledge.towers=none", "model.fusion=network", "model.output_mix=mean"
        ),
        "MSMRec, agreement": ("model.gate=agreement", "model.knowledge.towers=none"),
        "MSMRec, agreement at the output": (
            "model.gate=agreement", "model.output_mix=gate", "model.knowledge.towers=none"
        ),
        "MSMRec, mean of texts": ("model.gate=mean", "model.knowledge.towers=none"),
        "MSMRec, shuffled texts": ("model.gate=item", "model.knowledge.towers=none", "model.texts=shuffled"),
    }  # fmt: skip

    width: int = Field(64, ge=1)
    """Of an item's vector and of the state."""
    blocks: int = Field(2, ge=1)
    """Blocks of attention and feed-forward."""
    heads: int = Field(1, ge=1)
    """Heads of attention; divides `width`."""
    feedforward: int = Field(0, ge=0)
    """Hidden width inside a block; 0 takes `width`."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of values that training leaves out."""
    max_length: int = Field(200, ge=1)
    """Most recent items of a history that the encoder sees."""
    block: BlockForm = "pre_norm"
    """Normalise, transform, add; or as published: only the query is normalised, and added to what attention gives; or
    HSTU's, whose attention counts instead of averaging, is gated, and has no feed-forward behind it."""
    checkpointing: bool = False
    """Keeps of each block its input alone and computes the rest again when gradients are: less memory, more time."""
    attend_padding: bool = False
    """Pads histories and lets padding take part in attention; only for checkpoints that were trained so."""
    item_table: Literal["whole", "sharded"] = "whole"
    """Whether every worker holds the vectors of all items' ids, updated by the run's optimiser, or its share of them:
    a step then moves and updates those that it needs, by row-wise Adagrad, and the loss must be a sampled one."""
    table_rate: float = Field(10.0, gt=0)
    """Factor of the learning rate for a sharded table: Adagrad's steps shrink with every update of a row."""
    loss: Literal["ce", "ss", "gbce", "bce", "sampled"] = "ce"
    """Full cross-entropy, sampled softmax, generalised or plain binary cross-entropy; "sampled" is cross-entropy over
    items that all rows of a worker share, corrected for how often each is drawn: for catalogues of millions."""
    negatives: int = Field(256, ge=1)
    """Unseen items per user that ss and gbce share over the user's steps, or items of a step that sampled draws; bce
    draws one per step."""
    negatives_power: float = Field(0.75, ge=0)
    """Exponent of an item's events in the probability with which sampled draws it; 0 is uniform."""
    calibration: float = Field(0.75, ge=0, le=1)
    """t of gBCE."""
    gate: Literal["item", "user", "agreement", "published", "random", "mean", "none"] = "item"
    """What weighs modalities: user against the item's texts (paper), user alone (causal), user alone as the published
    code computes it (one weight per history, later items included), as a control user alone by directions that stay as
    they were drawn, equal weights, or no texts at all (SASRec)."""
    gate_window: int = Field(0, ge=0)
    """Items of the past that gate "agreement" compares; 0 takes all."""
    fusion: Fusion = "inner"
    """How the item gate compares user and text: by an inner product (paper), one with a learned matrix, attention, or
    a small network."""
    texts: Texts = "encoded"
    """The items' own texts or one of the controls."""
    projector_hidden: tuple[int, ...] = ()
    """Hidden widths of the network from texts' vectors to `width`; none is one linear layer."""
    projector_shared: bool = True
    """One projector for all modalities, or one each."""
    temperature: float = Field(1.0, gt=0)
    """Divides the gate's scores: below 1 is sharper."""
    top_k: int = Field(0, ge=0)
    """Modalities kept per row; 0 keeps all."""
    top_share: float = Field(0.0, ge=0, le=1)
    """Dynamic top-k: keeps the fewest modalities that reach this share; 0 is off."""
    strict_gate: bool = False
    """The gate at a step sees the items before it only, not the step's own."""
    input_mix: bool = True
    """Adds the mix to the encoder's input."""
    mix_scale: float = Field(0.0, ge=0)
    """Factor of the mix at the input; 0 takes the square root of the width, as ids have."""
    output_mix: Literal["none", "mean", "gate"] = "mean"
    """What is added to an item's vector in the score: nothing, its modalities' mean, or the gate's mix (equation 6)."""
    entropy_weight: float = 0.0
    """Weight of the gate's entropy in the loss; positive sharpens the gate."""
    balance_weight: float = Field(0.0, ge=0)
    """Weight of the balance of modalities in the loss."""
    feedforward_mixture: MixtureConfig = MixtureConfig()
    """Experts in the place of each block's feed-forward."""
    knowledge: KnowledgeAdaptorConfig = KnowledgeAdaptorConfig()
    """One text of each item and user (KAR), beside or in place of the modalities."""
    mask_seen: Literal["all", "input", "none"] = "all"
    """Which seen items evaluation leaves out: all, those of the encoder's input (as published), or none."""

    def twins(self, at: str) -> Twins:
        """Return what the gate of modalities and the experts of blocks are held against.

        Dense in the place of modalities is one vector of all texts joined; in the place of experts, a wider network.
        """
        found: Twins = {}
        if self.gate not in ("random", "mean", "none"):
            kept = (f"{at}.top_k=0", f"{at}.top_share=0.0")
            found["all texts joined"] = (f"{at}.gate=mean", f"{at}.texts=concatenated", *kept)
            found["no texts"] = (f"{at}.gate=none",)
            found[RANDOM_GATE] = (f"{at}.gate=random",)
            found[UNIFORM_GATE] = (f"{at}.gate=mean", *kept)
        mixture, hidden = self.feedforward_mixture, self.feedforward or self.width
        if mixture.experts:
            one = mixture.one(f"{at}.feedforward_mixture")
            for name, networks in ((DENSE_ACTIVE, mixture.active), (DENSE_TOTAL, mixture.total)):
                found[name] = (*one, f"{at}.feedforward={hidden * networks}")
        return joined([found, super().twins(at)])

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads: must divide width ({self.width}), got {self.heads}")
        return self

    @model_validator(mode="after")
    def _network_is_no_product(self) -> Self:
        if self.fusion == "network" and self.output_mix == "gate":
            raise ValueError(
                "fusion: 'network' is no inner product, so output_mix='gate' would pass every pair of a user and an "
                "item through it; choose output_mix='mean' or 'none'"
            )
        return self

    @model_validator(mode="after")
    def _tables_are_sampled(self) -> Self:
        if self.item_table == "sharded" and self.loss == "ce":
            raise ValueError(
                "item_table: 'sharded' has no effect on loss='ce', which scores every item in every step; choose "
                "loss='sampled', 'ss', 'gbce' or 'bce'"
            )
        return self
