"""Molecules as graphs: what a line of SMILES says of atoms and bonds, as the indices of embedding tables.

The features, their order and their tables are those of OGB's `smiles2graph` (Hu et al. 2020, Open Graph Benchmark), so
that models and numbers compare; the last index of most tables stands for anything else. No explicit hydrogens.
Letters: A atoms, E directed bonds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rec.errors import ConfigError

CHIRALITY = ("CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER")
HYBRIDISATION = ("SP", "SP2", "SP3", "SP3D", "SP3D2")
BOND = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
STEREO = ("STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS", "STEREOANY")
ATOM_TABLES = (119, 5, 12, 12, 10, 6, 6, 2, 2)
"""Sizes: atomic number, chirality, degree, formal charge, hydrogens, radical electrons, hybridisation, aromatic, in a
ring."""
BOND_TABLES = (5, 6, 2)
"""Sizes: type, stereo, conjugated."""


@dataclass(frozen=True, slots=True)
class Molecules:
    """Graphs of several molecules in one."""

    atoms: np.ndarray
    """(A, 9) int16, an index of each of `ATOM_TABLES`."""
    owner: np.ndarray
    """(A,) int32: whose atom it is, rising."""
    bonds: np.ndarray
    """(2, E) int32 places of atoms, each bond in both directions."""
    bond_features: np.ndarray
    """(E, 3) int8, an index of each of `BOND_TABLES`."""
    unreadable: list[int] = field(default_factory=list)
    """Places of molecules without an atom, because nothing or no SMILES was there."""


def graphs(smiles: Sequence[str | None]) -> Molecules:
    """Return the graphs of molecules; one that is no SMILES has no atom and is told."""
    atoms, bonds, features = [np.zeros((0, 9), np.int16)], [np.zeros((2, 0), np.int32)], [np.zeros((0, 3), np.int8)]
    count, unreadable, first = np.zeros(len(smiles), np.int64), [], 0
    for place, text in enumerate(smiles):
        graph = _graph(text)
        if graph is None:
            unreadable.append(place)
            continue
        atoms.append(graph[0])
        bonds.append(graph[1] + np.int32(first))
        features.append(graph[2])
        count[place] = len(graph[0])
        first += len(graph[0])
    owner = np.repeat(np.arange(len(smiles), dtype=np.int32), count)
    return Molecules(np.concatenate(atoms), owner, np.concatenate(bonds, 1), np.concatenate(features), unreadable)


def _molecule(text: str | None) -> Any:
    """Return the molecule of a SMILES, None where a text is none."""
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise ConfigError("molecules need rdkit; install rec[molecules]") from error
    if text is None or not text.strip():
        return None
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(text)
    return molecule if molecule is not None and molecule.GetNumAtoms() else None


def readable(text: str | None) -> bool:
    """Return whether a text is the SMILES of a molecule."""
    return _molecule(text) is not None


def _graph(text: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return atoms (A, 9), bonds (2, E) and their features (E, 3), None where a text is no molecule."""
    molecule = _molecule(text)
    if molecule is None:
        return None
    atoms = np.array([_atom(atom) for atom in molecule.GetAtoms()], np.int16)
    ends, features = [], []
    for bond in molecule.GetBonds():
        pair = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
        ends += [pair, pair[::-1]]
        features += [_bond(bond)] * 2
    return (
        atoms,
        np.ascontiguousarray(np.array(ends, np.int32).reshape(-1, 2).T),
        np.array(features, np.int8).reshape(-1, len(BOND_TABLES)),
    )


def _atom(atom: Any) -> tuple[int, ...]:
    return (
        _index(atom.GetAtomicNum() - 1, 118),
        _place(str(atom.GetChiralTag()), CHIRALITY),
        _index(atom.GetTotalDegree(), 11),
        _index(atom.GetFormalCharge() + 5, 11),
        _index(atom.GetTotalNumHs(), 9),
        _index(atom.GetNumRadicalElectrons(), 5),
        _place(str(atom.GetHybridization()), HYBRIDISATION),
        int(atom.GetIsAromatic()),
        int(atom.IsInRing()),
    )


def _bond(bond: Any) -> tuple[int, ...]:
    return (
        _place(str(bond.GetBondType()), BOND),
        STEREO.index(str(bond.GetStereo())) if str(bond.GetStereo()) in STEREO else 0,
        int(bond.GetIsConjugated()),
    )


def _index(value: int, other: int) -> int:
    """Return a value that has a place of its own, else the place of all others."""
    return value if 0 <= value < other else other


def _place(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)
