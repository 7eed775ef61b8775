"""Scores of all pairs of two sides by a network or a mixture whose first layers are computed once per row of a side.

A pair's row is the left row, the right row and the product of two inner rows. A first layer is linear in it, so that
its parts on the left and on the right row are shared by all pairs of that row; what is left for a pair is the inner
part, which for one left row is one product with all right rows, the activation, the last layer and the head. All in
float32 at least, whatever the weights are; in evaluation only, and without gradients.

Letters: B left rows, I right rows, N right rows of a tile, L left, R right and W inner columns of a pair's row, V the
inner columns and a one, E experts (1 for a network that every pair passes), K experts per pair, F hidden width, O width
of outputs, P width of the head, A = N K (pair, choice) rows sorted by expert.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rec import transfer
from rec.moe.dispatch import carry, stable_order
from rec.moe.experts import FeedForward, FeedForwardExperts, activate
from rec.moe.layer import MixtureOfExperts, mixed_elsewhere
from rec.moe.routers import SigmoidRouter, SoftmaxRouter
from rec.moe.routing import Routing, keep_all

TILE = 4096
"""Right rows that a processor scores together for a left row: few enough to stay near it, enough for a call."""
PASS_BYTES, PROCESSOR_BYTES = 1 << 30, 1 << 28
"""Most that a pass of pairs takes on a device, 1 GiB: few calls, each with enough to do; and on a processor, 256 MiB:
more memory takes it longer."""
DECIDED = 64
"""Left rows of which the host asks together how many of their pairs each expert has, where it has to wait for that."""
KEPT_BYTES = 1 << 28
"""Most that is kept of a right side; beyond, it is computed for every batch of left rows, a tile at a time."""

gelu_ = torch.ops.aten.gelu_
"""GELU in place: without new memory it takes two thirds of the time."""
Widths = tuple[int, int, int]
"""Columns of the left row, of the right row and of the inner product, 0 without one."""


def pass_bytes(where: Tensor) -> int:
    """Return the most that a pass of pairs takes on the device of a tensor."""
    return PROCESSOR_BYTES if transfer.host_knows(where) else PASS_BYTES


def splits(network: nn.Module, left: int) -> bool:
    """Return whether `PairScores` can take a network apart, where the left row has so many columns.

    It can with plain networks, and with mixtures in evaluation whose experts, all of them here, are feed-forward and
    whose gate is a matrix on the pair's row or on columns of the left row.
    """
    if isinstance(network, FeedForward):
        return True
    return (
        type(network) is MixtureOfExperts
        and not network.training
        and type(network.experts) is FeedForwardExperts
        and network.carry is carry
        and isinstance(network.shared, FeedForward | None)
        and isinstance(network.router, SoftmaxRouter | SigmoidRouter)
        and network.gate_width <= left
    )


class Stack:
    """Feed-forward networks of one shape with first layers cut by side and a linear map after them multiplied in."""

    def __init__(self, networks: FeedForward | FeedForwardExperts, widths: Widths, after_OP: Tensor) -> None:
        down = networks.down_FD if isinstance(networks, FeedForward) else networks.down_EFD
        parts = [part.to(after_OP.dtype) for part in networks.first_layer(widths)]
        self.left_ELF, self.right_ERF, self.inner_EWF = (part[None] if part.ndim == 2 else part for part in parts)
        self.down_EFP = (down[None] if down.ndim == 2 else down).to(after_OP.dtype) @ after_OP
        self.columns = self.right_ERF.shape[0] * self.right_ERF.shape[2]
        """What first layers make of a right row."""
        self.activation = networks.activation

    def of_one(self, left_EBF: Tensor, b: int, inner_W: Tensor, expert: int | slice = slice(None)) -> Tensor:
        """Return first layers for the pairs of one left row, on inner columns and a one, (V, F) or (E, V, F)."""
        return torch.cat([self.inner_EWF[expert] * inner_W[:, None], left_EBF[expert, b].unsqueeze(-2)], -2)

    def activated(self, hidden_NF: Tensor) -> Tensor:
        """Return what the last layer takes; may write over what it is given."""
        return gelu_(hidden_NF) if self.activation == "gelu" else activate(hidden_NF, self.activation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Rows of the right side: inner columns and a one, and each first layer's part of the right row."""

    inner_NV: Tensor
    always_ENF: Tensor | None
    routed_ENF: Tensor | None
    gate_NE: Tensor | None
    """Of a gate that sees the pair."""

    def rows(self, first: int, last: int) -> Tile:
        """Return a view of some of these rows."""
        return Tile(
            inner_NV=self.inner_NV[first:last],
            always_ENF=None if self.always_ENF is None else self.always_ENF[:, first:last],
            routed_ENF=None if self.routed_ENF is None else self.routed_ENF[:, first:last],
            gate_NE=None if self.gate_NE is None else self.gate_NE[first:last],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One side, ready to be scored: with what first layers make of it, or without where that is too much to keep."""

    right_IR: Tensor
    inner_IV: Tensor
    kept: Tile | None = None


class PairScores:
    """A plain network or a mixture, then a head of one hidden layer, on all pairs of rows of two sides.

    It reads the weights once, so that it holds until they change. `up` is the head's first layer and `down` its last,
    after GELU, to one score.
    """

    def __init__(self, network: nn.Module, widths: Widths, up: nn.Linear, down: nn.Linear) -> None:
        self.layer = network if isinstance(network, MixtureOfExperts) else None
        self.dtype = torch.promote_types(up.weight.dtype, torch.float32)
        after_OP, self.bias_P = up.weight.detach().T.to(self.dtype), up.bias.detach().to(self.dtype)
        self.down_P, self.offset = down.weight.detach()[0].to(self.dtype), down.bias.detach().to(self.dtype)
        always = network if self.layer is None else self.layer.shared
        self.always = self.routed = None
        self.gate: tuple[Tensor, ...] = ()
        with torch.no_grad():
            if isinstance(always, FeedForward):
                self.always = Stack(always, widths, after_OP)
            if self.layer is not None:
                assert isinstance(self.layer.experts, FeedForwardExperts)
                self.routed = Stack(self.layer.experts, widths, after_OP * self.layer.scale)
                if not self.layer.gate_width:
                    assert isinstance(self.layer.router, SoftmaxRouter | SigmoidRouter)
                    self.gate = self.layer.router.gate.weight.to(self.dtype).T.split(widths)

    @torch.no_grad()
    def right(self, right_IR: Tensor, inner_IW: Tensor) -> Right:
        """Return a side with rows (I, R) and inner columns (I, W), ready to be scored."""
        right_IR, inner_IW = right_IR.to(self.dtype), inner_IW.to(self.dtype)
        inner_IV = torch.cat([inner_IW, inner_IW.new_ones(len(inner_IW), 1)], 1)
        right = Right(right_IR=right_IR, inner_IV=inner_IV)
        stacks = [stack for stack in (self.always, self.routed) if stack is not None]
        columns = sum(stack.columns for stack in stacks)
        if len(right_IR) * columns * right_IR.element_size() > KEPT_BYTES:
            return right
        return Right(right_IR=right_IR, inner_IV=inner_IV, kept=self._tile(right, 0, len(right_IR)))

    def _tile(self, right: Right, first: int, last: int) -> Tile:
        if right.kept is not None:
            return right.kept.rows(first, last)
        right_NR = right.right_IR[first:last]
        return Tile(
            inner_NV=right.inner_IV[first:last],
            always_ENF=None if self.always is None else right_NR @ self.always.right_ERF,
            routed_ENF=None if self.routed is None else right_NR @ self.routed.right_ERF,
            gate_NE=right_NR @ self.gate[1] if self.gate else None,
        )

    @torch.no_grad()
    def scores(self, left_BL: Tensor, inner_BW: Tensor, right: Right, some: slice = slice(None)) -> Tensor:
        """Return the score of every left row with neighbouring rows of the right side, (B, N).

        Who listens to the mixture layer hears of one row per left row: the mean of its routing over these pairs.
        """
        first, last, _ = some.indices(len(right.right_IR))
        left_BL, inner_BW = left_BL.to(self.dtype), inner_BW.to(self.dtype)
        score_BN = left_BL.new_empty(len(left_BL), max(0, last - first))
        always_EBF = None if self.always is None else left_BL @ self.always.left_ELF
        gated = self._gated(left_BL)
        size = self.tile_rows(score_BN)
        for start in range(first, last, size):
            tile = self._tile(right, start, min(start + size, last))
            if gated is not None:
                gated.begin(tile, inner_BW)
            for b, inner_W in enumerate(inner_BW):
                mixed_NP = tile.inner_NV.new_zeros(len(tile.inner_NV), len(self.bias_P))
                if self.always is not None and always_EBF is not None and tile.always_ENF is not None:
                    up_VF = self.always.of_one(always_EBF, b, inner_W, 0)
                    hidden_NF = torch.addmm(tile.always_ENF[0], tile.inner_NV, up_VF)
                    mixed_NP.addmm_(self.always.activated(hidden_NF), self.always.down_EFP[0])
                if gated is not None:
                    gated.add(mixed_NP, tile, b, inner_W)
                place = slice(start - first, start - first + len(mixed_NP))
                score_BN[b, place] = gelu_(mixed_NP.add_(self.bias_P)) @ self.down_P + self.offset
        if self.layer is not None and gated is not None:
            mixed_elsewhere(self.layer, gated.routing(score_BN.shape[1]))
        return score_BN

    def tile_rows(self, where: Tensor) -> int:
        """Return how many right rows are scored together for a left row on the device of a tensor."""
        if transfer.host_knows(where):
            return TILE
        columns = len(self.bias_P) + sum(stack.columns for stack in (self.always, self.routed) if stack is not None)
        if self.routed is not None and self.layer is not None:
            assert isinstance(self.layer.router, SoftmaxRouter | SigmoidRouter)
            _, hidden, out = self.routed.down_EFP.shape
            columns += self.layer.router.k * (hidden + out + 4 * DECIDED)
        return max(TILE, PASS_BYTES // (columns * where.element_size()))

    def _gated(self, left_BL: Tensor) -> _ByLeft | _ByPair | None:
        if self.layer is None or self.routed is None:
            return None
        left_EBF = left_BL @ self.routed.left_ELF
        if not self.gate:
            return _ByLeft(self.routed, left_EBF, self.layer.router(left_BL[:, : self.layer.gate_width]))
        assert isinstance(self.layer.router, SoftmaxRouter | SigmoidRouter)
        return _ByPair(self.routed, left_EBF, self.layer.router, left_BL @ self.gate[0], self.gate[2])


class LinearPairScores:
    """A linear layer, then a linear head, on all pairs of rows of two sides; what `PairScores` is without experts."""

    def __init__(self, network: nn.Linear, widths: Widths, head: nn.Linear) -> None:
        self.dtype = torch.promote_types(head.weight.dtype, torch.float32)
        weight_O = head.weight.detach()[0].to(self.dtype)
        self.weights = (weight_O @ network.weight.detach().to(self.dtype)).split(widths)
        self.offset = weight_O @ network.bias.detach().to(self.dtype) + head.bias.detach().to(self.dtype)

    @torch.no_grad()
    def right(self, right_IR: Tensor, inner_IW: Tensor) -> Right:
        """Return a side with rows (I, R) and inner columns (I, W), ready to be scored."""
        return Right(right_IR=right_IR.to(self.dtype), inner_IV=inner_IW.to(self.dtype))

    @torch.no_grad()
    def scores(self, left_BL: Tensor, inner_BW: Tensor, right: Right, some: slice = slice(None)) -> Tensor:
        """Return the score of every left row with neighbouring rows of the right side, (B, N)."""
        left_L, right_R, inner_W = self.weights
        score_BN = (inner_BW.to(self.dtype) * inner_W) @ right.inner_IV[some].T
        return score_BN + (left_BL.to(self.dtype) @ left_L + self.offset)[:, None] + right.right_IR[some] @ right_R


class _ByLeft:
    """Routed experts for some left rows whose pairs all pass the same experts."""

    def __init__(self, stack: Stack, left_EBF: Tensor, routing: Routing) -> None:
        self.stack, self.left_EBF, self.by_left = stack, left_EBF, routing
        self.expert_BK, self.weight_BK = (
            part.tolist() for part in transfer.to_host([routing.expert_NK, routing.weight_NK])
        )

    def begin(self, tile: Tile, inner_BW: Tensor) -> None:
        """Go on to a tile."""

    def add(self, mixed_NP: Tensor, tile: Tile, b: int, inner_W: Tensor) -> None:
        """Add what the experts of one left row make of its pairs."""
        assert tile.routed_ENF is not None
        for expert, weight in zip(self.expert_BK[b], self.weight_BK[b], strict=True):
            up_VF = self.stack.of_one(self.left_EBF, b, inner_W, expert)
            hidden_NF = torch.addmm(tile.routed_ENF[expert], tile.inner_NV, up_VF)
            mixed_NP.addmm_(self.stack.activated(hidden_NF), self.stack.down_EFP[expert], alpha=weight)

    def routing(self, _: int) -> Routing:
        """Return the routing of each left row."""
        return self.by_left


class _ByPair:
    """Routed experts for some left rows whose pairs each pass their own experts."""

    def __init__(
        self,
        stack: Stack,
        left_EBF: Tensor,
        router: SoftmaxRouter | SigmoidRouter,
        gate_BE: Tensor,
        gate_WE: Tensor,
    ) -> None:
        self.stack, self.left_EBF, self.router = stack, left_EBF, router
        self.gate_BE, self.gate_WE = gate_BE, gate_WE
        self.share_BE, self.probability_BE = torch.zeros_like(gate_BE), torch.zeros_like(gate_BE)
        self.tile: Tile | None = None
        self.inner_BW = gate_BE[:, :0]
        self.decided: dict[int, tuple[Tensor, Tensor, list[int]]] = {}
        """Of left rows to come: weights of their pairs, order of choices by expert, choices of each expert."""

    def begin(self, tile: Tile, inner_BW: Tensor) -> None:
        """Go on to a tile."""
        self.tile, self.inner_BW, self.decided = tile, inner_BW, {}

    def add(self, mixed_NP: Tensor, tile: Tile, b: int, inner_W: Tensor) -> None:
        """Add what every pair's experts make of it."""
        if b not in self.decided:
            together = 1 if transfer.host_knows(mixed_NP) else DECIDED
            rows = range(b, min(b + together, len(self.inner_BW)))
            found = [self._decide(row) for row in rows]
            (count_RE,) = transfer.to_host([torch.stack([count_E for _, _, count_E in found])])
            counts = count_RE.tolist()
            self.decided = {row: (*found[at][:2], counts[at]) for at, row in enumerate(rows)}
        weight_NK, slot_A, count = self.decided.pop(b)
        up_EVF = self.stack.of_one(self.left_EBF, b, inner_W)
        given_AP = self._experts(tile, up_EVF, slot_A, count)
        place_A = torch.empty_like(slot_A)
        place_A.scatter_(0, slot_A, torch.arange(len(slot_A), device=slot_A.device))
        for place_N, weight_N in zip(place_A.view(weight_NK.shape).T, weight_NK.T, strict=True):
            mixed_NP.addcmul_(given_AP.index_select(0, place_N), weight_N[:, None])

    def _decide(self, b: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights of a left row's pairs, the order of their choices by expert, and choices of each expert."""
        assert self.tile is not None
        assert self.tile.gate_NE is not None
        gate_VE = torch.cat([self.gate_WE * self.inner_BW[b, :, None], self.gate_BE[b, None]])
        routing = self.router.decide(torch.addmm(self.tile.gate_NE, self.tile.inner_NV, gate_VE).float())
        self.probability_BE[b] += routing.probability_NE.sum(0)
        weight_NK, expert_A = routing.weight_NK.to(self.gate_BE.dtype), routing.expert_NK.flatten()
        experts = self.gate_BE.shape[1]
        if transfer.host_knows(expert_A):
            share_E = torch.bincount(expert_A, weight_NK.flatten(), experts)
            count_E = torch.bincount(expert_A, minlength=experts)
        else:  # histograms would look for the largest number first
            share_E = routing.dense().sum(0)
            count_E = expert_A.new_zeros(experts).scatter_add_(0, expert_A, torch.ones_like(expert_A))
        self.share_BE[b] += share_E
        return weight_NK, stable_order(expert_A, experts), count_E

    def _experts(self, tile: Tile, up_EVF: Tensor, slot_A: Tensor, counts: list[int]) -> Tensor:
        """Return what experts make of their pairs, which come sorted by expert, (A, P)."""
        assert tile.routed_ENF is not None
        choices = len(slot_A) // max(1, len(tile.inner_NV))
        row_A = slot_A.div(choices, rounding_mode="floor")
        given_AP = tile.inner_NV.new_empty(len(slot_A), self.stack.down_EFP.shape[2])
        first = 0
        for expert, count in enumerate(counts):
            row_N = row_A[first : first + count]
            hidden_NF = tile.routed_ENF[expert].index_select(0, row_N)
            hidden_NF.addmm_(tile.inner_NV.index_select(0, row_N), up_EVF[expert])
            torch.mm(self.stack.activated(hidden_NF), self.stack.down_EFP[expert], out=given_AP[first : first + count])
            first += count
        return given_AP

    def routing(self, pairs: int) -> Routing:
        """Return the mean over its pairs of each left row's routing, all experts with their mean shares."""
        mean = keep_all(self.share_BE / max(1, pairs))
        return Routing(mean.expert_NK, mean.weight_NK, self.probability_BE / max(1, pairs))
