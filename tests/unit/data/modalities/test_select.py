"""Which items a model writes of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rec.benchmarks.chat_server import Chat
from rec.data.modalities.config import SelectConfig
from rec.data.modalities.select import selected
from tests.support.films import job_of

COUNT, CHARACTERS = np.array([9, 1, 5, 1, 0]), np.array([10, 90, 80, 20, 70])


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"share": 0.6}, [1, 3, 4]),  # of the fewest records
        ({"share": 0.4}, [3, 4]),  # 1 and 3 have one record each: of 3 less is told
        ({"share": 0.0}, []),
        ({"most_interactions": 1}, [1, 3, 4]),
        ({"most_characters": 20}, [0, 3]),
        ({"most_interactions": 0, "most_characters": 20}, [0, 3, 4]),  # below either
        ({"most_interactions": 1, "share": 0.2}, [4]),
        ({"most_characters": 5}, []),
    ],
)
def test_items_of_few_records_or_short_metadata_are_chosen(keys: dict[str, Any], found: list[int]) -> None:
    assert np.flatnonzero(selected(COUNT, CHARACTERS, SelectConfig(**keys))).tolist() == found


def test_no_item_is_chosen_of_none() -> None:
    assert len(selected(COUNT[:0], CHARACTERS[:0], SelectConfig(share=0.5))) == 0


def test_the_template_writes_the_others(tmp_path: Path, chat: Chat) -> None:
    chat.behave(names=["narrative", "pace"])
    writer = {"kind": "chat", "url": chat.url, "model": "m", "cache": str(tmp_path)}
    job = job_of(tmp_path, 10, writer=writer, select={"most_interactions": 3, "share": 0.3})
    found = [one for some in job.write() for one in some]
    assert [set(one.writers.values()) for one in found] == [{"chat"}] * 3 + [{"template"}] * 7
    assert chat.told()["requests"] == 3
