"""The benchmark of frozen encoders, at a small size."""

from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.benchmarks import encoders, healthmoe

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_the_benchmark_of_encoders_measures_every_row(
    ray_runtime: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"IMAGES": 64, "TEXTS": 128, "SIZE": 32, "SHARD": 16, "FEW": 64}.items():
        monkeypatch.setattr(encoders, name, value)
    for name, value in {"RANKED_USERS": 16, "ITEMS": 300, "RANKED": 8}.items():
        monkeypatch.setattr(healthmoe, name, value)
    rows = encoders.measure(str(tmp_path), 640, lambda _: None)
    limits = [row.name.split(":")[0] for row in rows if row.limit]
    ranking = [name for name in limits if name.startswith("full ranking")]
    others = [name for name in limits if name not in ranking]
    assert others == ["end to end", "pictures", "texts", "peak memory with 640 pictures, limit"]
    assert ranking
    assert all(row.value > 0 for row in rows)
