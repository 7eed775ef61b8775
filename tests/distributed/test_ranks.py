"""The runner of several processes: answers, errors, deaths and hangs, and nothing left behind."""

import os
import time
from typing import Any

import psutil
import pytest
import torch

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = pytest.mark.ray


def total(rank: int, world: int, value: float) -> float:
    found = torch.tensor([value * rank])
    torch.distributed.all_reduce(found)
    return float(found)


def misbehave(rank: int, world: int, how: str) -> None:
    if rank == 1:
        if how == "raise":
            raise ValueError("as asked")
        if how == "die":
            os._exit(7)
        time.sleep(1000)
    total(rank, world, 1.0)


def test_every_rank_answers(ranks: Any) -> None:
    assert ranks.run(4, total, 2.0) == [12.0] * 4
    assert ranks.run(1, total, 2.0) == [0.0]


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("raise", RuntimeError, "rank 1:\n(.|\n)*as asked"),
        # Its peer can notice first.
        ("die", RuntimeError, "rank 1 died with exit code 7|rank 0:\n(.|\n)*Connection"),
        ("hang", TimeoutError, r"ranks \[0, 1\] gave no answer in time"),
    ],
)
def test_what_goes_wrong_is_told_and_nothing_stays(ranks: Any, how: str, error: type, message: str) -> None:
    def members() -> set[int]:
        return {p.pid for p in psutil.Process().children(recursive=True) if "forkserver" in " ".join(p.cmdline())}

    ranks.run(2, total, 1.0)
    before = members()
    with pytest.raises(error, match=message):
        ranks.run(2, misbehave, how, timeout_s=5.0)
    assert members() <= before
