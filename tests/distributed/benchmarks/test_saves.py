"""The benchmark of saving, at a small size."""

from pathlib import Path

import pytest

from rec.benchmarks.scale import saves

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")


@pytest.mark.ray
def test_a_save_is_measured_and_a_state_is_taken_up_by_other_sizes(tmp_path: Path) -> None:
    said: list[str] = []
    rows = saves.measure(str(tmp_path), said.append, saves.SMALL, saves.SMALL)
    names = [row.name.partition(",")[0] for row in rows]
    assert names == [
        "memory of a save per rank", "a step while a save is written", "what a step waits for a save",
        *(name for what in ("saved by 2", "resumed on 1", "resumed on 2", "resumed on 4")
          for name in ("memory of all processes", what)),
    ]  # fmt: skip
    share = 12 * saves.SMALL.parameters / 2 / saves.MB
    assert rows[0].limit == pytest.approx(share, rel=0.05)
    assert rows[0].value < 3 * share
    assert len(said) == 5
    assert (tmp_path / "large" / "checkpoints" / "step-00000001" / "manifest.json").is_file()
