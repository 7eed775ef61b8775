"""A system that breaks on purpose: what, where and when stands in a file, so that it happens once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from torch import nn

from rec.batch import Columns
from rec.errors import TrainingError
from rec.nn.history import HistoryBatch
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig


class FaultyConfig(MSMRecConfig):
    """`fault` is KIND@PLACE:COUNT, `marker` a file whose lines say how often it still happens."""

    fault: str
    marker: str


class Faulty(MSMRec):
    """MSMRec that kills, hangs or raises in one worker when its marker file allows it.

    Places: model (start), loss:N (N-th step of the process), measure (evaluation), state (while a checkpoint is made).
    """

    Config = FaultyConfig
    config: FaultyConfig

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.steps = 0

    def model(self) -> nn.Module:
        self._maybe("model")
        module = super().model()
        module.register_state_dict_pre_hook(lambda *_: self._maybe("state"))
        return module

    def loss(self, *arguments: Any) -> Any:
        self._maybe(f"loss:{self.steps}")
        self.steps += 1
        return super().loss(*arguments)

    def examples(self, *arguments: Any) -> Any:
        self._maybe("measure")
        return super().examples(*arguments)

    def _maybe(self, place: str) -> None:
        kind, _, where = self.config.fault.partition("@")
        rank = int(os.environ.get("RANK", "-1"))
        marker = Path(self.config.marker)
        if where != place or rank != 1 or not marker.exists():
            return
        left = int(marker.read_text()) - 1
        if left:
            marker.write_text(str(left))
        else:
            marker.unlink()
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "sleep":
            time.sleep(3600)
        elif kind == "raise":
            raise TrainingError("this will happen again")
        elif kind == "bug":
            raise ValueError("a bug in one worker")


class SlowEvaluation(MSMRec):
    """MSMRec that takes its time for every batch of an evaluation."""

    def examples(self, *arguments: Any) -> Any:
        time.sleep(0.7)
        return super().examples(*arguments)


class Slow(MSMRec):
    """MSMRec that takes its time for every batch."""

    def collate(self, rows: Columns) -> HistoryBatch:
        time.sleep(0.2)
        return super().collate(rows)
