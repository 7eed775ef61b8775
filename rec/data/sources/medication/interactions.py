"""Pairs of medications that interact: published matrices, tables of pairs, or rebuilt from TWOSIDES.

Source of the rebuilt ones: SafeDrug (Yang et al., 2021), whose "40 most severe" side effects are in truth the 40 rarest
of the file: pairs of compounds with any of them, as codes by SIDER's table of compounds.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.runner import Runner
from rec.data.sources.medication.drugs import CHARACTERS
from rec.data.sources.medication.official import Official, as_official, value_of
from rec.data.tables import Kind, Piece, TableFormat, pieces, read, read_whole
from rec.data.tables.files import locate
from rec.data.tables.layout import complete, layout
from rec.data.tables.reading import Wanted
from rec.data.tables.text import raw
from rec.errors import ConfigError, DataError
from rec.storage import Storage

RAREST = 40
RAW = {"left": "stitch 1", "right": "stitch 2", "effect": "polypharmacy side effect"}
"""Columns of TWOSIDES' drug-DDI.csv."""
NAMED = (("atc3_i", "atc3_j"), ("left", "right"), ("atc_1", "atc_2"))
"""Columns of tables of pairs."""
WHAT = (
    "drug-drug interactions: a matrix .npy with data.read.interaction_codes, a table of pairs (columns atc3_i and "
    "atc3_j, and severity where it is known), or TWOSIDES' drug-DDI.csv (snap.stanford.edu/decagon) with "
    "data.read.cid_atc"
)
WHAT_CODES = "the codes of the matrix's rows: a JSON list, in order"
WHAT_CID = "compounds with their ATC codes, a line each: SIDER's drug-atc.csv (github.com/sjy1203/GAMENet, data)"
Pairs = dict[tuple[str, str], str]
"""Two codes, the first before the second, and how severe it is, "" where that is not known."""


@dataclass(frozen=True, slots=True)
class Interactions:
    """Which codes interact, and of which that is known."""

    pairs: Pairs
    codes: frozenset[str]
    """Codes that the source tells of; of others nobody knows whether they interact."""


@dataclass(frozen=True, slots=True)
class RawTask:
    """A piece of TWOSIDES."""

    piece: Piece
    wanted: Wanted
    effects: tuple[str, ...] = ()
    """Whose pairs are wanted; none counts rows of effects instead."""


def read_interactions(uri: str, codes: str, cid_atc: str, rarest: int, runner: Runner) -> Interactions:
    """Return the pairs of codes that interact.

    Args:
        uri: What they are made from; see `WHAT`.
        codes: Path of a matrix's codes.
        cid_atc: Path of the codes of compounds.
        rarest: Side effects of TWOSIDES whose pairs count, from the rarest.
        runner: What runs the passes over TWOSIDES.

    Raises:
        ConfigError: a file is not named that is needed.
        DataError: a file has another form.
    """
    if uri.lower().endswith(".npy"):
        if not codes:
            raise ConfigError(f"data.read.interaction_codes: not set, expected {WHAT_CODES}")
        pairs, told = of_matrix(uri, codes), frozenset(map(str, value_of(codes)))
        return Interactions(pairs, told)
    official = as_official(uri)
    if all(name in official.names for name in RAW.values()):
        if not cid_atc:
            raise ConfigError(f"data.read.cid_atc: not set, expected {WHAT_CID}")
        compounds = codes_of_compounds(cid_atc)
        told = frozenset(code for found in compounds.values() for code in found)
        return Interactions(of_twosides(official, compounds, rarest, runner), told)
    pairs = of_pairs(official, uri)
    return Interactions(pairs, frozenset(code for pair in pairs for code in pair))


def of_matrix(uri: str, codes: str) -> Pairs:
    """Return the pairs of a square matrix that are not zero, on either side of the diagonal."""
    vocabulary, (folder, _, name) = value_of(codes), uri.rpartition("/")
    try:
        matrix = np.load(io.BytesIO(Storage(folder).read(name)), allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{uri}: cannot be read ({error})") from error
    if not isinstance(vocabulary, list) or matrix.shape != (len(vocabulary), len(vocabulary)):
        found = len(vocabulary) if isinstance(vocabulary, list) else type(vocabulary).__name__
        raise DataError(f"{uri}: found shape {matrix.shape}, and {found} in {codes}: expected a row for each code")
    left, right = np.nonzero(matrix)
    return ordered((str(vocabulary[i]), str(vocabulary[j]), "") for i, j in zip(left, right, strict=True))


def of_pairs(official: Official, uri: str) -> Pairs:
    """Return the pairs of a table."""
    names = next((pair for pair in NAMED if all(name in official.names for name in pair)), None)
    if names is None:
        raise DataError(f"{uri}: found the columns {', '.join(official.names)}, expected {WHAT}")
    columns = {"left": (names[0], Kind.ID), "right": (names[1], Kind.ID)}
    if "severity" in official.names:
        columns["severity"] = ("severity", Kind.TEXT)
    rows = read_whole(official.table, official.wanted(columns)).to_pylist()
    return ordered((r["left"], r["right"], r.get("severity") or "") for r in rows if r["left"] and r["right"])


def of_twosides(official: Official, codes: Mapping[str, list[str]], rarest: int, runner: Runner) -> Pairs:
    """Return the pairs of codes whose compounds have one of the rarest side effects; ties go by the effect's name."""
    wanted = official.wanted({ours: (theirs, Kind.ID) for ours, theirs in RAW.items()})
    parts = pieces(official.table)
    rows: Counter[str] = sum(
        runner.map(effects_of, [RawTask(piece, wanted) for piece in parts], "prepare: side effects"), Counter()
    )
    kept = tuple(sorted(rows, key=lambda effect: (rows[effect], effect))[:rarest])
    found = runner.map(compounds_of, [RawTask(p, wanted, kept) for p in parts], "prepare: interactions")
    compounds = {pair for part in found for pair in part}
    return ordered((a, b, "") for x, y in compounds for a in codes.get(x, ()) for b in codes.get(y, ()))


def effects_of(task: RawTask) -> Counter[str]:
    """Return the rows of each side effect."""
    rows: Counter[str] = Counter()
    for table in read(task.piece, task.wanted):
        for entry in pc.value_counts(table["effect"].combine_chunks().drop_null()).to_pylist():
            rows[entry["values"]] += entry["counts"]
    return rows


def compounds_of(task: RawTask) -> set[tuple[str, str]]:
    """Return the pairs of compounds that have any of some side effects."""
    found: set[tuple[str, str]] = set()
    for table in read(task.piece, task.wanted):
        chosen = table.filter(pc.is_in(table["effect"], pa.array(task.effects, pa.string())))
        found |= set(zip(chosen["left"].to_pylist(), chosen["right"].to_pylist(), strict=True))
    return found


def codes_of_compounds(uri: str) -> dict[str, list[str]]:
    """Return the codes of each compound; a line has the compound and as many ATC codes as it has."""
    location = locate(uri)
    known = complete(layout(location, TableFormat(delimiter=",", header=("cid",))), location)
    return {row[0]: list(dict.fromkeys(c[:CHARACTERS] for c in row[1:] if c)) for row in raw(location, known)}


def ordered(rows: Iterable[tuple[str, str, str]]) -> Pairs:
    """Return pairs of different codes, each once, sorted; of several severities the first that is told."""
    found: Pairs = {}
    for left, right, severity in rows:
        a, b = sorted((left[:CHARACTERS], right[:CHARACTERS]))
        if a != b and not found.get((a, b)):
            found[a, b] = severity
    return dict(sorted(found.items()))


def as_table(pairs: Pairs, codes: Iterable[str]) -> pa.Table:
    """Return the pairs of some codes."""
    known = set(codes)
    rows = [(a, b, severity) for (a, b), severity in pairs.items() if a in known and b in known]
    columns = [pa.array([row[n] for row in rows], pa.string()) for n in range(3)]
    return pa.table(dict(zip(("left", "right", "severity"), columns, strict=True)))
