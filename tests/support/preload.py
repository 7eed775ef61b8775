"""What every forked rank needs, imported once: DeepSpeed, the optimiser's lazy parts, the test modules themselves."""

import importlib
import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")

MODULES = (
    "pytest",
    "torch._dynamo",
    "tests.distributed.runtime.test_deepspeed",
    "tests.distributed.runtime.test_expert_parallel",
    "tests.distributed.runtime.test_phase_ranks",
    "tests.distributed.runtime.test_saving_ranks",
)

for name in MODULES:
    importlib.import_module(name)
importlib.import_module("rec.runtime.deepspeed_experts").import_deepspeed()
