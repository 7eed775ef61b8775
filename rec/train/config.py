"""The keys of `[train]` and `[parallel]`: how the shared loop runs, and on how many workers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from rec.strict import Needs, Spaces, Strict, alike


class PhaseConfig(Strict):
    """What one phase does otherwise; what is unset is as the system wants it for that phase, or else the run's."""

    epochs: int | None = Field(None, ge=1)
    """As `train.epochs`, in this phase."""
    batch_size: int | None = Field(None, ge=1)
    """As `train.batch_size`, in this phase."""
    accumulate: int | None = Field(None, ge=1)
    """As `train.accumulate`, in this phase."""
    tokens: int | None = Field(None, ge=0)
    """As `train.tokens`, in this phase."""
    learning_rate: float | None = Field(None, gt=0)
    """As `train.learning_rate`, in this phase."""
    optimiser: Literal["adamw", "adam"] | None = None
    """As `train.optimiser`, in this phase."""
    metric: str | None = None
    """As `train.metric`, in this phase."""
    patience: int | None = Field(None, ge=0)
    """As `train.patience`, in this phase."""
    patience_examples: int | None = Field(None, ge=0)
    """As `train.patience_examples`, in this phase."""
    warmup_steps: int | None = Field(None, ge=0)
    """As `train.warmup_steps`, in this phase."""
    schedule: Literal["constant", "linear", "cosine"] | None = None
    """As `train.schedule`, in this phase."""
    weight_decay: float | None = Field(None, ge=0)
    """As `train.weight_decay`, in this phase."""


class TrainConfig(Strict):
    """How the shared loop runs."""

    SPACES: ClassVar[Spaces] = {
        "optimiser": {
            "learning_rate": {"log": [1e-4, 1e-2]},
            "batch_size": {"choice": [64, 128, 256]},
            "weight_decay": {"log": [1e-6, 1e-2]},
            "schedule": {"choice": ["constant", "cosine"]},
        }
    }

    batch_size: int = Field(128, ge=1)
    """Examples per optimiser step over all workers."""
    accumulate: int = Field(1, ge=1)
    """Microbatches that each worker makes of its examples of a step, one after the other: less memory for more time.
    Losses, gradients and the balance of experts are those of the whole batch. What is drawn is drawn for each
    microbatch. What a run names when it starts is that of each: terms that compare rows of a batch with each other,
    what exceeds an expert's capacity, batch normalisation over rows."""
    tokens: int = Field(0, ge=0)
    """Most tokens or events of a microbatch, its rows times the longest of them: each worker makes as many microbatches
    of its examples of a step as that takes, of rows of like length, and one of a row that is longer by itself. What is
    said of `accumulate` holds. 0 cuts by `accumulate` alone."""
    epochs: int = Field(1, ge=1)
    """Passes over the training rows."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of the optimiser, after the warm-up."""
    optimiser: Literal["adamw", "adam"] = "adamw"
    """"adam" adds the weight decay to the gradient; "adamw" takes it off the weights."""
    adam_beta2: float = Field(0.98, gt=0, lt=1)
    """Second beta of Adam: the share of the past in the mean of squared gradients."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight of the decay of weights, which `optimiser` tells the form of."""
    clip_norm: float = Field(0.0, ge=0)
    """Largest global gradient norm; 0 does not clip."""
    warmup_steps: int = Field(0, ge=0)
    """Optimiser steps over which the learning rate rises from 0; 0 starts with all of it."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls after the warm-up, to zero at the last step of a phase's last epoch."""
    metric: str = ""
    """What validation chooses the best checkpoint by: a metric of the system's tasks, or "val_loss" or "val_loss/TERM";
    empty takes the headline of the first task."""
    patience: int = Field(0, ge=0)
    """Evaluations without a better `metric` after which training stops; 0 sets no such limit."""
    patience_examples: int = Field(0, ge=0)
    """Examples trained on without a better `metric` after which an evaluation stops training; 0 sets no such limit.
    Where both are set, training stops when both are reached: so few steps of small data do not end it."""
    evaluate_every: int = Field(1, ge=1)
    """Epochs between evaluations on validation."""
    validation_share: float = Field(1.0, gt=0, le=1)
    """Share of validation's examples, drawn once by the seed, that evaluations in training measure."""
    evaluate_batch_size: int = Field(256, ge=1)
    """Examples per evaluation batch of one worker."""
    checkpoint_steps: int = Field(0, ge=0)
    """Optimiser steps between checkpoints beside those at evaluations; 0 makes none."""
    checkpoint_minutes: float = Field(0.0, ge=0)
    """Minutes between checkpoints beside those at evaluations; 0 makes none."""
    shuffle_window: int = Field(65_536, ge=1)
    """Rows that are shuffled together and held in memory; files are shuffled as well."""
    seed: int = 0
    """Of start weights, the order of rows, and all that is drawn in training."""
    start_from: str = ""
    """Folder of a trained run whose chosen weights this one starts from, those of the same names and shapes. Experts
    all start as the only one there, if it has one (`rec sweep --verdict` trains such a run, "dense, active width"):
    sparse upcycling (Komatsuzaki et al. 2023). Routers, and what is not there, are drawn; "" draws everything."""
    phases: dict[str, PhaseConfig] = {}
    """Keys of single phases of the system, by the phase's name."""


class ParallelConfig(Strict):
    """How many workers, and how they share the work."""

    NEEDS: ClassVar[Needs] = {
        **alike(
            ("moe_backend", "zero_stage", "precision", "max_failures", "stall_timeout_s", "min_workers"),
            {"workers": {"not": [0]}},
        ),
        "gpus_per_worker": {"gpu": [True]},
        "grow_s": {"min_workers": {"not": [0]}},
        "offload": {"gpu": [True], "workers": {"not": [0]}, "zero_stage": [1, 2]},
    }

    workers: int = Field(0, ge=0)
    """Ray Train workers under DeepSpeed; 0 trains in this process without Ray or DeepSpeed."""
    min_workers: int = Field(0, ge=0)
    """Fewest workers that a run starts with, or goes on with after a loss, where the cluster has no room for `workers`;
    more join after a checkpoint when there is room again. Of the numbers between, the largest that fits, divides every
    batch and is divided by `expert_parallel` is taken. 0 waits for all `workers`."""
    grow_s: float = Field(60.0, ge=0)
    """Fewest seconds that a number of workers is kept before room for more is looked for, at a checkpoint."""
    expert_parallel: int = Field(1, ge=1)
    """Ranks that share one copy of the experts; must divide workers."""
    moe_backend: Literal["grouped", "deepspeed"] = "grouped"
    """What computes experts: our grouped products and exchange, or DeepSpeed's stock layer, to compare with."""
    zero_stage: Literal[0, 1, 2] = 1
    """What workers share instead of each holding all: 0 nothing, 1 the optimiser, 2 gradients too. There is no 3, which
    would share weights: DeepSpeed refuses it beside experts that are spread, and no checkpoint of ours would hold."""
    offload: bool = False
    """Keeps the optimiser, its moments and its float32 weights, in the memory of the machine and updates there."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """"bf16" computes in bfloat16; the weights that are updated stay float32."""
    gpu: bool = False
    """Trains on GPUs, one per worker unless `gpus_per_worker` says less."""
    threads: int = Field(1, ge=1)
    """Torch threads per worker."""
    cpus_per_worker: float = Field(0.0, ge=0)
    """CPUs that a worker reserves, fractions allowed; 0 takes `threads`."""
    gpus_per_worker: float = Field(0.0, ge=0, le=1)
    """Share of a GPU that a worker reserves, so that several trials of one worker may use one; 0 takes a whole one.
    Workers of one run need a GPU each: NCCL refuses two ranks on one."""
    max_failures: int = Field(3, ge=0)
    """Restarts from one checkpoint after lost workers before the job gives up; after a newer one they count anew."""
    stall_timeout_s: float = Field(600.0, gt=0)
    """Seconds without progress of any rank after which the job names the rank and restarts."""

    @property
    def worker_resources(self) -> dict[str, float]:
        """What Ray reserves for one worker."""
        gpus = {"GPU": self.gpus_per_worker or 1.0} if self.gpu else {}
        return {"CPU": self.cpus_per_worker or float(self.threads), **gpus}

    @property
    def fewest(self) -> int:
        """Workers without which nothing starts."""
        return self.min_workers or self.workers

    @property
    def cpus(self) -> float:
        """CPUs that all workers reserve; training in one process is one worker."""
        return max(1, self.workers) * self.worker_resources["CPU"]

    @field_validator("zero_stage", mode="before")
    @classmethod
    def _weights_are_not_shared(cls, value: Any) -> Any:
        if value == 3:
            raise ValueError(
                "3 shares weights, which DeepSpeed refuses beside experts that are spread; experts are shared by "
                "expert_parallel, the optimiser and gradients by 2, and offload moves the optimiser off the GPU"
            )
        return value

    @model_validator(mode="after")
    def _experts_divide(self) -> Self:
        if max(self.workers, 1) % self.expert_parallel:
            raise ValueError(f"expert_parallel: must divide workers ({self.workers}), got {self.expert_parallel}")
        return self

    @model_validator(mode="after")
    def _fewest_are_fewer(self) -> Self:
        if self.workers and self.min_workers > self.workers:
            raise ValueError(f"min_workers: at most workers ({self.workers}), or 0; got {self.min_workers}")
        return self
