"""A table in one process: lookups, row-wise updates, start values, files."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rec.nn import sharded
from rec.nn.sharded import EPSILON, ShardedEmbedding, tables_of, update_tables
from rec.train.config import TrainConfig
from rec.train.engine import LocalEngine
from tests.support.states import InMemory, state_of

ROWS, WIDTH = 12, 3


class Sum(nn.Module):
    """A table and a layer on its vectors."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.item = ShardedEmbedding(ROWS, WIDTH, std=1.0, seed=seed, rate=2.0)
        torch.manual_seed(0)
        self.out = nn.Linear(WIDTH, 1)

    def forward(self, index: Tensor) -> Tensor:
        return torch.tanh(self.out(self.item(index))).sum()


def step(module: nn.Module, index: Tensor, rate: float = 0.1, clip: float = float("inf")) -> float:
    module(index).backward()
    return update_tables(module, rate=rate, world_size=1, clip_norm=clip, total=lambda value: value)


def test_a_lookup_gives_the_rows_in_the_shape_of_the_indices() -> None:
    table = ShardedEmbedding(ROWS, WIDTH)
    index = torch.tensor([[3, 0], [3, 11]])
    assert torch.equal(table(index), table.weight[index])
    assert torch.equal(table.range(slice(2, 5)), table.weight[2:5])
    assert table.weight[0].tolist() == [0] * WIDTH
    assert [name for name, _ in tables_of(Sum())] == ["item"]


def test_an_update_is_that_of_a_dense_table_with_the_same_rule() -> None:
    module = Sum()
    dense, square = module.item.weight.clone().requires_grad_(), torch.zeros(ROWS)
    for index in (torch.tensor([1, 5, 5, 0]), torch.tensor([5, 2]), torch.tensor([0, 0])):
        torch.tanh(module.out(dense[index])).sum().backward()
        norm = step(module, index)
        grad = dense.grad.clone()
        grad[0] = 0
        assert norm == pytest.approx(float(grad.norm()), abs=1e-7)
        square += grad.square().mean(1)
        with torch.no_grad():
            dense -= 0.2 * grad / (square.sqrt() + EPSILON)[:, None]
            dense.grad = None
        torch.testing.assert_close(module.item.weight, dense.detach())
        torch.testing.assert_close(module.item.square_L, square)
    assert not module.item.waiting


def test_gradients_of_microbatches_add_up_and_are_clipped_together() -> None:
    whole, parts = Sum(), Sum()
    index = torch.tensor([4, 4, 7, 9])
    norm = step(whole, index, clip=0.1)
    parts(index[:1]).backward()
    assert step(parts, index[1:], clip=0.1) == pytest.approx(norm)
    torch.testing.assert_close(parts.item.weight, whole.item.weight)


def test_nothing_that_is_made_in_a_step_has_the_size_of_the_table() -> None:
    from rec.benchmarks.memory import largest_bytes

    table = ShardedEmbedding(100_000, 4)
    assert table.weight.shape == (100_000, 4)
    layer = nn.Linear(4, 1)

    def action() -> None:
        layer(table(torch.tensor([5, 70_000, 5]))).sum().backward()
        local_T, grad_TD = table.touched()
        table.update(local_T, grad_TD, 0.1)

    assert largest_bytes(action) <= 3 * 4 * 4


@pytest.mark.parametrize("world", [1, 3, 5, 20])
def test_start_values_do_not_depend_on_who_draws_them(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "DRAWN_AT_ONCE", 5)
    whole = ShardedEmbedding(ROWS, WIDTH, seed=3).weight

    class Place:
        world_size = world

        def __init__(self, rank: int) -> None:
            self.rank = rank

    parts = []
    for rank in range(world):
        for made in (False, True):
            table = ShardedEmbedding(ROWS, WIDTH, seed=3)
            if made:
                assert table.weight is not None
            table.share(Place(rank), torch.device("cpu"))  # type: ignore[arg-type]
        parts.append(table.weight)
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(ShardedEmbedding(ROWS, WIDTH, seed=4).weight, whole)


def test_a_state_goes_on_equally() -> None:
    index = torch.tensor([1, 2, 2, 8])

    def steps(engine: LocalEngine) -> list[float]:
        found = []
        for _ in range(3):
            engine.backward(engine.module(index))
            found.append(engine.step(0.1))
        return found

    engine = LocalEngine(Sum(), TrainConfig())
    steps(engine)
    saved = state_of(engine)
    assert saved["model.item.weight"].shape == (ROWS, WIDTH)
    assert saved["optimizer.item.weight.square"].shape == (ROWS,)
    other = LocalEngine(Sum(seed=9), TrainConfig())
    other.load_state(InMemory(saved))
    assert steps(other) == steps(engine)


def test_weights_in_a_file_are_taken_as_they_lie_there() -> None:
    module, given = Sum(), Sum(seed=7).state_dict()
    module.load_state_dict(given, assign=True)
    assert module.item.weight.data_ptr() == given["item.weight"].data_ptr()
    module = Sum()
    module.load_state_dict(given)
    assert torch.equal(module.item.weight, given["item.weight"])
    with pytest.raises(RuntimeError, match=r"item.weight: has shape \(2, 3\), expected \(12, 3\)"):
        module.load_state_dict(given | {"item.weight": torch.zeros(2, 3)})
    with pytest.raises(RuntimeError, match=r"Missing key.*item.weight"):
        module.load_state_dict({name: value for name, value in given.items() if name != "item.weight"})


def test_half_precision_leaves_the_rows_whole() -> None:
    assert Sum().bfloat16().item.weight.dtype == torch.float32
