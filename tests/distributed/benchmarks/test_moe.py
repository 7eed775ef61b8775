"""The benchmark of the mixture layer, at a small size."""

import pytest

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")

from rec.benchmarks import moe, moe_ranks
from rec.runtime.deepspeed_experts import whole_stock_layer

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_the_mixture_benchmark_measures_times_memory_and_traffic() -> None:
    rows = moe.measure(whole_stock_layer, "DeepSpeed's layer", small=True) + moe_ranks.measure(small=True)
    assert all(row.value > 0 and (row.limit or 0) > 0 for row in rows)
    traffic = [row for row in rows if "bytes per row" in row.name]
    assert len(traffic) == 6
    assert all(row.ratio is not None and 0.9 < row.ratio <= 1.1 for row in traffic)
