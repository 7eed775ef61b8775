"""Storage: whole files or none, retries, checksums."""

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest

from rec.errors import DataError
from rec.storage import CHUNK_BYTES, Storage, git_blob_sha1


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))

    def fail(stream) -> None:
        stream.write(b"half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        storage.write_with("a/b.bin", fail)
    assert storage.list("a") == []


def test_a_failed_write_keeps_the_file_before(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("a", b"first")
    with pytest.raises(ZeroDivisionError):
        storage.write_with("a", lambda stream: 1 / 0)
    assert storage.read("a") == b"first"


def test_transient_errors_are_retried(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path), wait_s=0.001)
    calls = []

    def flaky(stream) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise OSError(errno.EIO, "try again")
        stream.write(b"done")

    storage.write_with("a", flaky)
    assert (storage.read("a"), len(calls)) == (b"done", 3)


def test_a_full_disk_is_said_at_once(tmp_path: Path) -> None:
    calls = []

    def full(stream) -> None:
        calls.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match="No space left"):
        Storage(str(tmp_path)).write_with("a", full)
    assert len(calls) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "short", "flip"])
def test_every_damage_is_found(tmp_path: Path, damage: str) -> None:
    storage = Storage(str(tmp_path))
    data = bytes(range(256)) * 8
    storage.write("a", data)
    entry = storage.entry("a")
    assert storage.fault(entry) is None
    path = tmp_path / "a"
    flipped = bytearray(data)
    flipped[1000] ^= 1
    changed = {"empty": b"", "half": data[:1024], "short": data[:-100], "flip": bytes(flipped)}
    path.unlink() if damage == "missing" else path.write_bytes(changed[damage])
    assert "a" in (storage.fault(entry) or "")


def test_uris_open_the_file_system_they_name(tmp_path: Path) -> None:
    Storage(f"file://{tmp_path}/x").write("y", b"1")
    assert (tmp_path / "x" / "y").read_bytes() == b"1"
    with pytest.raises(DataError, match="no file system"):
        Storage("nosuch://bucket/x")


def test_git_blob_sha1_is_gits() -> None:
    # `printf hello | git hash-object --stdin`
    assert git_blob_sha1(b"hello") == "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"


def left_by(storage: Storage, name: str, process: int) -> str:
    """Make the temporary file of a process of this host, and return its name."""
    host = re.sub(r".*\.([0-9a-f]{8})-.*", r"\1", temporary_of(storage))
    left = f"{name}.{host}-{process}-01234567.tmp"
    Path(storage.path(left)).write_bytes(b"half")
    return left


def temporary_of(storage: Storage) -> str:
    """Return the name that a file has while it is written."""
    seen: list[str] = []
    storage.write_with("seen", lambda stream: (stream.write(b"1"), seen.extend(storage.temporaries())))
    return seen[0]


def ended() -> int:
    """Return the number of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_what_a_stopped_process_has_left_is_not_listed_and_goes_with_the_next_write(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    mine, theirs = left_by(storage, "a", os.getpid()), left_by(storage, "b", ended())
    assert storage.list() == ["seen"]
    assert storage.temporaries() == sorted([mine, theirs])
    Storage(str(tmp_path)).write("other", b"1")
    assert storage.temporaries() == [mine]


def test_what_another_host_has_left_goes_after_a_day(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    names = [f"{name}.00000000-1-01234567.tmp" for name in ("new", "old")]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    os.utime(tmp_path / names[1], (0, 0))
    storage.tidy()
    assert storage.temporaries() == names[:1]


def test_a_folder_that_is_being_deleted_is_gone_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write("folder/a", b"1")
    seen: list[tuple[bool, int]] = []
    remove = Storage._remove

    def looking(storage: Storage, path: str) -> None:
        seen.append((storage.exists("folder"), len(storage.temporaries())))
        remove(storage, path)

    monkeypatch.setattr(Storage, "_remove", looking)
    storage.delete("folder")
    assert seen == [(False, 1)]
    assert list(tmp_path.iterdir()) == []


def test_the_same_bytes_are_not_written_again(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for data, changed in ((b"1", True), (b"1", False), (b"2", True)):
        os.utime(tmp_path / "a", (0, 0)) if storage.exists("a") else None
        storage.renew("a", data)
        assert (storage.read("a"), (tmp_path / "a").stat().st_mtime > 0) == (data, changed)


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        Storage(str(tmp_path)).write_json("pipe", [1, 2])
        assert reader.stdout is not None
        assert reader.stdout.read().split() == [b"[", b"1,", b"2", b"]"]
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
def test_a_device_that_takes_nothing_is_told_and_stays_one() -> None:
    with pytest.raises(DataError, match="cannot be written"):
        Storage("/dev").write("full", b"x" * 10_000)
    assert Path("/dev/full").is_char_device()


def test_long_files_beat_while_they_are_written_and_checked(tmp_path: Path) -> None:
    beats: list[int] = []
    storage = Storage(str(tmp_path), beat=lambda: beats.append(1)).below("deep")
    storage.write("a", b"x" * (2 * CHUNK_BYTES + 1))
    assert len(beats) == 3
    assert storage.size("a") == 2 * CHUNK_BYTES + 1
    storage.entry("a")
    assert len(beats) == 6
    storage.write("none", b"")
    assert storage.read("none") == b""
