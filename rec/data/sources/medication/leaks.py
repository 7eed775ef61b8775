"""Treatments that name the drugs that are to be predicted, and the filter that takes them out.

eICU's treatments are paths such as `gastrointestinal|medications|antiemetic|serotonin antagonist|ondansetron`. A path
goes where it holds a word of a class of drugs, or a word of five letters or more that is the name of an ATC substance.
The classes are broad: rather a treatment too many goes than a label leaks. Names that ATC does not use (nitroglycerin,
acetaminophen) stay unless they are among further words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rec.data.sources.medication.gathering import codes_of, filtered

CLASSES = (
    "administration", "agonist", "analges", "antacid", "antagonist", "antiarrhythm", "antibacterial", "antibiotic",
    "anticoag", "anticonvuls", "antidepress", "antiemetic", "antifungal", "antihypertens", "anti-psychotic",
    "antiplatelet", "antiviral", "aspirin", "bicarbonate", "blocker", "blood product", "bronchodilator",
    "cephalosporin", "chemotherapy", "controlling", "diuretic", "electrolyte", "fluid", "glucocorticoid", "hormone",
    "immuno", "inhibitor", "inotrop", "laxative", "macrolide", "medication", "narcotic", "penicillin", "prophylaxis",
    "quinolone", "saline", "sedative", "statin", "thrombolytic", "transfusion", "ulcer", "vaccin", "vasopressor",
    "vitamin",
)  # fmt: skip
"""Stems of words of classes of drugs, wherever they stand in a path."""
ABBREVIATIONS = r"ace\b|\bh2"
"""ACE inhibitors and H2 blockers; they also take face masks and pressures in cm H2O."""
LETTERS = 5
WORD = re.compile(rf"[a-z]{{{LETTERS},}}")


@dataclass(frozen=True, slots=True)
class Treatments:
    """Rows of eICU's treatments as codes of unit stays; see `rec.data.sources.medication.gathering.Extract`."""

    substances: frozenset[str] | None
    """`substance_words`; None keeps treatments that name drugs."""
    words: tuple[str, ...] = ()
    """Further stems of words of drugs, in lower case."""

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, Counter[str]]:
        """Return the codes of rows with `visit`, `text` and `offset`."""
        dropped = Counter[str]()
        rows = filtered(rows, pc.is_valid(rows["visit"]), "treatment without visit", dropped)
        rows = filtered(rows, pc.is_valid(rows["text"]), "treatment without text", dropped)
        if self.substances is not None:
            encoded = rows["text"].combine_chunks().dictionary_encode()
            clean = [not names_drug(text, self.substances, self.words) for text in encoded.dictionary.to_pylist()]
            mask = pa.array(clean, pa.bool_()).take(encoded.indices)
            rows = filtered(rows, mask, "treatment naming a drug", dropped)
        return codes_of(rows["visit"], rows["text"], rows["offset"], rows["row"]), dropped


def names_drug(text: str, substances: frozenset[str], words: Iterable[str] = ()) -> bool:
    """Return whether a text names a drug or a class of drugs."""
    lower = text.lower()
    if any(stem in lower for stem in (*CLASSES, *words)) or re.search(ABBREVIATIONS, lower):
        return True
    return not substances.isdisjoint(WORD.findall(lower))


def substance_words(names: Iterable[str]) -> frozenset[str]:
    """Return the names of substances that are one word of five letters or more."""
    return frozenset(name for name in map(str.lower, names) if WORD.fullmatch(name))
