"""Ten minutes on a machine with a GPU: what every system computes there beside a CPU, how often it waits, what fits.

Without a GPU all of it runs on the CPU in small, which shows that it runs and nothing else.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rec.benchmarks.row import Row, timed
from rec.benchmarks.steps import weighted
from rec.benchmarks.timing import median_s, seconds, side_by_side
from rec.benchmarks.work import Say
from rec.moe.grouping import Grouping, grouped_product
from rec.nn.packed import edge_attention, layout, slab_attention, takes_edges
from rec.shipped import shipped_for
from rec.storage import Storage
from rec.strict import resolve
from rec.train.checkpoint import CheckpointStore
from rec.train.config import TrainConfig
from rec.train.engine import LocalEngine
from rec.train.memory import peaks, restart_peaks
from rec.train.ranks import OneRank
from rec.train.saver import Saver
from rec.train.shards import TensorPiece

TYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
CLOSE = {"float32": 2e-3, "bf16": 5e-2}
"""Relative difference of losses that rounding explains."""
COUNTS = ((5, 0, 7, 0), (0, 0, 0, 9), (3, 4, 2, 1), (0, 0, 0, 0))
"""Rows of four experts, of which some or all have none."""
MSMREC = "rec.systems.msmrec:MSMRec"
LONGEST, WIDTH, REPEATS = 200, 64, 10
"""Histories whose attention is measured: up to so many items, of one head so wide, so often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUSizes:
    """How much is done."""

    steps: int
    rows: int
    items: tuple[int, ...]
    parameters: int


LARGE = GPUSizes(steps=20, rows=256, items=(10**5, 10**6, 10**7), parameters=10**9)
SMALL = GPUSizes(steps=3, rows=32, items=(10**4, 10**5), parameters=10**6)


def measure(folder: str, say: Say, sizes: GPUSizes | None = None, systems: Sequence[str] = ()) -> list[Row]:
    """Return the rows of all parts, on the first GPU where there is one."""
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda:0" if has_gpu else "cpu")
    say(f"on {torch.cuda.get_device_name(device)}" if has_gpu else "no GPU here: the parts run on the CPU, in small")
    sizes = sizes or (LARGE if has_gpu else SMALL)
    parts: list[tuple[str, Callable[[], list[Row]]]] = []
    for name in systems or shipped_for("system"):
        for kind in TYPES:
            parts.append((f"{short(name)}, {kind}", lambda n=name, k=kind: steps_rows(n, k, device, sizes)))  # type: ignore[misc]
    for kind in TYPES:
        for count in COUNTS:
            told = f"grouped product, {kind}, rows {count}"
            parts.append((told, lambda t=told, k=kind, c=count: [product_row(t, k, c, device)]))  # type: ignore[misc]
    for kind in TYPES:
        parts.append((f"attention, {kind}", lambda k=kind: attention_rows(k, device, sizes.rows)))  # type: ignore[misc]
    for items in sizes.items:
        parts.append((f"{items:,} items", lambda i=items: [memory_row(i, device)]))  # type: ignore[misc]
    parts.append((f"{sizes.parameters:,} parameters", lambda: storage_rows(folder, sizes.parameters)))
    return [row for name, part in parts for row in guarded(name, part, say)]


def guarded(name: str, part: Callable[[], list[Row]], say: Say) -> list[Row]:
    """Return a part's rows, or one that says that it failed; the others are measured all the same."""
    say(f"gpu: {name}")
    try:
        return part()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        say(f"gpu: {name}: {type(error).__name__}: {lines[0]}")
        return [Row(f"{name}: {type(error).__name__}", 1.0, "errors", goal=0.0)]
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def short(name: str) -> str:
    """Return the class of an import path."""
    return name.rpartition(":")[2]


class GPURun:
    """Steps of a system's last phase on rows of its sample, without dropout."""

    def __init__(self, name: str, kind: str, device: torch.device, rows: int) -> None:
        cls = resolve(name)
        sample, tables = cls.sample(rows, np.random.default_rng(0))
        self.system = cls(cls.Config.model_validate({}), tables)
        torch.manual_seed(0)
        module = self.system.model()
        phase: Any = self.system.phases()[-1].name
        module.phase = phase
        self.engine = LocalEngine(module.to(TYPES[kind]), TrainConfig(), str(device))
        module.train()
        for part in module.modules():
            if "dropout" in type(part).__name__.lower():
                part.eval()
        self.system.start_epoch(module, 0)
        self.batch = self.system.collate(sample)

    def step(self, seed: int) -> float:
        """Make a step whose draws follow from a seed; return the loss before it."""
        torch.manual_seed(seed)
        loss = weighted(self.system.loss(self.engine, self.batch.to(self.engine.device)))
        self.engine.backward(loss)
        self.engine.step(1e-3)
        return float(loss.detach())

    def losses(self, steps: int, seed: int = 0) -> list[float]:
        """Return the losses of some steps."""
        return [self.step(seed + number) for number in range(steps)]


class Counted(TorchDispatchMode):
    """Counts operations, and values that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        found = func(*args, **(kwargs or {}))
        self.operations += 1
        self.reads += func is torch.ops.aten._local_scalar_dense.default or _leaves(args, found)
        return found


def _leaves(args: Any, found: Any) -> bool:
    """Return whether an operation copies from a device to the host."""
    come = [value for value in args if isinstance(value, torch.Tensor)]
    there = isinstance(found, torch.Tensor) and found.device.type == "cpu"
    return there and any(value.device.type != "cpu" for value in come)


def steps_rows(name: str, kind: str, device: torch.device, sizes: GPUSizes) -> list[Row]:
    """Return how near the losses are to the CPU's, and what a step costs.

    The limit of the distance is what other draws of the same steps make of the loss, and rounding: devices draw
    differently.
    """
    cpu = torch.device("cpu")
    one, other = (GPURun(name, "float32", cpu, sizes.rows).losses(sizes.steps, seed) for seed in (0, 1000))
    run = GPURun(name, kind, device, sizes.rows)
    found = run.losses(sizes.steps)
    if not all(math.isfinite(loss) for loss in found):
        raise FloatingPointError(f"losses {found}")
    limit = _distance(one, other) + CLOSE[kind]
    told = f"{short(name)} {kind}"
    with Counted() as counted:
        run.step(0)
    rows = [
        Row(f"{told}: distance of losses to the CPU's", _distance(one, found), "1", limit, 1.0),
        Row(f"{told}: operations of a step", counted.operations, "operations"),
        Row(f"{told}: values of a step that the host waits for", counted.reads, "values"),
        Row(f"{told}: step", seconds(lambda: run.step(1)), "s"),
    ]
    return rows + (gpu_rows(told, run, sizes.steps) if device.type == "cuda" else [])


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest relative difference of two runs' losses."""
    return max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(one, other, strict=True))


def gpu_rows(told: str, run: GPURun, steps: int) -> list[Row]:
    """Return the synchronisations that torch warns of, and the kernels, of a step."""
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.losses(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(one.message) for one in caught) / steps
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        run.step(0)
        torch.cuda.synchronize()
    kernels = [event for event in profiled.events() or [] if event.device_type == DeviceType.CUDA]
    busy_s = sum(event.device_time for event in kernels) / 1e6
    return [
        Row(f"{told}: synchronisations of a step", waits, "warnings"),
        Row(f"{told}: kernels of a step", len(kernels), "kernels"),
        Row(f"{told}: the GPU at work in a step", busy_s, "s"),
    ]


def product_row(told: str, kind: str, count: Sequence[int], device: torch.device) -> Row:
    """Return how far the library's grouped product, both ways, is from a product per expert."""
    torch.manual_seed(0)
    x_PD, weight_EDF = torch.randn(sum(count), 16), torch.randn(len(count), 16, 24)
    found = []
    for plain in (True, False):
        x, weight = (value.to(device, TYPES[kind]).requires_grad_() for value in (x_PD, weight_EDF))
        if plain:
            y = torch.cat([part @ weight[place] for place, part in enumerate(x.split(list(count)))])
        else:
            y = grouped_product(x, weight, Grouping(torch.tensor(count, device=device), None))
        y.float().square().sum().backward()
        assert x.grad is not None
        assert weight.grad is not None
        found.append([value.detach().float().cpu() for value in (y, x.grad, weight.grad)])
    scale = max(float(value.abs().max()) for value in found[0] if value.numel()) or 1.0
    apart = max(float((a - b).abs().max()) for a, b in zip(*found, strict=True) if a.numel())
    return Row(told, apart / scale, "1", CLOSE[kind], 1.0)


def attention_rows(kind: str, device: torch.device, sequences: int) -> list[Row]:
    """Return the time of attention within histories, both ways: one call for all of them beside slabs of like length.

    Where torch has no such call there are slabs alone, as in training.
    """
    where = layout(np.random.default_rng(0).integers(2, LONGEST + 1, sequences)).to(device)
    rows = len(where.sequence_N)
    torch.manual_seed(0)
    qkv = [torch.randn(rows, 1, WIDTH).to(device, TYPES[kind]).requires_grad_() for _ in range(3)]

    def gradients(attention: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, ...]:
        found = torch.autograd.grad(attention(*qkv, where).float().square().sum(), qkv)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return found

    told = f"attention of {sequences} histories, {rows:,} items, {kind}"
    if not takes_edges(qkv[0]):
        return [Row(f"{told}: by slabs", median_s(lambda: gradients(slab_attention), REPEATS), "s")]
    one, slabs = (gradients(attention) for attention in (edge_attention, slab_attention))
    apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(one, slabs, strict=True))
    times = side_by_side(lambda: gradients(edge_attention), lambda: gradients(slab_attention), REPEATS)
    return [
        timed(f"{told}: by one call, limit: by slabs", *times),
        Row(f"{told}: distance of gradients to those by slabs", apart, "1", CLOSE[kind], 1.0),
    ]


def memory_row(items: int, device: torch.device) -> Row:
    """Return the peak of a step of MSMRec over so many items, beside weights, gradients and two moments of each."""
    cls = resolve(MSMREC)
    rng = np.random.default_rng(0)
    rows = dict(cls.sample(64, rng)[0])
    rows["history"] = [rng.integers(1, items + 1, len(history)).astype(np.int32) for history in rows["history"]]
    rows["target"] = rng.integers(1, items + 1, 64).astype(np.int32)
    before = 0 if device.type == "cuda" else resident()
    restart_peaks(device)
    system = cls(cls.Config.model_validate({"width": 64, "gate": "none"}), {"item_count": np.ones(items + 1, np.int64)})
    engine = LocalEngine(system.model(), TrainConfig(), str(device))
    for _ in range(2):
        engine.backward(weighted(system.loss(engine, system.collate(rows).to(device))))
        engine.step(1e-3)
    bare = 16 * sum(parameter.numel() for parameter in engine.module.parameters())
    key = "peak_gpu_bytes" if device.type == "cuda" else "peak_memory_bytes"
    return Row(f"MSMRec, {items:,} items: peak of a step", peaks(device)[key] - before, "bytes", bare)


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def storage_rows(folder: str, parameters: int) -> list[Row]:
    """Return the times of saving and loading a state, beside a bare file of its bytes."""
    parts = 16
    tensors: dict[str, torch.Tensor] = {
        f"model.{n}": torch.full((parameters // parts,), float(n)) for n in range(parts)
    }
    store, file = CheckpointStore(Storage(f"{folder}/checkpoints")), Path(folder, "bare")

    def write() -> None:
        with file.open("wb") as stream:
            for tensor in tensors.values():
                stream.write(tensor.numpy().tobytes())
            stream.flush()
            os.fsync(stream.fileno())

    bare_write, bare_read = seconds(write), seconds(file.read_bytes)
    file.unlink()
    pieces = [TensorPiece.whole(name, tensor) for name, tensor in tensors.items()]

    def save() -> None:
        saver = Saver(store, OneRank())
        saver.save(1, pieces, {}, False, lambda _: None)
        saver.wait(lambda _: None)

    saved = seconds(save)
    loaded = seconds(lambda: dict(store.load(1).tensors))
    told = f"{parameters:,} parameters"
    return [Row(f"{told}: save", saved, "s", bare_write), Row(f"{told}: load", loaded, "s", bare_read)]
