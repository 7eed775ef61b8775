"""Relations between members of entities, their titles, and their molecules' graphs, as tables.

NAME_pairs.npy            (P, 2) int64 members, sorted, each pair once
NAME_values.npy           uint8, a JSON list: what is between the two, one per pair
NAME_together.npy         (P,) int64, of a relation within one entity: events of training that name both of a pair
ENTITY_share.npy          (V,) float32, share of training's events that name a member, of entities that events list
ENTITY_titles.npy         uint8, a JSON list: what people call each member
ENTITY_atoms.npy, ENTITY_atom_owner.npy, ENTITY_bonds.npy, ENTITY_bond_features.npy: see `rec.data.molecules`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from rec.data.molecules import graphs
from rec.data.runner import Runner
from rec.data.schema import Relation
from rec.data.stages.events import indices
from rec.data.writing import Draft
from rec.errors import DataError
from rec.json_text import json_text
from rec.sections import plural

SMILES, TITLE = "smiles", "title"
SHOWN = 5
"""Members that are named in a message."""
Say = Callable[[str], None]


def write_relations(
    draft: Draft, relations: Mapping[str, Relation], entities: Mapping[str, pa.Table], dropped: Counter[str]
) -> dict[str, np.ndarray]:
    """Write the pairs of every relation and return them, (P, 2) each.

    Raises:
        DataError: a column or an entity is not there.
    """
    written = {}
    for name, relation in relations.items():
        table = relation.table
        sides = []
        for field in (relation.left, relation.right):
            if field.entity not in entities:
                raise DataError(f"relation {name!r}: no entity {field.entity!r}; there are {', '.join(entities)}")
            place, _ = indices(_column(name, table, field.name), entities[field.entity]["id"])
            unknown = pc.is_null(place).to_numpy(zero_copy_only=False)
            dropped[f"pair of {name!r} that names an unknown {field.entity}"] += int(unknown.sum())
            sides.append(np.where(unknown, -1, pc.fill_null(place, -1).to_numpy()).astype(np.int64))
        pair_P2 = np.stack(sides, 1)
        known = np.flatnonzero((pair_P2 >= 0).all(1))
        pair_P2, first = np.unique(pair_P2[known], axis=0, return_index=True)
        dropped[f"repeated pair of {name!r}"] += len(known) - len(first)
        written[name] = pair_P2.reshape(-1, 2)
        draft.array(f"{name}_pairs", written[name])
        if relation.value:
            values = _column(name, table, relation.value).take(pa.array(known[first]))
            draft.note(f"{name}_values", json_text([value or "" for value in values.to_pylist()]))
    return written


def write_counts(
    draft: Draft,
    relations: Mapping[str, Relation],
    pairs: Mapping[str, np.ndarray],
    members: Mapping[str, Sequence[pa.ListArray]],
    sizes: Mapping[str, int],
) -> None:
    """Write which share of events names each member, and how many name both of a pair of a relation within an entity.

    `members` holds the lists of members that each event names, a row per event, by entity.
    """
    for entity, lists in members.items():
        named_EV = _named(lists, sizes[entity])
        draft.array(f"{entity}_share", (named_EV.sum(0) / max(named_EV.shape[0], 1)).astype(np.float32))
        for name, relation in relations.items():
            if relation.left.entity == relation.right.entity == entity:
                together = (named_EV.T @ named_EV).tocsr()[tuple(pairs[name].T)]
                draft.array(f"{name}_together", np.asarray(together).ravel().astype(np.int64))


def _named(lists: Sequence[pa.ListArray], size: int) -> csr_array:
    """Return which members each event names in any of its lists, (E, V) of 0 and 1."""
    event = [np.repeat(np.arange(len(listed)), np.diff(listed.offsets.to_numpy())) for listed in lists]
    member_N = np.concatenate([listed.flatten().to_numpy() for listed in lists])
    named_EV = csr_array(
        (np.ones(len(member_N), np.int64), (np.concatenate(event), member_N)), shape=(len(lists[0]), size)
    )
    named_EV.data[:] = 1  # What is named twice was added up.
    return named_EV


def titles(table: pa.Table) -> list[str]:
    """Return what people call each member: its title, or its id where it has none."""
    ids = [str(name) for name in table["id"].to_pylist()]
    if TITLE not in table.column_names:
        return ids
    given = [str(title or "").strip() for title in table[TITLE].to_pylist()]
    return [title or name for title, name in zip(given, ids, strict=True)]


def write_titles(draft: Draft, title_of: Mapping[str, list[str]]) -> None:
    """Write the titles of entities."""
    for name, written in title_of.items():
        draft.note(f"{name}_titles", json_text(written))


def write_molecules(draft: Draft, entities: Mapping[str, pa.Table], runner: Runner, say: Say) -> None:
    """Write the graphs of entities that are molecules, and say whose structure cannot be read."""
    for name, table in entities.items():
        if SMILES not in table.column_names:
            continue
        (found,) = runner.map(graphs, [table[SMILES].to_pylist()], "prepare: molecules")
        draft.array(f"{name}_atoms", found.atoms)
        draft.array(f"{name}_atom_owner", found.owner)
        draft.array(f"{name}_bonds", found.bonds)
        draft.array(f"{name}_bond_features", found.bond_features)
        sizes = f"{len(found.atoms):,} atoms, {found.bonds.shape[1]:,} directed bonds"
        say(f"{plural(name)}: graphs of {len(table):,}: {sizes}")
        if found.unreadable:
            some = ", ".join(
                f"{table['id'][n].as_py()!r} ({table[SMILES][n].as_py()!r})" for n in found.unreadable[:SHOWN]
            )
            more = len(found.unreadable) - SHOWN
            rest = f" and {more:,} more" if more > 0 else ""
            say(
                f"{plural(name)}: {len(found.unreadable):,} have no SMILES that can be read, and no atoms: {some}{rest}"
            )


def _column(relation: str, table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        raise DataError(f"relation {relation!r}: no column {name!r}; there are {', '.join(table.column_names)}")
    column = table[name].combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
