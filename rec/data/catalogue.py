"""The items of a config, whose modalities are written, estimated or compared without a data set being made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from rec.data.config import DataConfig
from rec.data.items import HeldItems
from rec.data.modalities.compare import compared, thresholds
from rec.data.modalities.items import Written
from rec.data.modalities.job import ModalityJob
from rec.data.modalities.summary import Summary, told_of
from rec.data.prepare import items_of
from rec.data.runner import Runner
from rec.data.stages.modalities import job_of
from rec.sections import counted

JUDGED = 2000
"""Items whose texts thresholds are chosen by, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Items as a data set of a config would hold them."""

    config: DataConfig
    frame: pd.DataFrame
    count_I: np.ndarray
    """Records of training of each."""
    runner: Runner
    say: Callable[[str], None]

    @classmethod
    def read(cls, config: DataConfig, runner: Runner, say: Callable[[str], None]) -> Catalogue:
        """Return the items of a config.

        Raises:
            DataError: an input cannot be read.
        """
        frame, count_I = items_of(config, runner, say)
        return cls(config=config, frame=frame, count_I=count_I, runner=runner, say=say)

    def job(self, show: bool = True) -> ModalityJob:
        """Return the job of writing their modalities; without `show` the writer sees no passages."""
        return job_of(self.config, HeldItems(self.frame), self.count_I, self.runner, self.say, show)

    def estimate(self) -> dict[str, Any]:
        """Return what is to be asked, and what that costs."""
        job = self.job()
        found = job.estimate()
        if found is None:
            return {"told": f"templates write {counted(len(self.frame), 'item')}: nothing is asked, nothing is paid"}
        return asdict(found) | {"told": found.told(job.prices)}

    def write(self) -> dict[str, Any]:
        """Write what is not written yet, and return what is told of all."""
        job, summary, some = self.job(), Summary(), list[Written]()
        with closing(job.write()) as every:
            for written in every:
                summary.add(written)
                if len(some) < JUDGED:
                    some += [one for one in written if one.faithfulness]
        return told_of(job, summary) | {"thresholds": thresholds(job, some)}

    def compare(self, items: int) -> dict[str, Any]:
        """Return how texts with and without what was found differ, of at most so many items."""
        return compared(self.job, items)
