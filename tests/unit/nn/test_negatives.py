"""Negatives: nothing that was seen, exactly uniform over the rest, and nobody for whom there is no rest."""

import pytest
import torch

from rec import transfer
from rec.nn.negatives import Popular, Unseen, unseen


@pytest.fixture(params=["cpu", "elsewhere"])
def _where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws as on a CPU, and as where the host does not know what has been drawn."""
    if request.param == "elsewhere":
        monkeypatch.setattr(transfer, "host_knows", lambda value: False)


@pytest.mark.usefixtures("_where")
def test_who_has_nearly_everything_gets_what_is_left() -> None:
    torch.manual_seed(0)
    items = 1000
    seen = {0: set(range(1, items + 1)) - {7}, 3: set(range(1, items + 1)) - {1, 500, items}, 4: {2}}
    user = torch.tensor([u for u, s in seen.items() for _ in s])
    item = torch.tensor([i for s in seen.values() for i in sorted(s)])
    drawn = unseen(torch.tensor([3, 0, 4, 3]), user, item, items, 600)
    assert set(drawn[1].tolist()) == {7}
    for row in (0, 3):
        count = torch.bincount(drawn[row], minlength=items + 1)
        assert set(count.nonzero()[:, 0].tolist()) == {1, 500, items}
        assert count[[1, 500, items]].tolist() == pytest.approx([200] * 3, abs=60)
    assert 2 not in drawn[2].tolist()


@pytest.mark.usefixtures("_where")
@pytest.mark.parametrize("twice", [False, True])
def test_who_has_everything_gets_nothing(twice: bool) -> None:
    user = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2] * (1 + twice))
    item = torch.tensor([1, 2, 3, 1, 2, 3, 1, 2] * (1 + twice))
    drawn = unseen(torch.tensor([2, 1, 0, 3]), user, item, 3, 50)
    assert drawn[0].tolist() == drawn[2].tolist() == [0] * 50
    assert drawn[1].tolist() == [3] * 50
    assert set(drawn[3].tolist()) == {1, 2, 3}
    assert unseen(torch.tensor([5]), user[:0], item[:0], 3, 4).shape == (1, 4)


@pytest.mark.usefixtures("_where")
def test_items_of_a_list_are_drawn_evenly_from_what_is_unseen() -> None:
    """User 0 has seen 9 and 4 (twice), and 5, which may not be drawn; user 2 has seen nothing."""
    torch.manual_seed(0)
    user, item = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([9, 4, 5, 4, 2])
    drawn = Unseen(user, item, torch.tensor([9, 2, 4, 7])).draw(torch.tensor([0, 1, 2]).repeat(900)).view(900, 3)
    for column, wanted in enumerate(([2, 7], [4, 7, 9], [2, 4, 7, 9])):
        values, counts = drawn[:, column].unique(return_counts=True)
        assert values.tolist() == wanted
        assert counts.tolist() == pytest.approx([900 / len(wanted)] * len(wanted), abs=80)


@pytest.mark.usefixtures("_where")
def test_who_has_every_item_that_may_be_drawn_is_told() -> None:
    # User 0 has both items of training; user 1 has one of them, twice; user 2 has one, and one that may not be drawn.
    user, item = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([1, 2, 2, 2, 1, 3])
    found = Unseen(user, item, torch.tensor([1, 2]))
    assert found.full_F.tolist() == [0]
    kept = found.with_some(torch.tensor([2, 0, 1, 0]))
    assert kept is not None
    assert kept.tolist() == [True, False, True, False]
    assert found.draw(torch.tensor([2, 1])).tolist() == [2, 1]
    assert Unseen(user[2:], item[2:], torch.tensor([1, 2])).with_some(torch.tensor([2, 1])) is None


@pytest.mark.parametrize(("power", "weight"), [(0.0, [1, 1, 1, 1]), (0.5, [1, 2, 1, 3]), (1.0, [1, 4, 1, 9])])
def test_popular_items_are_drawn_as_often_as_expected(power: float, weight: list[int]) -> None:
    torch.manual_seed(0)
    popular = Popular(torch.tensor([100, 0, 4, 1, 9]), power)
    item, expected = popular.draw(20_000, torch.device("cpu"))
    share = [20_000 * w / sum(weight) for w in weight]
    for number, wanted in enumerate(share, 1):
        assert int((item == number).sum()) == pytest.approx(wanted, abs=4.5 * wanted**0.5)
        assert expected[item == number].tolist()[:1] == pytest.approx([wanted])
    assert int((item == 0).sum()) == 0
