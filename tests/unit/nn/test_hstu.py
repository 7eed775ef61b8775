import pytest
import torch

from rec.nn.hstu import HSTUBlock, pointwise_attention
from rec.nn.packed import layout

LENGTHS = [[1], [3, 7, 2, 7, 1], [12] * 4, [1, 2, 3, 40, 5]]


def by_loops(block: HSTUBlock, x_LD: torch.Tensor) -> torch.Tensor:
    """Return what a block makes of one sequence, row by row, as equations 1 to 3 say."""
    length, width = x_LD.shape
    gate, v, q, k = torch.nn.functional.silu(block.up(block.norm_in(x_LD))).chunk(4, -1)
    each = width // block.heads
    rows = []
    for i in range(length):
        parts = []
        for head in range(block.heads):
            of = slice(head * each, (head + 1) * each)
            found = torch.zeros(each, dtype=x_LD.dtype)
            for j in range(i + 1):
                score = q[i, of] @ k[j, of] + block.distance_HT[head, i - j]
                found = found + score * torch.sigmoid(score) * v[j, of]
            parts.append(found / block.max_length)
        rows.append(x_LD[i] + block.down(block.norm_out(torch.cat(parts)) * gate[i]))
    return torch.stack(rows)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("heads", [1, 2])
def test_a_block_equals_the_equations_row_by_row(lengths: list[int], heads: int) -> None:
    torch.manual_seed(0)
    block = HSTUBlock(8, heads, 0.3, 40).double().eval()
    with torch.no_grad():
        block.up.weight.normal_()
        block.distance_HT.normal_()
    x_ND = torch.randn(sum(lengths), 8, dtype=torch.float64, requires_grad=True)
    found = block(x_ND, layout(lengths), [])
    wanted = torch.cat([by_loops(block, part) for part in x_ND.split(lengths)])
    torch.testing.assert_close(found, wanted)
    weight = torch.randn_like(found)
    ours = torch.autograd.grad((found * weight).sum(), [x_ND, block.distance_HT, block.up.weight])
    theirs = torch.autograd.grad((wanted * weight).sum(), [x_ND, block.distance_HT, block.up.weight])
    torch.testing.assert_close(ours, theirs)


def test_attention_counts_instead_of_averaging() -> None:
    """Twice the same rows weigh twice as much, which softmax would not tell."""
    q_NHD, v_NHD = torch.ones(6, 1, 2), torch.ones(6, 1, 2)
    found = pointwise_attention(q_NHD, q_NHD, v_NHD, torch.zeros(1, 6), layout([6]))[:, 0, 0]
    torch.testing.assert_close(found, found[0] * torch.arange(1.0, 7.0))


def test_a_later_row_changes_no_earlier_one() -> None:
    block = HSTUBlock(8, 2, 0.0, 10)
    x_ND = torch.randn(10, 8)
    other = x_ND.clone()
    other[7:] += 1
    before, after = (block(x, layout([10]), []) for x in (x_ND, other))
    torch.testing.assert_close(before[:7], after[:7])
    assert not torch.equal(before[7], after[7])


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"heads must divide width \(8\), got 3"):
        HSTUBlock(8, 3, 0.0, 10)
