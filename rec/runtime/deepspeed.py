"""The one file that knows DeepSpeed: an engine for the loop, and its state as plain tensors by parameter name.

Everything private of DeepSpeed that we touch (checked with 0.19): `_hp_mapping` of a parameter and the optimisers'
`single_partition_of_fp32_groups`, `fp32_groups`, `fp16_groups`. `tests/runtime/test_deepspeed.py` compares losses,
gradient norms and saved states with the plain engine, and fails loudly where an upgrade changes any of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from rec.batch import Batch
from rec.config import ParallelConfig, TrainConfig
from rec.train.engine import State, load_model, slots_of
from rec.train.optim import adamw

SLOTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Fragment:
    """What this rank's optimiser holds of a parameter: master[start:start + size] is parameter[at:at + size]."""

    master: Tensor
    """What the optimiser updates: a flat partition of many parameters, a float32 copy, or the parameter itself."""
    start: int
    at: int
    size: int


class DeepSpeedEngine:
    """Data-parallel training under DeepSpeed: ZeRO 0, 1 or 2, float32 or bfloat16."""

    def __init__(self, module: nn.Module, train: TrainConfig, parallel: ParallelConfig, device: str = "cpu") -> None:
        import deepspeed

        # Otherwise DeepSpeed compiles a shared-memory kernel on first use, which takes half a minute per machine.
        # (`deepspeed.comm.torch` as an attribute is torch itself.)
        backend: Any = importlib.import_module("deepspeed.comm.torch")
        backend.build_shm_op = lambda: None
        if not deepspeed.comm.is_initialized():
            deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), verbose=False)
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.device = torch.device(device)
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "train_batch_size": self.world_size,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": train.clip_norm,
            "zero_optimization": {"stage": parallel.zero_stage},
            "bf16": {"enabled": parallel.precision == "bf16"},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 1 << 60,
        }
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=module.to(self.device), optimizer=adamw(module, train), config=config, dist_init_required=False
        )
        self.module: nn.Module = self.engine.module
        self.stage = parallel.zero_stage
        inner = self._inner()
        if inner is not self.optimizer and self.stage == 0:
            # The bfloat16 optimiser without ZeRO takes a step on zero gradients when it is made; Adam would count it.
            inner.state.clear()

    def __call__(self, batch: Batch) -> Any:
        """Return the model's output."""
        return self.engine(batch)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, averaged over ranks."""
        self.engine.backward(loss)

    def step(self, rate: float) -> float:
        """Clip, update, clear the gradients; return the global gradient norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm: Any = None
        if self.stage == 0:
            # DeepSpeed tells no norm without ZeRO; gradients are whole and averaged here.
            norm = torch.nn.utils.get_total_norm([p.grad.float() for p in self._trained() if p.grad is not None])
        self.engine.step()
        if norm is None:
            norm = self.engine.get_global_grad_norm()
        return float(norm)

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""
        if self.world_size == 1:
            return value
        moved = value.to(self.device, copy=True)
        torch.distributed.all_reduce(moved)
        return moved.to(value.device)

    def state(self) -> State:
        """Return model and optimiser as plain float32 tensors on the CPU."""
        state = {f"model.{name}": v.detach().cpu().clone() for name, v in self.module.state_dict().items()}
        inner = self._inner()
        for name, parameter, fragment in self._fragments():
            state[f"model.{name}"] = self._whole(parameter, fragment, fragment.master if fragment else None)
            step = self._step_count()
            if step is None:
                continue
            state[f"optimizer.{name}.step"] = step
            for slot in SLOTS:
                source = inner.state[fragment.master][slot] if fragment else None
                state[f"optimizer.{name}.{slot}"] = self._whole(parameter, fragment, source)
        return state

    def load_state(self, state: State) -> None:
        """Take over model and optimiser, whatever number of ranks wrote them."""
        load_model(self.module, state)
        inner = self._inner()
        for name, parameter, fragment in self._fragments():
            if fragment is None:
                continue
            values = {"": state[f"model.{name}"], **slots_of(state, name)}
            if fragment.master is not parameter:
                self._put(fragment.master.data, fragment, values[""])
            if "step" not in values:
                continue
            slots = inner.state[fragment.master]
            slots["step"] = values["step"].clone()
            for slot in SLOTS:
                if slot not in slots:
                    slots[slot] = torch.zeros_like(fragment.master.data)
                self._put(slots[slot], fragment, values[slot])

    def _put(self, target: Tensor, fragment: Fragment, value: Tensor) -> None:
        part = value.flatten()[fragment.at : fragment.at + fragment.size]
        target.view(-1)[fragment.start : fragment.start + fragment.size] = part.to(target.device, target.dtype)

    def _whole(self, parameter: nn.Parameter, fragment: Fragment | None, source: Tensor | None) -> Tensor:
        """Return a whole tensor put together from every rank's fragment of it."""
        whole = torch.zeros(parameter.numel(), device=self.device)
        if fragment is not None and source is not None:
            part = source.detach().view(-1)[fragment.start : fragment.start + fragment.size]
            whole[fragment.at : fragment.at + fragment.size] = part
        if self.stage and self.world_size > 1:
            torch.distributed.all_reduce(whole)
        return whole.view(parameter.shape).cpu()

    def _step_count(self) -> Tensor | None:
        """Return how many updates Adam has made, None before the first."""
        for slots in self._inner().state.values():
            if "step" in slots:
                return torch.as_tensor(slots["step"], dtype=torch.float32).detach().cpu().clone()
        return None

    def _inner(self) -> Any:
        """Return the torch optimiser inside DeepSpeed's."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.module.parameters() if p.requires_grad]

    def _fragments(self) -> Iterator[tuple[str, nn.Parameter, Fragment | None]]:
        """Yield every trained parameter with the part of it that this rank holds, in the same order on every rank."""
        masters: dict[nn.Parameter, Tensor] = {}
        if hasattr(self.optimizer, "fp32_groups"):
            pairs = zip(self.optimizer.fp16_groups, self.optimizer.fp32_groups, strict=True)
            masters = {low: high for lows, highs in pairs for low, high in zip(lows, highs, strict=True)}
        for name, parameter in self.module.named_parameters():
            if not parameter.requires_grad:
                continue
            if self.stage == 0:
                yield name, parameter, Fragment(masters.get(parameter, parameter), 0, 0, parameter.numel())
                continue
            mapping = parameter._hp_mapping  # type: ignore[attr-defined]
            if mapping is None:
                yield name, parameter, None
                continue
            flat = self.optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
            yield name, parameter, Fragment(flat, here.start, there.start, here.numel)


def close() -> None:
    """Forget DeepSpeed's process groups; Ray's own clean-up leaves them behind in a process that is used again."""
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()
