"""Ordered drugs as ATC codes: by NDC, RXCUI and route, or by name and HICL number.

Codes are the first four characters of ATC codes, which the field calls ATC-3. Source of the mapping: SafeDrug (Yang et
al., 2021): NDC to RXCUI to the first ATC code of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from rec.data.sources.medication.gathering import codes_of, filtered
from rec.data.sources.medication.official import as_official, first_of, value_of
from rec.data.tables import Kind, read_whole
from rec.errors import ConfigError, DataError

CHARACTERS = 4
PARENTERAL = frozenset({"IV", "IV DRIP", "IV BOLUS", "IVPCA", "IM", "SC", "SUBCUT"})
ENTERAL = frozenset({"PO", "NG", "PO/NG", "ORAL", "SL", "OG", "J TUBE"})
LOCAL = ("A01", "C05", "D", "G01", "R01", "R02", "S")
"""How codes start of what acts on mouth, veins, skin, vagina, nose, throat, eyes and ears."""
INTESTINAL, IRRIGATING, ADDITIVE = "A07", "B05C", "B05X"
NDC_WIDTHS = (5, 4, 2)
"""Digits of labeller, product and package."""
WHAT_NDC = (
    "the map of NDC to RXCUI: JSON or Python's notation such as SafeDrug's ndc2RXCUI.txt "
    "(github.com/ycq091044/SafeDrug, data/input), or a table with columns NDC and RXCUI (RxNav, rxnav.nlm.nih.gov)"
)
WHAT_ATC = (
    "the map of RXCUI to ATC: a table with columns RXCUI and ATC4, the first choice first, such as SafeDrug's "
    "RXCUI2atc4.csv (github.com/ycq091044/SafeDrug, data/input) or one made with RxNav (rxnav.nlm.nih.gov)"
)
WHAT_NAMES = (
    "the map of eICU's drug names to ATC: a table with columns drugname and atc3; none is published with the database, "
    "docs/medication.md says how one is made"
)
WHAT_HICL = "the map of drughiclseqno to ATC: a table with columns drughiclseqno and atc3 (docs/medication.md)"
Rule = Literal["safedrug", "route_aware"]


@dataclass(frozen=True, slots=True)
class DrugMap:
    """What an order with an NDC becomes: parallel columns, a row per NDC."""

    ndc: pa.Array
    rxcui: pa.Array
    """Null where the map leaves it empty."""
    other: pa.Array
    """Code where the route says nothing; null where the RXCUI has none ..."""
    parenteral: pa.Array
    enteral: pa.Array


@dataclass(frozen=True, slots=True)
class Prescriptions:
    """Rows of MIMIC's prescriptions as codes of admissions; see `rec.data.sources.medication.gathering.Extract`."""

    drugs: DrugMap

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, Counter[str]]:
        """Return the codes of rows with `visit`, `ndc` and `route`."""
        dropped = Counter[str]()
        rows = filtered(rows, pc.is_valid(rows["visit"]), "prescription without visit", dropped)
        digits = pc.replace_substring_regex(rows["ndc"], r"^0+$", "")
        rows = filtered(rows, pc.greater(pc.binary_length(digits), 0), "prescription without NDC", dropped)
        ndc = pc.utf8_lpad(rows["ndc"], sum(NDC_WIDTHS), "0")
        place = pc.index_in(ndc, value_set=self.drugs.ndc).combine_chunks()
        rows = rows.append_column("place", place)
        known = pc.is_valid(self.drugs.rxcui.take(place))
        rows = filtered(rows, known, "prescription whose NDC has no RXCUI", dropped)
        place = rows["place"].combine_chunks()
        route = pc.utf8_upper(pc.utf8_trim_whitespace(rows["route"].combine_chunks()))
        code = pc.if_else(
            pc.is_in(route, pa.array(sorted(PARENTERAL))), self.drugs.parenteral.take(place),
            pc.if_else(pc.is_in(route, pa.array(sorted(ENTERAL))), self.drugs.enteral.take(place),
                       self.drugs.other.take(place)),
        )  # fmt: skip
        rows = rows.append_column("code", code)
        rows = filtered(rows, pc.is_valid(code), "prescription whose RXCUI has no ATC code", dropped)
        return codes_of(rows["visit"], rows["code"], rows["row"], rows["row"]), dropped


@dataclass(frozen=True, slots=True)
class Orders:
    """Rows of eICU's medication as codes of unit stays; see `rec.data.sources.medication.gathering.Extract`."""

    names: Mapping[str, str]
    numbers: Mapping[str, str]

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, Counter[str]]:
        """Return the codes of rows with `visit`, `cancelled`, `name` and `hicl`."""
        dropped = Counter[str]()
        rows = filtered(rows, pc.is_valid(rows["visit"]), "order without visit", dropped)
        stands = pc.not_equal(pc.utf8_lower(pc.fill_null(rows["cancelled"], "no")), "yes")
        rows = filtered(rows, stands, "order with a cancellation", dropped)
        by_name = _looked_up(rows["name"], self.names)
        number = pc.replace_substring_regex(rows["hicl"], r"\.0$", "")
        by_number = _looked_up(number, self.numbers)
        rows = rows.append_column("code", pc.coalesce(by_name, by_number))
        for column in ("name", "hicl"):
            rows = rows.set_column(rows.column_names.index(column), column, pc.is_valid(rows[column]))
        rows = filtered(rows, pc.or_(rows["name"], rows["hicl"]), "order without name or HICL number", dropped)
        rows = filtered(rows, pc.is_valid(rows["code"]), "order whose drug has no ATC code", dropped)
        return codes_of(rows["visit"], rows["code"], rows["row"], rows["row"]), dropped


def drug_map(ndc2rxcui: str, rxcui2atc: str, mapping: Rule) -> DrugMap:
    """Return what every NDC becomes, from the files of two maps.

    Raises:
        ConfigError: routes are to choose, and the file holds one code of each RXCUI.
        DataError: a file has another form.
    """
    rxcui_of, codes = rxcui_of_ndc(ndc2rxcui), candidates(rxcui2atc)
    if mapping == "route_aware" and not any(len(found) > 1 for found in codes.values()):
        raise ConfigError(
            f'data.read.mapping: "route_aware" chooses among the ATC codes of an RXCUI, of which {rxcui2atc} holds one '
            "each; expected a table of all of them"
        )
    routes = ("parenteral", "enteral", "") if mapping == "route_aware" else ("", "", "")
    columns = [
        pa.array([choose(codes[r], route) if r in codes else None for r in rxcui_of.values()], pa.string())
        for route in routes
    ]
    rxcui = pa.array([value or None for value in rxcui_of.values()], pa.string())
    return DrugMap(pa.array(list(rxcui_of), pa.string()), rxcui, columns[2], columns[0], columns[1])


def choose(codes: Sequence[str], route: str = "") -> str:
    """Return one of the codes that a drug has, in their listed order, by the kind of its route.

    Vancomycin (A07A, J01X) is A07A by mouth and J01X into a vein; a route of no kind takes the first.
    """
    if not route:
        return codes[0]
    local = (*LOCAL, INTESTINAL if route == "parenteral" else IRRIGATING)
    left = [code for code in codes if not code.startswith(local)] or list(codes)
    return ADDITIVE if route == "parenteral" and ADDITIVE in left else left[0]


def rxcui_of_ndc(uri: str) -> dict[str, str]:
    """Return the RXCUI of every NDC (eleven digits), "" where the map leaves it empty.

    Raises:
        DataError: the file is no such map.
    """
    if uri.lower().endswith((".json", ".txt")):
        value = value_of(uri)
        if not isinstance(value, dict):
            raise DataError(f"{uri}: found {type(value).__name__}, expected {WHAT_NDC}")
        pairs = [(str(ndc), str(rxcui or "")) for ndc, rxcui in value.items()]
    else:
        official = as_official(uri)
        table = read_whole(official.table, official.wanted({"ndc": ("ndc", Kind.ID), "rxcui": ("rxcui", Kind.ID)}))
        pairs = [(n, r or "") for n, r in zip(table["ndc"].to_pylist(), table["rxcui"].to_pylist(), strict=True) if n]
    found: dict[str, str] = {}
    for ndc, rxcui in pairs:
        found.setdefault(eleven_digits(ndc), rxcui)
    return found


def eleven_digits(ndc: str) -> str:
    """Return an NDC without hyphens, each of its parts filled to its width: 0002-1407-01 is 00002140701."""
    parts = ndc.split("-")
    if len(parts) == len(NDC_WIDTHS):
        return "".join(part.zfill(width) for part, width in zip(parts, NDC_WIDTHS, strict=True))
    return ndc.zfill(sum(NDC_WIDTHS))


def candidates(uri: str) -> dict[str, list[str]]:
    """Return the codes of every RXCUI, each once, in the order of the file.

    Raises:
        DataError: the file has another form.
    """
    official = as_official(uri)
    atc = first_of(("atc4", "atc5", "atc3", "atc"), official) or "atc4"
    table = read_whole(official.table, official.wanted({"rxcui": ("rxcui", Kind.ID), "atc": (atc, Kind.ID)}))
    found: dict[str, list[str]] = {}
    for rxcui, code in zip(table["rxcui"].to_pylist(), table["atc"].to_pylist(), strict=True):
        if rxcui and code and code[:CHARACTERS] not in found.setdefault(rxcui, []):
            found[rxcui].append(code[:CHARACTERS])
    return found


def code_of_text(uri: str, column: str) -> dict[str, str]:
    """Return the code of every text of a column, without those that have none; spaces and case do not count.

    Raises:
        DataError: the file has another form, or gives a text two codes.
    """
    official = as_official(uri)
    atc = first_of(("atc3", "atc4", "atc5", "atc"), official) or "atc3"
    table = read_whole(official.table, official.wanted({"text": (column, Kind.ID), "atc": (atc, Kind.ID)}))
    found: dict[str, str] = {}
    for row, (text, code) in enumerate(zip(table["text"].to_pylist(), table["atc"].to_pylist(), strict=True), 1):
        if text and code and found.setdefault(plain(text), code[:CHARACTERS]) != code[:CHARACTERS]:
            other = found[plain(text)]
            raise DataError(f"{uri}: row {row}: found {code} of {text!r}, which an earlier row says is {other}")
    return found


def plain(text: str) -> str:
    """Return a text as it is looked up: lower case, single spaces, a whole number without a fraction."""
    return re.sub(r"^(\d+)\.0$", r"\1", " ".join(text.lower().split()))


def _looked_up(texts: pa.ChunkedArray, codes: Mapping[str, str]) -> pa.ChunkedArray:
    """Return the code of every text, null where there is none."""
    encoded = texts.combine_chunks().dictionary_encode()
    code = [None if text is None else codes.get(plain(text)) for text in encoded.dictionary.to_pylist()]
    return pa.chunked_array([pa.array(code, pa.string()).take(encoded.indices)])
