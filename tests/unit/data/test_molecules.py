"""Molecules as graphs."""

import json
from pathlib import Path

import numpy as np
import pytest

from rec.data.molecules import ATOM_TABLES, BOND_TABLES, graphs

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "medication" / "molecules"


def test_acetic_acid_has_the_features_of_its_atoms_and_bonds() -> None:
    found = graphs(["CC(=O)O"])
    # atomic number - 1, chirality, degree, charge + 5, hydrogens, radicals, hybridisation, aromatic, in a ring
    assert found.atoms.tolist() == [
        [5, 0, 4, 5, 3, 0, 2, 0, 0],
        [5, 0, 3, 5, 0, 0, 1, 0, 0],
        [7, 0, 1, 5, 0, 0, 1, 0, 0],
        [7, 0, 2, 5, 1, 0, 1, 0, 0],
    ]
    assert found.bonds.tolist() == [[0, 1, 1, 2, 1, 3], [1, 0, 2, 1, 3, 1]]
    assert found.bond_features.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert (found.atoms.dtype, found.bonds.dtype, found.bond_features.dtype) == (np.int16, np.int32, np.int8)


@pytest.mark.parametrize(
    ("smiles", "place", "features"),
    [
        ("[Na+]", 0, [10, 0, 0, 6, 0, 0, 5, 0, 0]),  # a single atom: hybridisation is none of those listed
        ("c1ccccc1", 0, [5, 0, 3, 5, 1, 0, 1, 1, 1]),  # aromatic, in a ring
        ("N[C@@H](C)C(=O)O", 1, [5, 1, 4, 5, 1, 0, 2, 0, 0]),  # clockwise
        ("N[C@H](C)C(=O)O", 1, [5, 2, 4, 5, 1, 0, 2, 0, 0]),  # counter-clockwise
        ("[CH3]", 0, [5, 0, 3, 5, 3, 1, 2, 0, 0]),  # a radical
        ("*C", 0, [118, 0, 1, 5, 0, 0, 5, 0, 0]),  # any atom
    ],
)
def test_an_atom_has_an_index_of_every_table(smiles: str, place: int, features: list[int]) -> None:
    found = graphs([smiles])
    assert found.atoms[place].tolist() == features
    assert (found.atoms < np.array(ATOM_TABLES)).all()


@pytest.mark.parametrize(
    ("smiles", "features"),
    [
        ("C/C=C/C", [1, 2, 0]),
        ("C/C=C\\C", [1, 1, 0]),
        ("C#N", [2, 0, 0]),
        ("c1ccccc1", [3, 0, 1]),
        ("N->[Pt]", [4, 0, 0]),
    ],
)
def test_a_bond_has_an_index_of_every_table(smiles: str, features: list[int]) -> None:
    found = graphs([smiles]).bond_features
    assert features in found.tolist()
    assert (found < np.array(BOND_TABLES)).all()


def test_molecules_follow_one_another_and_what_is_none_has_no_atom() -> None:
    found = graphs(["CO", "no molecule", "[F-].[Na+]", None, " ", "OC=O", "C1CC"])
    assert found.owner.tolist() == [0, 0, 2, 2, 5, 5, 5]
    assert found.bonds.tolist() == [[0, 1, 4, 5, 5, 6], [1, 0, 5, 4, 6, 5]]
    assert found.unreadable == [1, 3, 4, 6]


@pytest.mark.parametrize("smiles", [[], ["[Na+].[Cl-]", "O"], [None, "?"]])
def test_molecules_without_a_bond_keep_the_shapes(smiles: list[str | None]) -> None:
    found = graphs(smiles)
    assert found.bonds.shape == (2, 0)
    assert found.bond_features.shape == (0, 3)
    assert found.atoms.shape == (len(found.owner), 9)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("nlammr_mimic3", (269, 6_782, 14_456)),
        ("safedrug_master", (269, 6_871, 14_650)),
    ],
)
def test_published_molecules_have_the_published_sizes(name: str, counts: tuple[int, int, int]) -> None:
    path = FOLDER / f"{name}_atc3_to_smiles.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    smiles = [one for some in json.loads(path.read_text()).values() for one in some]
    found = graphs(smiles)
    assert (len(smiles), len(found.atoms), found.bonds.shape[1]) == counts
    assert found.unreadable == []
