"""The parts of the benchmark on visits, on little data."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("psutil", reason="needs the extra `cluster`")

from rec.benchmarks import visits_cohort
from rec.data.config import DataConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess


def test_a_written_release_is_a_cohort_with_as_many_pairs_as_arrow_finds(tmp_path: Path) -> None:
    visits_cohort.write(tmp_path / "mimic", 4_000)
    read = {
        "folder": str(tmp_path / "mimic"), "ndc2rxcui": f"{tmp_path}/mimic/ndc.json",
        "rxcui2atc": f"{tmp_path}/mimic/atc.csv", "minimum_visits": 1,
    }  # fmt: skip
    table = {"root": str(tmp_path / "data"), "source": "rec.data.sources.mimic:MimicIII", "read": read}
    data = prepare(DataConfig.model_validate({**table, "split": {"protocol": "given"}}), InProcess(), lambda _: None)
    rows = data.seen_as("visits")
    found = sum(len(codes) for split in ("train", "val", "test") for codes in rows.rows(split)["medications"])
    assert found == visits_cohort.bare(tmp_path / "mimic") > 1_000
