"""What tells data sets and their splits apart."""

from __future__ import annotations

from typing import Any

from rec.data.prepared import Prepared
from rec.evaluation.protocol import data_of, split_of

FILES = [{"name": "test/part-0.parquet", "sha256": "a"}, {"name": "text.npy", "sha256": "b"}]


def manifest(**more: Any) -> dict[str, Any]:
    return {"splits": {"test": [["test/part-0.parquet", 3]]}, "files": FILES, **more}


def test_a_split_is_told_by_what_the_manifest_says_of_it() -> None:
    told = manifest(split={"protocol": "leave-one-out", "sha256": "f"}, split_sha256="e")
    assert split_of(told) == {"protocol": "leave-one-out", "sha256": "f"}
    assert split_of(manifest(split_sha256="e")) == {"protocol": "", "sha256": "e"}


def test_without_a_hash_the_checksums_of_the_splits_files_tell_it() -> None:
    other_text = manifest(files=[FILES[0], {"name": "text.npy", "sha256": "c"}])
    other_rows = manifest(files=[{"name": "test/part-0.parquet", "sha256": "c"}, FILES[1]])
    assert split_of(manifest()) == split_of(other_text)
    assert split_of(manifest()) != split_of(other_rows)
    assert len({data_of(told)["sha256"] for told in (manifest(), other_text, other_rows)}) == 3


def test_a_prepared_data_set_has_both(planted: Prepared) -> None:
    found = data_of(planted.manifest)
    assert len(found["split"]["sha256"]) == len(found["sha256"]) == 64
    assert found["counts"]["users"] == 301
