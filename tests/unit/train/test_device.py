"""The device of a run in this process."""

import pytest

from rec.errors import ConfigError
from rec.train.config import ParallelConfig
from rec.train.device import device_of


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_of(ParallelConfig()) == "cpu"
    with pytest.raises(ConfigError, match=r"parallel.gpu: this machine has no GPU"):
        device_of(ParallelConfig(gpu=True))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device_of(ParallelConfig(gpu=True)) == "cuda"
