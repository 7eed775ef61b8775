"""The parts of sharded tables in checkpoints: each rank's run of rows, by which any number of ranks can go on."""

from __future__ import annotations

from torch import nn

from rec.nn.sharded import SLOT, tables_of
from rec.train.shards import TensorPiece, Tensors


def shapes_of_tables(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every whole table, by the name of its weights."""
    return {f"{name}.weight": (table.rows, table.width) for name, table in tables_of(module)}


def pieces_of_tables(module: nn.Module, *, weights: bool = True) -> list[TensorPiece]:
    """Return what this rank owns of tables: weights, where they are asked for, and the optimiser's sums."""
    found = []
    for name, table in tables_of(module):
        rows = table.weight
        if weights:
            shape = (table.rows, table.width)
            found.append(TensorPiece(f"model.{name}.weight", shape, table.first * table.width, rows.reshape(-1)))
        found.append(TensorPiece(_slot(name), (table.rows,), table.first, table.square_L))
    return [piece for piece in found if piece.values.numel()]


def load_tables(module: nn.Module, state: Tensors) -> None:
    """Take over this rank's rows of every table."""
    for name, table in tables_of(module):
        values = state.part(f"model.{name}.weight", table.first * table.width, table.count * table.width)
        table.weight.copy_(values.view(table.weight.shape))


def load_sums(module: nn.Module, state: Tensors) -> None:
    """Take over the optimiser's sums of this rank's rows, where there are some."""
    for name, table in tables_of(module):
        if _slot(name) in state:
            table.square_L.copy_(state.part(_slot(name), table.first, table.count))


def _slot(name: str) -> str:
    return f"optimizer.{name}.weight.{SLOT}"
