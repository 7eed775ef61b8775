"""What every forked rank needs, imported once: DeepSpeed, the optimiser's lazy parts, the test modules themselves."""

import importlib
import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")

MODULES = (
    "pytest",
    "torch._dynamo",
    "tests.runtime.test_deepspeed",
    "tests.runtime.test_expert_parallel",
    "tests.runtime.test_phase_ranks",
    "tests.runtime.test_saving_ranks",
)

for name in MODULES:
    importlib.import_module(name)
importlib.import_module("rec.runtime.deepspeed_experts").import_deepspeed()
