"""URIs, and files in a real object store: whole or none."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pytest

from rec import filesystems
from rec.data.writing import write_array, write_table
from rec.errors import ConfigError, StorageError
from rec.filesystems import last_name, uri_below
from rec.storage import Storage
from tests.support.object_store import BUCKET, Proxy, options, reachable


@pytest.mark.parametrize(
    ("uri", "below", "last"),
    [
        ("out/run", "out/run/a b", "run"),
        ("/out?x/run/", "/out?x/run/a b", "run"),
        ("s3://bucket/run", "s3://bucket/run/a%20b", "run"),
        ("s3://bucket/run?scheme=http", "s3://bucket/run/a%20b?scheme=http", "run"),
    ],
)
def test_names_go_before_what_follows_a_question_mark(uri: str, below: str, last: str) -> None:
    assert uri_below(uri, "a b") == below
    assert last_name(uri) == last


def test_keys_in_a_uri_are_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"^s3://\.\.\.@bucket/run: has a key") as refused:
        Storage("s3://me:secret@bucket/run")
    assert "secret" not in str(refused.value)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    pytest.importorskip("moto", reason="needs the extra `dev`")
    with reachable() as port:
        yield port


@pytest.fixture
def store(port: int) -> Storage:
    return Storage(f"s3://{BUCKET}/{os.urandom(4).hex()}{options(port)}")


def test_files_are_written_read_listed_and_deleted(store: Storage) -> None:
    store.write("a/b c", b"1")
    write_array(store, "array", np.arange(5))
    write_table(store, "table.parquet", pa.table({"x": [1]}))
    assert store.list() == ["a", "array.npy", "table.parquet"]
    assert store.below("a").read("b c") == b"1"
    assert Storage(store.uri_of("a")).list() == ["b c"]
    store.delete("a")
    assert not store.exists("a")


def test_another_process_opens_it_by_its_uri_with_keys_of_its_own(store: Storage) -> None:
    store.write("a/b", b"1")
    packed = pickle.dumps(store.below("a"))
    assert b"secret" not in packed
    assert pickle.loads(packed).read("b") == b"1"


@pytest.mark.parametrize("size", [4, 3000])
def test_a_file_that_cannot_be_made_is_none(store: Storage, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(filesystems, "HELD_BYTES", 1000)

    def breaks(stream: IO[bytes]) -> Any:
        stream.write(b"x" * size)
        raise ZeroDivisionError

    store.write("known", b"whole")
    with pytest.raises(ZeroDivisionError):
        store.write_with("new", breaks)
    assert store.list() == ["known"]
    if size < 1000:  # what is larger is a shard, whose name is new
        with pytest.raises(ZeroDivisionError):
            store.write_with("known", breaks)
        assert store.read("known") == b"whole"


def test_a_store_that_is_gone_is_told_by_the_file_and_is_not_a_missing_one(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "ATTEMPTS", 1)
    proxy = Proxy(port)
    store = Storage(f"s3://{BUCKET}/gone{options(proxy.port)}")
    store.write("a", b"1")
    proxy.mode = "gone"
    for ask in (store.exists, store.read, store.sha256, store.size, store.list, lambda name: store.write(name, b"2")):
        with pytest.raises(StorageError, match=r"^s3://bucket/gone/a\?.*: .*NETWORK_CONNECTION"):
            ask("a")
    proxy.mode = "pass"
    assert store.read("a") == b"1"
    proxy.close()


def test_a_bucket_that_is_not_there_is_said(port: int) -> None:
    with pytest.raises(StorageError, match=r"/run/a\?.*: cannot be written \(.*NO_SUCH_BUCKET"):
        Storage(f"s3://nobody/run{options(port)}").write("a", b"1")
