"""What is known of drugs beyond their codes, from the user's own files: names, descriptions, molecules.

A code stands for many substances. Its text and its molecules are those of the same few, in the order of the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rec.data.molecules import readable
from rec.data.sources.medication.drugs import CHARACTERS
from rec.data.sources.medication.official import as_official, first_of, value_of
from rec.data.tables import Kind, read_whole
from rec.errors import DataError

CODES = ("atc5", "atc_code", "atc_codes", "atc")
"""Columns with the ATC codes of a substance, one or several."""
SMILES = ("smiles", "moldb_smiles")
DESCRIPTIONS = ("description", "indication")
SUBSTANCE = 7
"""Characters of the ATC code of a substance."""
WHAT = (
    "a table of drugs with a column name and any of atc5 (or atc_code, atc_codes), smiles (or moldb_smiles), "
    "description (or indication), groups: from DrugBank (go.drugbank.com, by licence) or of your own"
)
WHAT_NAMES = "a table with ATC codes and a column name: WHO's index (atcddd.fhi.no, by licence) or of your own"
WHAT_SMILES = "JSON of {ATC code: [SMILES, ...]}, such as SafeDrug's idx2drug in JSON"


@dataclass(frozen=True, slots=True)
class Substance:
    """One drug of a code."""

    name: str
    description: str = ""
    smiles: str = ""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of codes; those of nothing are missing from the tables."""

    titles: Mapping[str, str]
    texts: Mapping[str, str]
    molecules: Mapping[str, Sequence[str]]
    """SMILES of each code, each once, that can be read."""
    unreadable: int = 0
    """SMILES that cannot."""

    def medications(self, codes: Sequence[str]) -> pa.Table:
        """Return the table of medications; a code without a name is its own title."""
        columns = {
            "id": pa.array(codes, pa.string()),
            "title": pa.array([self.titles.get(code, code) for code in codes], pa.string()),
        }
        if self.texts:
            columns["text"] = pa.array([self.texts.get(code) for code in codes], pa.string())
        return pa.table(columns)

    def pairs(self, codes: Sequence[str]) -> pa.Table:
        """Return which codes have which molecules, in the order of codes."""
        rows = [(code, smiles) for code in codes for smiles in self.molecules.get(code, ())]
        columns = [pa.array([row[n] for row in rows], pa.string()) for n in range(2)]
        return pa.table(dict(zip(("medication", "molecule"), columns, strict=True)))


def knowledge(drugs: str, atc_names: str, smiles: str, groups: str, most: int) -> Knowledge:
    """Return what the user's files tell of codes; a path "" is a file that is not there.

    Args:
        drugs: A table of drugs (`WHAT`).
        atc_names: Names of codes, and of substances where `drugs` has no codes (`WHAT_NAMES`).
        smiles: Molecules by code (`WHAT_SMILES`), in the place of those of `drugs`.
        groups: What a drug's groups must hold, "" takes all.
        most: Substances of a code.

    Raises:
        DataError: a file has another form.
    """
    names = names_of(atc_names) if atc_names else {}
    titles = {code: name for code, name in names.items() if len(code) == CHARACTERS}
    by_code: dict[str, list[Substance]] = {}
    if drugs:
        by_code, own = read_drugs(drugs, names, groups)
        titles = own | titles
    molecules, texts = dict[str, Sequence[str]](), dict[str, str]()
    for code, found in by_code.items():
        drawn = [substance for substance in found if substance.smiles][:most]
        told = [s.description for s in drawn or found[:most] if s.description]
        if drawn:
            molecules[code] = tuple(dict.fromkeys(substance.smiles for substance in drawn))
        if told:
            texts[code] = " ".join([f"{titles[code]}." if code in titles else "", *dict.fromkeys(told)]).strip()
    if smiles:
        molecules = dict(molecules_of(smiles))
    unreadable = {text for found in molecules.values() for text in found if not readable(text)}
    kept = {code: tuple(text for text in found if text not in unreadable) for code, found in molecules.items()}
    return Knowledge(titles, texts, kept, len(unreadable))


def read_drugs(uri: str, names: Mapping[str, str], groups: str) -> tuple[dict[str, list[Substance]], dict[str, str]]:
    """Return the substances of each code in the order of a table, and the names of codes where it tells them.

    Without a column of codes, a drug belongs to the codes whose substance has its name.
    """
    official = as_official(uri)
    columns = {
        "name": "name", "code": first_of(CODES, official), "smiles": first_of(SMILES, official),
        "description": first_of(DESCRIPTIONS, official), "groups": first_of(("groups",), official),
        "title": first_of(("atc3_name",), official),
    }  # fmt: skip
    coded: dict[str, list[str]] = {}
    for code, name in names.items():
        if len(code) == SUBSTANCE:
            coded.setdefault(name.lower(), []).append(code)
    if columns["code"] is None and not coded:
        raise DataError(
            f"{uri}: found no column of {', '.join(CODES)}, and no file of names of substances "
            f"(data.read.atc_names): expected {WHAT}"
        )
    wanted = official.wanted({ours: (theirs, Kind.TEXT) for ours, theirs in columns.items() if theirs})
    found, titles = dict[str, list[Substance]](), dict[str, str]()
    for row in read_whole(official.table, wanted).to_pylist():
        name = row["name"] or ""
        codes = _codes(row["code"]) if "code" in row else coded.get(name.lower(), [])
        substance = Substance(name, row.get("description") or "", row.get("smiles") or "")
        for code in dict.fromkeys(code[:CHARACTERS] for code in codes):
            if row.get("title"):
                titles.setdefault(code, row["title"])
            if not groups or "groups" not in row or groups in re.split(r"[|;,]\s*", row["groups"] or ""):
                found.setdefault(code, []).append(substance)
    return found, titles


def names_of(uri: str) -> dict[str, str]:
    """Return the name of each ATC code, the first where it has several."""
    official = as_official(uri)
    code = first_of((*CODES, "atc3", "code"), official) or "atc3"
    wanted = official.wanted({"code": (code, Kind.ID), "name": ("name", Kind.TEXT)})
    table = read_whole(official.table, wanted)
    found: dict[str, str] = {}
    for key, name in zip(table["code"].to_pylist(), table["name"].to_pylist(), strict=True):
        if key and name:
            found.setdefault(key, name)
    return found


def substance_names(drugs: str, atc_names: str) -> list[str]:
    """Return the names of substances that the user's files hold; a path "" is a file that is not there."""
    found = [name for code, name in names_of(atc_names).items() if len(code) == SUBSTANCE] if atc_names else []
    if drugs:
        official = as_official(drugs)
        table = read_whole(official.table, official.wanted({"name": ("name", Kind.TEXT)}))
        found += [name for name in table["name"].to_pylist() if name]
    return found


def molecules_of(uri: str) -> dict[str, tuple[str, ...]]:
    """Return the SMILES of each code, each once, in their order.

    Raises:
        DataError: the file has another form.
    """
    value = value_of(uri)
    if not isinstance(value, dict) or not all(isinstance(v, list | tuple | set) for v in value.values()):
        raise DataError(f"{uri}: found {type(value).__name__} of other values than lists, expected {WHAT_SMILES}")
    return {str(code)[:CHARACTERS]: tuple(dict.fromkeys(map(str, listed))) for code, listed in value.items() if listed}


def known_codes(molecules: Mapping[str, Sequence[str]]) -> Collection[str]:
    """Return the codes that have a molecule."""
    return {code for code, found in molecules.items() if found}


def _codes(text: str | None) -> list[str]:
    return re.findall(r"[A-Z]\d\d[A-Z][A-Z]?(?:\d\d)?", text or "")
