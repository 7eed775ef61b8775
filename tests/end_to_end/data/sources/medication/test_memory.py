"""Memory while a cohort is read does not grow with the rows of its long tables."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import wards

CODE = """
import resource, sys
from pathlib import Path
from rec.data.sources.mimic import MimicIII
from tests.support import wards
folder = Path(sys.argv[1])
raw = wards.opened(MimicIII, folder, folder=str(folder / "iii"), **wards.maps(folder / "maps"))
print(len(raw.records.table), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
"""


def peak_bytes(folder: Path, copies: int) -> int:
    """Return the resident memory of a process that reads a cohort whose prescriptions stand so many times."""
    path = wards.mimic_iii(folder / "iii") / "PRESCRIPTIONS.csv"
    header, *rows = path.read_text().splitlines(keepends=True)
    with path.open("w") as file:
        file.write(header)
        for _ in range(copies):
            file.writelines(rows)
    done = subprocess.run([sys.executable, "-c", CODE, str(folder)], check=True, capture_output=True, text=True)
    visits, peak = map(int, done.stdout.split()[-2:])
    assert visits == 7
    return peak


@pytest.mark.slow
def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    rows = len(wards.prescriptions())
    few, many = (peak_bytes(tmp_path / str(copies), copies) for copies in (2_000, 40_000))
    # A row of three texts takes 60 bytes and more where it is held; 1.3 million rows are a piece and a part of one.
    assert (many - few) / (38_000 * rows) < 40, f"{(many - few) >> 20} MiB more"
