"""DeepSpeed as an engine for the loop, and its state as plain tensors by parameter name.

Everything private of DeepSpeed that we touch (checked with 0.19): `_hp_mapping` of a parameter, the optimisers'
`single_partition_of_fp32_groups`, `fp32_groups`, `fp16_groups`, `allreduce_and_copy_with_multiple_ranks`, and the
handles of the engine's hooks.
`tests/distributed/runtime/test_deepspeed.py` compares losses, gradient norms and saved states with the plain engine,
and fails loudly where an upgrade changes any of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from rec.batch import Batch
from rec.nn.base import is_referred_to
from rec.nn.making import fill
from rec.nn.memory import BUCKET
from rec.nn.sharded import update_tables
from rec.runtime.deepspeed_experts import import_deepspeed, parameter_groups, place
from rec.runtime.placement import Fragment, ParameterPlace, WholeParameter
from rec.runtime.ranks import TorchRanks
from rec.runtime.reducing import sum_for_owners
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import slots_of
from rec.train.optim import make_optimiser
from rec.train.shards import TensorPiece, Tensors
from rec.train.tables import load_sums, pieces_of_tables

SLOTS = ("exp_avg", "exp_avg_sq")
MODULE_HOOKS = ("module_forward_pre_hook", "module_forward_post_hook")
"""Attributes of DeepSpeed's engine: handles of hooks that it leaves on the module."""


@contextmanager
def with_an_axis(module: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Give parameters that are single numbers, which are told, an axis while DeepSpeed starts: it shares no others."""
    numbers = [parameter for parameter in module.parameters() if parameter.dim() == 0]
    for parameter in numbers:
        parameter.data = parameter.data.view(1)
    yield numbers
    for parameter in numbers:
        parameter.data = parameter.data.view(())


def in_float32(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers that are float32, with their names."""
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.dtype == torch.float32:
            yield name, value


class DeepSpeedEngine:
    """Training under DeepSpeed: data-parallel, expert-parallel, ZeRO 0, 1 or 2, float32 or bfloat16.

    What a rank saves are parts of whole parameters, so that any number of ranks can go on from what another wrote.
    """

    def __init__(
        self,
        module: nn.Module,
        train: TrainConfig,
        parallel: ParallelConfig,
        device: str = "cpu",
        nodes: Sequence[str] = (),
    ) -> None:
        """Wrap a module; `nodes` tells the node of each rank, on which experts are shared first."""
        deepspeed = import_deepspeed()
        if not deepspeed.comm.is_initialized():
            deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), verbose=False)
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.device, self.stage = torch.device(device), parallel.zero_stage
        self.ranks = TorchRanks(self.device)
        self.model = place(module, parallel, self.device, nodes)
        fill(module, self.device)  # of experts, those that live here
        module = module.to(self.device)
        self.model.note_trained(module, self.sum_over_ranks)
        self.marks = {name: set(vars(parameter)) for name, parameter in module.named_parameters()}
        # DeepSpeed rounds the whole module before it makes its float32 copies; what came in float32 leaves in float32.
        self.float32 = {n: t.data for n, t in in_float32(module)} if parallel.precision == "bf16" else {}
        self.resting = {n for n, p in module.named_parameters() if n in self.float32 and getattr(p, "rests", False)}
        # What a rank updates is as large as what the plain engine clips; without ZeRO, DeepSpeed's norm leaves out
        # experts of other ranks, so there gradients are clipped here.
        self.clip_norm = (train.clip_norm or math.inf) if self.stage == 0 else math.inf
        self.tables_norm = train.clip_norm or math.inf
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "train_batch_size": self.world_size,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": train.clip_norm if self.stage else 0.0,
            "zero_optimization": self._zero(parallel),
            "bf16": {"enabled": parallel.precision == "bf16"},
            # Else it insists on an Adam of its own, compiled when it starts; torch's fused one does the same.
            "zero_force_ds_cpu_optimizer": False,
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 1 << 60,
        }
        with parameter_groups(module, self.model) as (groups, self.idle), with_an_axis(module) as self.numbers:
            self.engine, self.optimizer, _, _ = deepspeed.initialize(
                model=module, optimizer=make_optimiser(groups, train), config=config, dist_init_required=False
            )
        sum_for_owners(self.optimizer)
        self.module: nn.Module = self.engine.module
        inner = self._inner()
        if inner is not self.optimizer and self.stage == 0:
            # The bfloat16 optimiser without ZeRO takes a step on zero gradients when it is made; Adam would count it.
            inner.state.clear()
            for lows, highs in zip(self.optimizer.fp16_groups, self.optimizer.fp32_groups, strict=True):
                for low, high in zip(lows, highs, strict=True):
                    high.data = high.data.view(low.shape)
        self._start_from_float32()

    @torch.no_grad()
    def _start_from_float32(self) -> None:
        """Give the copies that are updated the weights as they came, and keep no others but what only rests here."""
        masters = self._masters()
        for name, parameter in self.module.named_parameters():
            if name not in self.float32 or not parameter.requires_grad:
                continue
            if self.stage:
                parameter.set_full_hp_param(self.float32[name])  # type: ignore[attr-defined]
            else:
                masters[parameter].copy_(self.float32[name].view_as(masters[parameter]))
        kept = self.float32
        self.float32 = {name: kept[name] if name in self.resting else torch.empty(0) for name in kept}

    @torch.no_grad()
    def _back_to_float32(self) -> None:
        """Give the module weights as they are updated, whole; what rested is as it came, if it is still that."""
        masters, trained = self._masters(), {}
        for name, parameter in self.module.named_parameters():
            if name in self.float32 and parameter.requires_grad:
                whole = parameter.get_full_hp_param() if self.stage else masters[parameter]  # type: ignore[attr-defined]
                trained[name] = whole.view_as(parameter).clone()
        for name, value in [*self.module.named_parameters(), *self.module.named_buffers()]:
            if name not in self.float32:
                continue
            before = self.float32[name]
            same = name in self.resting and torch.equal(before.to(value.dtype).view_as(value), value)
            value.data = trained[name] if name in trained else before.view_as(value) if same else value.data.float()

    def _masters(self) -> dict[nn.Parameter, Tensor]:
        """Return the float32 copy of each trained parameter, where each rank has all of them."""
        if not hasattr(self.optimizer, "fp32_groups"):
            return {}
        pairs = zip(self.optimizer.fp16_groups, self.optimizer.fp32_groups, strict=True)
        return {low: high for lows, highs in pairs for low, high in zip(lows, highs, strict=True)}

    def _zero(self, parallel: ParallelConfig) -> dict[str, Any]:
        """Return what DeepSpeed is told of what ranks share and where the optimiser lies."""
        shared: dict[str, Any] = {"stage": parallel.zero_stage, "reduce_bucket_size": min(BUCKET, self._trained())}
        if parallel.offload:
            shared["offload_optimizer"] = {"device": "cpu", "pin_memory": self.device.type == "cuda"}
        return shared

    def _trained(self) -> int:
        """Return how many numbers all ranks train: a bucket for more would only take memory.

        Ranks must have buckets of one size, though they may train different parts.
        """
        return max(1, sum(whole.shape.numel() for whole in self.model.whole.values() if whole.trained))

    def __call__(self, batch: Batch) -> Any:
        """Return the model's output."""
        return self.engine(batch)

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        """Add the gradient of `loss`, averaged over ranks; an update follows the last one alone."""
        for parameter in self.idle:
            # ZeRO does not get along with a step in which no parameter of a group has a gradient.
            loss = loss + 0.0 * parameter.sum()
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss)

    def step(self, rate: float) -> Tensor:
        """Clip, update, clear the gradients; return the global gradient norm before clipping, ()."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.stage:
            self.engine.step()
            for parameter in self.numbers:
                parameter.data = parameter.data.view(())
            norm = torch.as_tensor(self.engine.get_global_grad_norm())
        else:
            norm = self._clip()
            self.engine.step()
        tables = update_tables(
            self.module,
            rate=rate,
            world_size=self.world_size,
            clip_norm=self.tables_norm,
            total=self.sum_over_ranks,
        )
        return torch.hypot(norm, norm.new_tensor(tables)) if tables else norm

    def _clip(self) -> Tensor:
        """Scale whole, averaged gradients to the largest norm; return the norm before, over experts of all ranks."""
        grads: tuple[list[Tensor], list[Tensor]] = ([], [])
        for parameter in self.module.parameters():
            if parameter.grad is not None:
                grads[parameter in self.model.place].append(parameter.grad)
        squares = torch.stack([self._square(part) for part in grads])
        if self.model.place:
            # Every expert is counted once for each of its copies.
            torch.distributed.all_reduce(squares[1:])
            squares[1] /= self.world_size // self.model.expert_parallel
        norm = squares.sum().sqrt()
        every = grads[0] + grads[1]
        if math.isfinite(self.clip_norm) and every:  # a rank may have nothing to train in a phase
            scale = torch.where(norm > self.clip_norm, self.clip_norm / (norm + 1e-6), 1.0)
            torch._foreach_mul_(every, [scale.to(grad.dtype) for grad in every])
        return norm

    def _square(self, grads: list[Tensor]) -> Tensor:
        """Return the sum of squares, float64 ()."""
        if not grads:
            return torch.zeros((), dtype=torch.float64, device=self.device)
        return torch.stack(torch._foreach_norm(grads, 2, torch.float64)).square().sum()

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""
        return self.ranks.sum(value)

    def gather(self, value: Any) -> list[Any]:
        """Return the Python object of every rank, in the order of ranks, to all."""
        return self.ranks.gather(value)

    def pieces(self) -> list[TensorPiece]:
        """Return what this rank owns of model and optimiser: what it alone holds, its share of what others hold too.

        Weights that are trained are the optimiser's own, float32 under bfloat16.
        """
        held, inner, step, buffers = self._fragments(), self._inner(), self._step_count(), self.module.state_dict()
        mine = [name for number, name in enumerate(self.model.buffers) if number % self.world_size == self.rank]
        found = [TensorPiece.whole(f"model.{name}", buffers[name]) for name in mine]
        for number, (name, whole) in enumerate(self.model.whole.items()):
            updated = step is not None and whole.trained
            for fragment in self._owned(number, whole, held[name]):
                sources = {f"model.{name}": fragment.master}
                slots = inner.state[fragment.master] if updated else {}
                sources |= {f"optimizer.{name}.{slot}": slots[slot] for slot in SLOTS if updated}
                found += [TensorPiece(n, tuple(whole.shape), fragment.at, fragment.of(v)) for n, v in sources.items()]
            if updated and number % self.world_size == self.rank:
                assert step is not None
                found.append(TensorPiece.whole(f"optimizer.{name}.step", step))
        return found + pieces_of_tables(self.module)

    def _owned(self, number: int, whole: WholeParameter, held: list[Fragment]) -> list[Fragment]:
        """Return the parts of a parameter that this rank saves; copies on several ranks are shared out among them."""
        if self.stage and whole.trained:
            return held
        copy, size = (self.model.copy, self.model.expert_parallel) if whole.spread else (self.rank, 1)
        shares = [part.share(number, copy, self.world_size // size) for part in held]
        return [part for part in shares if part.size]

    def load_state(self, state: Tensors) -> None:
        """Take over model and optimiser, whatever number of ranks wrote them.

        Raises:
            CheckpointError: names or shapes differ.
        """
        self.model.load(self.module, state)
        load_sums(self.module, state)
        inner, saved = self._inner(), slots_of(state)
        for name, parts in self._fragments().items():
            for fragment in parts if self.model.whole[name].trained else []:
                if not fragment.is_parameter:
                    fragment.put(fragment.master.data, state, f"model.{name}")
                if "step" not in saved.get(name, []):
                    continue
                slots = inner.state[fragment.master]
                slots["step"] = state[f"optimizer.{name}.step"]
                for slot in SLOTS:
                    if slot not in slots:
                        slots[slot] = torch.zeros_like(fragment.master.data)
                    fragment.put(slots[slot], state, f"optimizer.{name}.{slot}")

    def _step_count(self) -> Tensor | None:
        """Return how many updates Adam has made, None before the first; a rank alone may have nothing to update."""
        own = [float(slots["step"]) for slots in self._inner().state.values() if "step" in slots]
        counts = [count for found in self.gather(own[:1]) for count in found]
        return torch.tensor(max(counts)) if counts else None

    def close(self) -> None:
        """Let go of DeepSpeed's engine, its optimiser, its hooks, and the memory they share with parameters."""
        self._back_to_float32()
        self.engine.destroy()
        # It destroys again when it is collected, and would wipe what the next engine has noted on the parameters.
        self.engine.optimizer = None
        for name in MODULE_HOOKS:
            if (hook := getattr(self.engine, name)) is not None:
                hook.remove()
        for name, parameter in self.module.named_parameters():
            parameter.grad = None
            # ZeRO keeps parameters as views of a flat tensor, and its optimiser as an attribute of theirs.
            parameter.data = parameter.data.clone()
            for attribute in vars(parameter).keys() - self.marks[name]:
                delattr(parameter, attribute)
        del self.engine, self.optimizer, self.idle

    def _inner(self) -> Any:
        """Return the torch optimiser inside DeepSpeed's."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _fragments(self) -> dict[str, list[Fragment]]:
        """Return, for every whole parameter, the parts of it that this rank holds."""
        masters = self._masters()
        held: dict[str, list[Fragment]] = {name: [] for name in self.model.whole}
        for name, parameter in self.module.named_parameters():
            place = self.model.place.get(parameter, ParameterPlace(name, 0))
            if is_referred_to(parameter):
                continue
            if self.stage == 0 or not parameter.requires_grad:
                master = masters.get(parameter, parameter)
                held[place.name].append(Fragment(master, 0, place.at, parameter.numel(), master is parameter))
                continue
            mapping = parameter._hp_mapping  # type: ignore[attr-defined]
            if mapping is None:
                continue
            flat = self.optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
            held[place.name].append(Fragment(flat, here.start, place.at + there.start, here.numel, False))
        return held


def close() -> None:
    """Forget DeepSpeed's process groups; Ray's own clean-up leaves them behind in a process that is used again."""
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()
