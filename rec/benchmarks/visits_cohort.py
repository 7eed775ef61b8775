"""Building a cohort from tables in MIMIC-III's layout, beside the bare work of Arrow on the same prescriptions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from rec.benchmarks.memory import PeakMemory
from rec.benchmarks.row import Row
from rec.benchmarks.work import Say
from rec.data.config import DataConfig, SplitConfig
from rec.json_text import json_text
from rec.runtime.prepare import prepare
from rec.seeds import generator

PER_VISIT, DRUGS, CODES, DIAGNOSES, PROCEDURES = 80, 2_000, 112, 12, 4
"""Prescriptions of an admission (the demo's), different drugs, their codes, and codes of an admission."""
AT_ONCE = 500_000
UNREAD = ("drug", "drug_name_poe", "drug_name_generic", "formulary_drug_cd", "prod_strength", "dose_val_rx",
          "dose_unit_rx", "form_val_disp", "form_unit_disp")  # fmt: skip
"""Columns that a cohort does not read and that have to be passed over."""


def measure(folder: str, rows: int, say: Say) -> list[Row]:
    """Return prescriptions per second and peak memory of a cohort, and the time beside Arrow's own work."""
    source = Path(folder) / "mimic"
    write(source, rows)
    read = {
        "folder": str(source), "ndc2rxcui": f"{source}/ndc.json", "rxcui2atc": f"{source}/atc.csv",
        "minimum_visits": 1,
    }  # fmt: skip
    table: dict[str, Any] = {"root": f"{folder}/cohort", "source": "rec.data.sources.mimic:MimicIII", "read": read}
    config = DataConfig.model_validate({**table, "split": SplitConfig(protocol="given")})
    start_s = time.perf_counter()
    with PeakMemory() as memory:
        prepare(config, say, ["visits"])
    ours_s = time.perf_counter() - start_s
    start_s = time.perf_counter()
    bare(source)
    bare_s = time.perf_counter() - start_s
    name = f"cohort of {rows:,} prescriptions"
    return [
        Row(f"{name}, limit: Arrow alone", ours_s, "s", bare_s),
        Row(f"{name}: prescriptions per second", rows / ours_s, "1/s"),
        Row(f"{name}: resident memory of all processes", memory.peak_bytes / 2**30, "GiB", goal=4.0),
    ]


def write(folder: Path, rows: int) -> None:
    """Write the tables of a release with so many prescriptions."""
    folder.mkdir(parents=True)
    rng = generator(0, "benchmark cohort")
    visits = max(rows // PER_VISIT, 10)
    visit, ndc = np.arange(100_000, 100_000 + visits), [f"{number:011d}" for number in range(1, DRUGS + 1)]
    stays = {"subject_id": visit // 2, "hadm_id": visit, "admittime": np.full(visits, "2150-01-01 08:00:00")}
    _write(folder / "ADMISSIONS.csv", pa.table({**stays, "diagnosis": np.full(visits, "SEPSIS")}))
    for name, codes, each in (("DIAGNOSES", 2_000, DIAGNOSES), ("PROCEDURES", 1_400, PROCEDURES)):
        code = pa.array([f"{number:04d}" for number in range(codes)])
        drawn = pa.array(rng.integers(0, codes, visits * each))
        table = {"hadm_id": np.repeat(visit, each), "seq_num": np.tile(np.arange(1, each + 1), visits)}
        _write(folder / f"{name}_ICD.csv", pa.table({**table, "icd9_code": code.take(drawn)}))
        _write(folder / f"D_ICD_{name}.csv", pa.table({"icd9_code": code, "long_title": code}))
    (folder / "ndc.json").write_text(json_text({one: str(number) for number, one in enumerate(ndc)}))
    atc = [f"{chr(65 + code // 10)}{code % 10:02d}AA" for code in np.arange(DRUGS) % CODES]
    _write(folder / "atc.csv", pa.table({"RXCUI": np.arange(DRUGS), "ATC4": atc}))
    schema, writer = None, None
    for first in range(0, rows, AT_ONCE):
        count = min(AT_ONCE, rows - first)
        drug = pa.array(np.minimum(rng.zipf(1.2, count), DRUGS) - 1)
        table = pa.table(
            {
                "row_id": np.arange(first, first + count), "hadm_id": visit[rng.integers(0, visits, count)],
                **{name: pa.array(np.full(count, f"some {name}")) for name in UNREAD},
                "ndc": pa.array(ndc).take(drug), "route": pa.array(["PO", "IV"]).take(rng.integers(0, 2, count)),
            }
        )  # fmt: skip
        if writer is None:
            schema, writer = table.schema, csv.CSVWriter(folder / "PRESCRIPTIONS.csv", table.schema)
        writer.write_table(table.cast(schema))
    if writer is not None:
        writer.close()


def bare(folder: Path) -> int:
    """Return how many (admission, code) pairs there are, by Arrow's own reading, mapping and grouping."""
    names = ["hadm_id", "ndc"]
    convert = csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, pa.string()))
    table = csv.read_csv(folder / "PRESCRIPTIONS.csv", convert_options=convert)
    rxcui = json.loads((folder / "ndc.json").read_text())
    atc = dict(zip(*csv.read_csv(folder / "atc.csv").to_pydict().values(), strict=True))
    place = pc.index_in(table["ndc"], value_set=pa.array(list(rxcui)))
    code = pa.array([atc[int(number)][:4] for number in rxcui.values()]).take(place.combine_chunks())
    return len(pa.table({"visit": table["hadm_id"], "code": code}).group_by(["visit", "code"]).aggregate([]))


def _write(path: Path, table: pa.Table) -> None:
    csv.write_csv(table, path)
