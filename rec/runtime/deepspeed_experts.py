"""DeepSpeed's side of a mixture layer: its groups, its marks on parameters, its files, and its stock layer.

With `rec.runtime.deepspeed` all that knows DeepSpeed. Private here (checked with 0.19): the engine's search for
instances of `MoE`, the tables of `groups` and their lookups, `MOELayer` with a gate of our own, the names of experts in
checkpoints. `tests/distributed/runtime/test_expert_parallel.py` fails loudly where an upgrade changes one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from rec.cluster.placing import expert_groups
from rec.errors import ConfigError
from rec.moe.dispatch import Order
from rec.moe.experts import Experts, FeedForwardExperts, UnlikeExperts
from rec.moe.layer import Carry, MixtureOfExperts, layers_of, layers_to_spread
from rec.nn.making import fill
from rec.runtime.exchange import ExpertParallel, WorldRanks
from rec.runtime.placement import ParameterPlace, Placement
from rec.runtime.tables import share_tables
from rec.train.config import ParallelConfig

STOCK_PREFIX = "deepspeed_moe.experts.deepspeed_experts."


def place(module: nn.Module, parallel: ParallelConfig, device: torch.device, nodes: Sequence[str] = ()) -> Placement:
    """Leave this rank its experts and connect the mixture layers; a module that is wrapped again stays as it is.

    `nodes` tells the node of each rank; empty is one node.

    Raises:
        ConfigError: experts do not divide, or cannot be run by the backend.
    """
    known = getattr(module, "placement", None)
    if isinstance(known, Placement):
        return known
    size = parallel.expert_parallel
    share_tables(module, device)
    placement = Placement(module, size)
    module.placement = placement  # type: ignore[assignment]
    if torch.distributed.get_world_size() > 1:
        world = WorldRanks()
        for _, layer in layers_of(module):
            if not layer.replicated:
                layer.ranks = world
    rank, sharing = (
        torch.distributed.get_rank(),
        expert_groups(nodes or [""] * torch.distributed.get_world_size(), size),
    )
    placement.copy, own = next((copy, ranks) for copy, ranks in enumerate(sharing) if rank in ranks)
    for name, layer in layers_to_spread(module, size, parallel.moe_backend):
        prefix = f"{name}.experts" if name else "experts"
        for inner, _ in layer.experts.named_parameters():
            placement.whole[f"{prefix}.{inner}"].spread = True
        marker = _marker(layer, size)
        layer.add_module("deepspeed", marker)
        # All ranks make the process groups here, in the same order; the engine finds them made.
        _make_groups(marker.expert_group_name, sharing)
        placement.expert_group = marker.expert_group_name
        first = own.index(rank) * (layer.num_experts // size)
        if parallel.moe_backend == "deepspeed":
            _use_stock(layer, prefix, first, marker, placement)
        else:
            _use_exchange(layer, prefix, first, marker, placement)
    return placement


def _use_exchange(layer: MixtureOfExperts, prefix: str, first: int, marker: Any, placement: Placement) -> None:
    """Keep this rank's experts and dispatch by our own exchange."""
    wholes = {name: p.numel() // layer.num_experts for name, p in layer.experts.named_parameters()}
    numbered = isinstance(layer.experts, UnlikeExperts)
    layer.experts.keep(first, marker.num_local_experts)
    for name, parameter in layer.experts.named_parameters():
        placement.place[parameter] = ParameterPlace(f"{prefix}.{name}", 0 if numbered else first * wholes[name])
        _mark(parameter, marker.expert_group_name)
    layer.carry = ExpertParallel(groups()._get_expert_parallel_group(marker.expert_group_name))
    _file_by_expert(layer.experts, marker)


def _file_by_expert(experts: Experts, marker: Any) -> None:
    """Let state dicts name every expert where DeepSpeed's own checkpoints look for them: in the marker, one by one."""

    def parts() -> dict[str, Tensor]:
        own: dict[str, Tensor] = {}
        for name, parameter in experts.named_parameters():
            if isinstance(experts, UnlikeExperts):
                _, number, inner = name.split(".", 2)
                own[f"{STOCK_PREFIX}{list(experts.members).index(number)}.{inner}"] = parameter.data
            else:
                own |= {f"{STOCK_PREFIX}{e}.{name}": part for e, part in enumerate(parameter.data)}
        return own

    def tell(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        state |= {prefix + name: part for name, part in parts().items()}

    def take(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for name, part in parts().items():
            if prefix + name in state:
                part.copy_(state.pop(prefix + name))

    def hide(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        for name, _parameter in experts.named_parameters():
            state.pop(prefix + name, None)

    def stay(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        state |= {prefix + name: parameter.data for name, parameter in experts.named_parameters()}

    marker.register_state_dict_post_hook(tell)
    marker.register_load_state_dict_pre_hook(take)
    experts.register_state_dict_post_hook(hide)
    experts.register_load_state_dict_pre_hook(stay)


def _use_stock(layer: MixtureOfExperts, prefix: str, first: int, marker: Any, placement: Placement) -> None:
    """Replace a layer's experts and dispatch by DeepSpeed's own."""
    whole: Any = layer.experts
    fill(whole)
    if not hasattr(whole, "member"):
        raise ConfigError(f"parallel.moe_backend: DeepSpeed's layer cannot run {type(whole).__name__}; use grouped")
    wholes = dict(whole.named_parameters())
    stock, layer.carry = stock_layer(whole, first, marker.num_local_experts, marker.ep_size)
    for number, member in enumerate(stock.deepspeed_experts):
        for own, (name, _) in zip(member.parameters(), whole.named_parameters(), strict=True):
            own.requires_grad_(wholes[name].requires_grad)
            placement.place[own] = ParameterPlace(f"{prefix}.{name}", (first + number) * own.numel())
            _mark(own, marker.expert_group_name)
    layer.experts = stock  # another kind of module: only its own dispatch calls it


def whole_stock_layer(experts: FeedForwardExperts) -> tuple[Any, Carry]:
    """Return DeepSpeed's module of all these experts in this process, and its dispatch as one of ours."""
    return stock_layer(experts, 0, experts.num_experts, 1)


def stock_layer(experts: FeedForwardExperts, first: int, count: int, size: int) -> tuple[Any, Carry]:
    """Return DeepSpeed's module of `count` of these experts, and its dispatch over `size` ranks as one of ours."""
    import_deepspeed()
    from deepspeed.moe.experts import Experts as StockExperts
    from deepspeed.moe.sharded_moe import MOELayer

    width, out = experts.up_EDF.shape[1], experts.down_EFD.shape[2]
    if width != out:
        raise ConfigError(f"parallel.moe_backend: DeepSpeed's layer gives rows of its own width; got {width} to {out}")
    name = f"ep_size_{size}"
    stock = StockExperts(experts.member(0), count, name)
    for number, member in enumerate(stock.deepspeed_experts):
        for own, source in zip(member.parameters(), experts.parameters(), strict=True):
            own.data = source.data[first + number].clone()
    layer = MOELayer(_GivenGate(experts.num_experts), stock, name, size, count)
    if size > 1:
        layer._set_ep_group(groups()._get_expert_parallel_group(name))

    # Its experts are not a part of it here, but of the layer whose dispatch this is.
    def carry(x_ND: Tensor, weight_NK: Tensor, order: Order, _: Any) -> Tensor:
        y_ND: Tensor = layer(x_ND, (weight_NK, order))
        return y_ND

    return stock, carry


class _GivenGate(nn.Module):
    """Answers DeepSpeed's layer from an order that was decided elsewhere; drops nothing more."""

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.num_experts, self.ep_group = num_experts, None

    def _set_ep_group(self, group: Any) -> None:
        self.ep_group = group

    def forward(self, x_ND: Tensor, given: tuple[Tensor, Order], sparse_routes: bool, use_tutel: bool) -> Any:
        """Return loss, capacity, experts, and per choice the expert (-1 for none), place and weight, with counts."""
        weight_NK, order = given
        capacity = order.count_E.max().clamp(min=1)
        if self.ep_group is not None:
            torch.distributed.all_reduce(capacity, torch.distributed.ReduceOp.MAX, group=self.ep_group)
        first_E = order.count_E.cumsum(0) - order.count_E
        expert_A = torch.where(order.expert_A < self.num_experts, order.expert_A, -1)
        place_A = torch.arange(len(expert_A), device=x_ND.device) - first_E[expert_A]
        expert_S = torch.full((weight_NK.numel(),), -1, dtype=torch.int32, device=x_ND.device)
        place_S = torch.zeros_like(expert_S)
        expert_S[order.slot_A], place_S[order.slot_A] = expert_A.int(), place_A.int()
        expert_KN, place_KN = expert_S.view(weight_NK.shape).t(), place_S.view(weight_NK.shape).t()
        return x_ND.new_zeros(()), capacity, self.num_experts, expert_KN, place_KN, weight_NK.t(), order.count_E


def _marker(layer: MixtureOfExperts, size: int) -> Any:
    """Return a module without parameters by which DeepSpeed's engine knows that there are experts.

    The engine looks for instances of its own layer, asks them for their number of experts and makes their groups.
    """
    from deepspeed.moe.layer import MoE

    class Marker(MoE):  # type: ignore[misc]
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.num_experts, self.num_local_experts = layer.num_experts, layer.num_experts // size
            self.ep_size, self.expert_group_name = size, f"ep_size_{size}"
            self.enable_expert_tensor_parallelism = False

        def set_deepspeed_parallelism(self, use_data_before_expert_parallel_: bool = False) -> None:
            """The groups are there; DeepSpeed's own are of consecutive ranks, on whatever nodes they are."""

    return Marker()


def _make_groups(name: str, sharing: Sequence[Sequence[int]]) -> None:
    """Make the process groups of ranks that share a copy of the experts, and of those that hold the same ones."""
    table, rank = groups(), torch.distributed.get_rank()
    if name in table._get_expert_parallel_group_dict():
        return
    copies = list(zip(*sharing, strict=True))
    for made, ranks_of, kinds in (
        (table._EXPERT_DATA_PARALLEL_GROUP, table._EXPERT_DATA_PARALLEL_GROUP_RANKS, copies),
        (table._EXPERT_PARALLEL_GROUP, table._EXPERT_PARALLEL_GROUP_RANKS, sharing),
    ):
        for ranks in kinds:
            group = table.dist.new_group(list(ranks))
            if rank in ranks:
                made[name], ranks_of[name] = group, list(ranks)


def _mark(parameter: nn.Parameter, group: str) -> None:
    """Tell DeepSpeed that a parameter's copies are on the ranks of its expert-data group only."""
    parameter.allreduce, parameter.group_name = False, group  # type: ignore[attr-defined]


@contextmanager
def parameter_groups(
    module: nn.Module, placement: Placement
) -> Iterator[tuple[list[dict[str, Any]], list[nn.Parameter]]]:
    """Give what is trained in groups for an optimiser: experts in one of their own, as ZeRO and norms want them.

    DeepSpeed takes neither an empty group nor a model with experts and no group of them, and its ranks must have the
    same groups. Where a phase leaves one empty, a parameter that nothing uses stands in; it comes in a list of its own
    too, and is a part of the module only inside, while DeepSpeed looks up names.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    device = next(module.parameters()).device
    plain = [p for p in trained if getattr(p, "allreduce", True)]
    experts = [p for p in trained if not getattr(p, "allreduce", True)]
    idle: dict[str, nn.Parameter] = {}
    if not plain:
        plain = [idle.setdefault("idle", nn.Parameter(torch.zeros(1, device=device)))]
    if placement.expert_group and not experts:
        experts = [idle.setdefault("idle_expert", nn.Parameter(torch.zeros(1, device=device)))]
        _mark(experts[0], placement.expert_group)
    found: list[dict[str, Any]] = [{"params": plain}]
    if experts:
        found.append({"params": experts, "moe": True, "name": placement.expert_group})
    for name, parameter in idle.items():
        module.register_parameter(name, parameter)
    try:
        yield found, list(idle.values())
    finally:
        for name in idle:
            delattr(module, name)


def groups() -> Any:
    """Return DeepSpeed's table of process groups."""
    from deepspeed.utils import groups as table

    return table


def import_deepspeed() -> Any:
    """Import DeepSpeed without what slows a start."""
    import deepspeed

    # Otherwise DeepSpeed compiles a shared-memory kernel on first use, which takes half a minute per machine.
    # (`deepspeed.comm.torch` as an attribute is torch itself.)
    backend: Any = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None
    # Its Muon optimiser, which nothing here uses, would load torch's whole compiler just by being imported: 0.9 s.
    compiler = torch.compile
    try:
        torch.compile = lambda model=None, **_: model or (lambda function: function)  # type: ignore[assignment]
        importlib.import_module("deepspeed.runtime.zero.muon.original_muon")
    finally:
        torch.compile = compiler
    return deepspeed
