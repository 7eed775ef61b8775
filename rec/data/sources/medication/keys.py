"""The keys of `[data.read]` that all cohorts of hospital visits share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rec.strict import Needs, Strict, alike


class CohortConfig(Strict):
    """The keys of `[data.read]` that all cohorts share."""

    NEEDS: ClassVar[Needs] = {
        "needs_symptom": {"symptoms": {"not": [""]}},
        "seed": {"patients": ["shuffled"]},
        "needs_molecule": ({"drugs": {"not": [""]}}, {"smiles": {"not": [""]}}),
        **alike(("drug_groups", "drugs_per_code"), {"drugs": {"not": [""]}}),
        **alike(("interaction_codes", "cid_atc"), {"interactions": {"not": [""]}}),
        "rarest_effects": {"cid_atc": {"not": [""]}},
    }

    folder: str
    """Where the release was unpacked: its official tables as csv, packed csv or Parquet, in upper or lower case."""
    symptoms: str = ""
    """List of symptom terms that are looked for in texts: JSON, or one a line; "" finds none."""
    needs_symptom: bool = False
    """Leaves out visits without a symptom, as the published cohorts do."""
    frequent_diagnoses: int = Field(2000, ge=0)
    """Diagnoses with the most rows that are kept; 0 keeps all."""
    frequent_medications: int = Field(300, ge=0)
    """Medications with the most rows that are kept; 0 keeps all."""
    minimum_visits: int = Field(2, ge=1)
    """Visits of a patient at least, after all else; 2 as published, 1 for the demos, of whose patients few have two."""
    patients: Literal["file", "shuffled"] = "file"
    """How patients are ordered before the split "given" takes the first two thirds for training, the next sixth for
    test and the rest for validation: as the visits are, or shuffled."""
    seed: int = 0
    """Of the shuffling."""
    drugs: str = ""
    """Table of drugs: their names, ATC codes, descriptions and SMILES (DrugBank's or your own)."""
    atc_names: str = ""
    """Table with the names of ATC codes; with those of substances a table of drugs needs no codes."""
    smiles: str = ""
    """JSON of {code: [SMILES, ...]}, in the place of the molecules of `drugs`."""
    drug_groups: str = "approved"
    """What the column `groups` of `drugs` must hold, where there is one; "" takes every drug."""
    drugs_per_code: int = Field(3, ge=1)
    """Substances whose molecules and descriptions stand for a code, the first of the table."""
    needs_molecule: bool = False
    """Leaves out medications without a molecule, as the published cohorts do."""
    interactions: str = ""
    """Pairs of medications that interact: a matrix .npy, a table of pairs, or TWOSIDES' drug-DDI.csv."""
    interaction_codes: str = ""
    """JSON list of the codes of a matrix's rows."""
    cid_atc: str = ""
    """Compounds with their ATC codes (drug-atc.csv), for TWOSIDES."""
    rarest_effects: int = Field(40, ge=1)
    """Side effects of TWOSIDES whose pairs count, from the rarest."""
    licence: str = ""
    """Of the data, as every run tells it; "" goes by the LICENSE file of the folder."""
