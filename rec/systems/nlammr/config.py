"""NLA-MMR's keys: see rec.systems.nlammr."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rec.moe.config import MixtureConfig
from rec.nn.encoders import TextEncoderConfig
from rec.strict import Needs, Spaces, Strict, Twins, Variants, alike


class MixtureKeys(MixtureConfig):
    """A mixture with a few experts where nothing is said of them."""

    experts: int = Field(4, ge=1)
    """Experts before they are split finer."""


class NLAMMRConfig(Strict):
    """Keys of `[model]`. The defaults are the published model."""

    NEEDS: ClassVar[Needs] = {
        "fusion": {"ablate": ["none"]},
        "mixture": ({"fusion": ["moe"]}, {"patient_moe": [True]}),
        "section_dropout": {"missing_text_mask": [True]},
        "ddi_target": {"ddi_weight": {"not": [0.0]}},
        **alike(("ddi_certain", "ddi_common"), {"ddi_filter": ["greedy", "two_sat"]}),
        **alike(("code_dropout", "code_scale"), {"codes": [True]}),
        "text": {"train_plm": ["lora", "full"]},
        "unit_texts": {"train_plm": ["frozen"]},
        **alike(
            ("graph_width", "graph_layers", "graph_dropout", "dedupe_molecules", "refresh_every"),
            {"ablate": ["none", "text"]},
        ),
    }

    SPACES: ClassVar[Spaces] = {
        "model": {
            "alpha": {"choice": [0.8, 0.9, 0.95, 0.99]},
            "dropout": {"uniform": [0.0, 0.4]},
            "graph_dropout": {"uniform": [0.0, 0.7]},
            "history": {"choice": [1, 2, 3]},
            "code_dropout": {"uniform": [0.0, 0.7], "when": {"codes": [True]}},
        },
        "switches": {
            "codes": {"choice": [False, True]},
            "fusion": {"choice": ["concat", "gate", "moe"]},
            "history_gate": {"choice": [False, True]},
            "missing_text_mask": {"choice": [False, True]},
            "patient_moe": {"choice": [False, True]},
        },
    }
    VARIANTS: ClassVar[Variants] = {
        "full": (),
        "as published": (
            "model.alpha=0.95",
            "model.dropout=0.2",
            "model.graph_dropout=0.7",
            "model.unit_texts=false",
        ),
        "without structure": ("model.ablate=structure",),
        "without text": ("model.ablate=text",),
        "codes beside texts": ("model.codes=true",),
        "without codes beside texts": ("model.codes=false",),
        "gate": ("model.fusion=gate",),
        "mixture of text and structure": ("model.fusion=moe",),
        "mixture for patients": ("model.patient_moe=true",),
        "visit gate": ("model.history_gate=true",),
        "missing-text mask": ("model.missing_text_mask=true",),
        "missing-text mask, section dropout": ("model.missing_text_mask=true", "model.section_dropout=0.1"),
        "DDI target 0.06": ("model.ddi_weight=1.0", "model.ddi_target=0.06"),
        "greedy filter": ("model.ddi_filter=greedy",),
        "two_sat filter": ("model.ddi_filter=two_sat",),
        "greedy filter of the less certain": ("model.ddi_filter=greedy", "model.ddi_certain=0.86"),
        "greedy filter of what is not common": ("model.ddi_filter=greedy", "model.ddi_common=67"),
        "one visit of history": ("model.history=1",),
        "three visits of history": ("model.history=3",),
        "equal molecules once": ("model.dedupe_molecules=true",),
        "encoder trained": ("model.train_plm=full", "model.unit_texts=false"),
        "LoRA": ("model.train_plm=lora", "model.unit_texts=false"),
    }

    width: int = Field(256, ge=1)
    """Of the space in which patients and medications meet."""
    history: int = Field(2, ge=1)
    """Last visits whose medications are looked at."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Of the fusion of sections and of both projections."""
    graph_width: int = Field(64, ge=1)
    """Of an atom's vector."""
    graph_layers: int = Field(5, ge=1)
    """Layers of the network over molecules."""
    graph_dropout: float = Field(0.7, ge=0, lt=1)
    """Share of its values that training leaves out."""
    alpha: float = Field(0.95, ge=0, le=1)
    """Share of cross entropy in the loss; the rest is margin."""
    dedupe_molecules: bool = False
    """Encodes a molecule once however many medications have it, which changes the batch statistics."""
    refresh_every: int = Field(1, ge=1)
    """Steps between encodings of the molecules in training; what was made last serves, without gradient, until then."""
    fusion: Literal["concat", "gate", "moe"] = "concat"
    """How a medication's text and structure are joined: side by side, by a gate, or by experts."""
    patient_moe: bool = False
    """Experts in the place of the patients' projection."""
    mixture: MixtureKeys = MixtureKeys()
    """The experts of both."""
    history_gate: bool = False
    """Weighs down earlier visits that are outdated, by what they are and how long ago."""
    codes: bool = False
    """Adds a score that each code of a visit has for each medication, and one that each medication has by how often it
    is given: a logistic regression that is trained together with the rest (Cheng et al. 2016, wide and deep)."""
    code_dropout: float = Field(0.5, ge=0, lt=1)
    """Share of codes that are dropped from it."""
    code_scale: float = Field(3.0, gt=0)
    """Multiplies these scores: how much faster codes learn than texts."""
    missing_text_mask: bool = False
    """Leaves texts that are not there out of the attention, with learned vectors where nothing is."""
    section_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of sections that training takes for missing."""
    ddi_weight: float = Field(0.0, ge=0)
    """Weight of the expected number of interacting pairs per visit in the loss."""
    ddi_target: float = Field(0.0, ge=0, lt=1)
    """Share of interacting pairs above which the loss turns from accuracy to interactions; 0 keeps both as they are."""
    ddi_filter: Literal["none", "greedy", "two_sat"] = "none"
    """What takes the less probable medication of an interacting pair from an answer."""
    ddi_certain: float = Field(1.0, gt=0, le=1)
    """Medications of at least this probability stay whatever they interact with: the filter takes away the less certain
    ones alone; 1 keeps none."""
    ddi_common: int = Field(0, ge=0)
    """The filter lets interacting medications stand together that so many visits of training were given together, 1
    as DrugRec has it; 0 lets none."""
    train_plm: Literal["frozen", "lora", "full"] = "frozen"
    """Texts as vectors that were written with the data, or encoded in the step by a model that is trained with it."""
    text: TextEncoderConfig = TextEncoderConfig()
    unit_texts: bool = False
    """Scales every text's vector to a mean square of 1, which is what layers are made for: those of tf-idf and hashing
    have a length of 1, however wide they are."""
    ablate: Literal["none", "text", "structure"] = "none"
    """What is left out of medications."""

    @model_validator(mode="after")
    def _lora_has_a_rank(self) -> Self:
        if self.train_plm == "full" and self.text.lora:
            raise ValueError("text.lora: above 0 needs train_plm='lora'")
        return self

    def twins(self, at: str) -> Twins:
        """Return what experts are held against; the dense ones are the published layers in their place."""
        if self.fusion != "moe" and not self.patient_moe:
            return {}
        plain: tuple[str, ...] = ("fusion=concat",) if self.fusion == "moe" else ()
        plain += ("patient_moe=false",) if self.patient_moe else ()
        dense: Twins = {"published layers": tuple(f"{at}.{key}" for key in plain)}
        return dense | super().twins(at)

    @property
    def lora(self) -> TextEncoderConfig:
        """The encoder that is trained; LoRA of rank 8 where none is said."""
        if self.train_plm == "lora" and not self.text.lora:
            return self.text.model_copy(update={"lora": 8})
        return self.text
