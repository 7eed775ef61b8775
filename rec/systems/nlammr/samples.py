"""Small random visits and tables, for tests.

Letters: N visits, V medications, M molecules, D width of texts, A atoms, L tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rec.batch import Columns
from rec.data.encoders import Hashing, TextEncoder, Tokens, learn_tokenizer
from rec.data.molecules import ATOM_TABLES, BOND_TABLES
from rec.json_text import json_text
from rec.systems.nlammr.batch import MEDICATIONS, SECTIONS, TEXTS

VISITS, CODES, V, MOLECULES, WIDTH, LENGTH = 40, 9, 7, 8, 24, 12
MOST_CHARACTERS = 1000


def sample(rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
    """Return visits, the first of each patient and later ones, of which something is missing here and there."""
    tables = molecule_tables(rng) | _texts(rng)
    pair_P2 = np.array([[v, m] for v in range(V - 1) for m in (v, v + 1 if v % 2 else v)], np.int64)
    tables["medication_molecule_pairs"] = np.unique(pair_P2, axis=0)  # the last medication has none
    tables["interaction_pairs"] = np.array([[0, 2], [1, 5], [3, 4]])
    tables["medication_share"] = np.linspace(0, 1, V, dtype=np.float32)
    tables["interaction_together"] = np.array([3, 0, 1])
    tables["interaction_values"] = _note(json_text(["severe", "", "mild"]))

    def codes(most: int, size: int) -> np.ndarray:
        return np.sort(rng.choice(most, size, replace=False)).astype(np.int64)

    earlier = [np.arange(4 * row % VISITS, 4 * row % VISITS + row % 4) % VISITS for row in range(rows)]
    columns: dict[str, Any] = {
        "patient": np.arange(rows, dtype=np.int64) // 2,
        "visit": np.where(np.arange(rows) % 5 == 4, -1, rng.integers(0, VISITS, rows)),
        "earlier": earlier,
        "earlier_medications": [[codes(V, 1 + n % 3) for n in range(len(part))] for part in earlier],
        "gap": [np.linspace(90, 1, len(part)).astype(np.float32) for part in earlier],
        "medications": [codes(V, 1 + row % 4) for row in range(rows)],
    }
    columns |= {f"{entity}_text": ["seen" * (row % 3 == 1) for row in range(rows)] for entity in SECTIONS.values()}
    columns |= {name: [codes(CODES, (row + n) % 4) for row in range(rows)] for n, name in enumerate(SECTIONS)}
    return columns, tables


def molecule_tables(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return random trees of atoms: one alone, one twice."""
    atoms, owner, bonds, features = [], [], [], []
    first = 0
    for molecule in range(MOLECULES):
        size = 1 if molecule == 0 else 3 + molecule % 3
        own = rng if molecule < MOLECULES - 2 else np.random.default_rng(0)  # the last two are equal
        size = 4 if molecule >= MOLECULES - 2 else size
        atoms.append(np.stack([own.integers(0, most, size) for most in ATOM_TABLES], 1))
        owner += [molecule] * size
        for child in range(1, size):
            parent = int(own.integers(0, child))
            bonds += [[first + parent, first + child], [first + child, first + parent]]
            features += [[int(own.integers(0, most)) for most in BOND_TABLES]] * 2
        first += size
    return {
        "molecule_atoms": np.concatenate(atoms).astype(np.int16),
        "molecule_atom_owner": np.array(owner, np.int32),
        "molecule_bonds": np.array(bonds, np.int32).T,
        "molecule_bond_features": np.array(features, np.int8),
    }


def _texts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return texts of visits and of medications as vectors and as tokens; some are not there."""
    encoder = TextEncoder(Hashing(WIDTH), MOST_CHARACTERS)
    titles = {entity: [f"{entity}{code}" for code in range(CODES)] for entity in SECTIONS.values()}
    titles["medication"] = [f"drug{code}" for code in range(V)]
    words = [title for some in titles.values() for title in some]
    tokenizer = learn_tokenizer(words * 3, 100)
    tokens = Tokens(tokenizer, LENGTH)
    tables = {f"{name}_titles": _note(json_text(some)) for name, some in titles.items()}
    tables |= {"text_encoder": encoder.to_table(), "tokenizer": _note(tokenizer)}
    present = {name: rng.random(VISITS) < 0.7 for name in SECTIONS}
    present["all"] = np.any(list(present.values()), 0)
    for name in (*TEXTS, MEDICATIONS):
        texts = [" ".join(rng.choice(words, 3)) for _ in range(VISITS)]
        there = present.get(name, np.ones(VISITS, bool))
        texts = [text if is_there else "" for text, is_there in zip(texts, there, strict=True)]
        tables |= {f"text_{name}": encoder.encode(texts), f"text_{name}_present": there}
        tables[f"tokens_{name}"] = _tokens(tokens, texts)
    described = np.arange(V) != 1
    texts = [f"{title} for day{CODES - n}" if described[n] else "" for n, title in enumerate(titles["medication"])]
    tables |= {"medication_text": encoder.encode(texts), "medication_text_present": described}
    return tables | {"medication_tokens": _tokens(tokens, texts)}


def _tokens(tokens: Tokens, texts: list[str]) -> np.ndarray:
    token_NL = np.array(tokens.encode(texts))
    token_NL[[not text for text in texts]] = tokens.pad
    return token_NL


def _note(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)
