"""Commands that are stopped by SIGKILL at a point of their writes, in processes that are forked when all is imported.

A point is where a process dies with another state on the disk than at the point before: when half of a file's bytes
are there, under its temporary name, so that all files before it are whole; before a folder gets another name; before a
file is deleted; when half of a folder is. After the last point all is done.
`python -m tests.support.deaths` reads an order a line and answers each with a line.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PRELOAD = (
    "torch._dynamo", "faiss", "matplotlib.backends.backend_svg", "sklearn.decomposition", "pyarrow.dataset", "tomli_w",
    "sklearn.feature_extraction.text", "PIL.JpegImagePlugin", "rec.cli", "rec.data.prepare", "rec.evaluation.predict",
    "rec.evaluation.predictor", "rec.evaluation.tasks.ranking", "rec.report.page", "rec.report.results.page",
    "rec.report.sweep", "rec.serving.export", "rec.systems.healthmoe", "rec.systems.lightgcn", "rec.systems.msmrec",
    "rec.train.job", "rec.train.narrator", "rec.data.generated.catalogue", "rec.data.generated.food",
    "rec.data.generated.graph", "tests.support.toy_phases",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
COSTS = ("commands", "date", "seconds", "peak_memory_bytes", "machine", "code", "versions")
"""What a file tells of how it was made, which differs from one time to the other."""


@dataclass
class Injector:
    """Counts what `Storage` writes, moves and deletes, and stops this process at one of these; 0 at none."""

    at: int
    points: int = 0
    made: set[str] = field(default_factory=set)
    """Paths of files that were written."""

    def point(self, damage: Callable[[], None] = lambda: None) -> None:
        """Stop here if it is time, with some damage done before."""
        self.points += 1
        if self.points == self.at:
            damage()
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Stand before everything that `Storage` changes on a disk."""
        from rec.storage import TEMPORARY, Storage

        write, rename, remove = Storage._write_once, Storage._rename, Storage._remove

        def writing(storage: Storage, name: str, fill: Any) -> None:
            self.made.add(storage.path(name))
            write(storage, name, fill)

        def renaming(storage: Storage, path: str, target: str) -> None:
            is_file = TEMPORARY.search(path) is not None
            self.point((lambda: os.truncate(path, os.path.getsize(path) // 2)) if is_file else lambda: None)
            self.made |= {target + file.removeprefix(path) for file in self.made if file.startswith(f"{path}/")}
            rename(storage, path, target)

        def removing(storage: Storage, path: str) -> None:
            files = sorted(file for file in Path(path).rglob("*") if file.is_file())
            self.point(lambda: [file.unlink() for file in files[: (len(files) + 1) // 2]] and None)
            remove(storage, path)

        changed: Any = Storage
        changed._write_once, changed._rename, changed._remove = writing, renaming, removing


def others(folder: str) -> list[str]:
    """Return a list that gets what Python itself changes below a folder, past `Storage`."""
    found: list[str] = []

    def hook(event: str, values: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(values[2], int) and values[2] & WRITING
        if (writes or event in CHANGES) and str(values[0]).startswith(folder):
            found.append(f"{event} {values[0]}")

    sys.addaudithook(hook)
    return found


def _command(order: dict[str, Any]) -> int:
    """Run a command in this process, which is its own; return its exit code."""
    import torch

    from rec.cli import main

    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    injector = Injector(order["at"])
    injector.install()
    past = others(order["folder"])
    before = {str(path) for path in Path(order["folder"]).rglob("*")}
    code = main(order["argv"])
    there = {str(path) for path in Path(order["folder"]).rglob("*") if path.is_file()}
    past += sorted(f"made {path}" for path in there - before - injector.made)
    sys.stdout.flush()
    told = {"points": injector.points, "past": past}
    Path(order["told"]).write_text(json.dumps(told))
    return code


def serve() -> None:
    """Fork a process for each order, and answer with how it ended."""
    for name in PRELOAD:
        importlib.import_module(name)
    gc.freeze()  # else a child copies every page that its first collection looks at
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            code = 70
            try:
                code = _command(order)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(process, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Minus the signal, where one ended it."""
    log: str
    points: int = 0
    past: Sequence[str] = ()
    """What it changed past `Storage`."""


class Commands:
    """Runs commands in forked processes."""

    def __init__(self, scratch: Path) -> None:
        self.log, self.told = scratch / "log.txt", scratch / "told.json"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.deaths"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip

    def run(self, argv: Sequence[str], folder: Path, at: int = 0) -> Ended:
        """Run a command that changes a folder, to its end or to a point of its writes."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        order = {"argv": list(argv), "at": at, "folder": str(folder), "log": str(self.log), "told": str(self.told)}
        self.told.unlink(missing_ok=True)
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        told = json.loads(self.told.read_text()) if self.told.exists() else {}
        return Ended(code, self.log.read_text(), **told)

    def close(self) -> None:
        """End the server."""
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(30)

    def die_everywhere(self, argv: Sequence[str], folder: Path, start: Path | None = None, most: int = 6) -> Ended:
        """Stop a command at points of its writes, run it again, and compare with one run to the end.

        Points are spread evenly over the writes, at as many as `REC_DEATHS` tells instead of `most`, or at "all".

        Args:
            argv: The command.
            folder: What it changes.
            start: What is in the folder before; None where it is not there.
            most: Points of a command that has more.
        """
        whole = self.run_from(argv, folder, start)
        assert whole.code == 0, whole.log
        assert not whole.past, "these go past `Storage`"
        wanted = contents(folder)
        asked = os.environ.get("REC_DEATHS", str(most))
        points = whole.points if asked == "all" else min(int(asked), whole.points)
        for at in sorted({1 + round(place * (whole.points - 1) / max(1, points - 1)) for place in range(points)}):
            died = self.run_from(argv, folder, start, at)
            assert died.code == -signal.SIGKILL, died.log
            again = self.run(argv, folder)
            assert again.code == 0, f"point {at}: {again.log}"
            found = contents(folder)
            assert found.keys() == wanted.keys(), f"point {at}: {found.keys() ^ wanted.keys()}"
            differ = [name for name, value in wanted.items() if found[name] != value]
            assert not differ, f"point {at}: {differ}"
        beyond = self.run_from(argv, folder, start, whole.points + 1)
        assert (beyond.code, beyond.points) == (0, whole.points), beyond.log
        print(f"rec {argv[0]}: stopped at {points} of {whole.points} writes")
        return whole

    def run_from(self, argv: Sequence[str], folder: Path, start: Path | None, at: int = 0) -> Ended:
        """Run a command on a folder that is as it was."""
        shutil.rmtree(folder, ignore_errors=True)
        if start is not None:
            shutil.copytree(start, folder)
        return self.run(argv, folder, at)


def contents(folder: Path) -> dict[str, Any]:
    """Return every file below a folder by name, without what differs each time: costs, and names made at random."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = re.sub(r"^data-[0-9a-f]{8}", "data", path.relative_to(folder).as_posix())
        if path.is_dir():
            found[f"{name}/"] = None
            continue
        data = path.read_bytes()
        if path.name in ("training.json", "measurement.json", "manifest.json", "encoding.json"):
            told = json.loads(data)
            folder_name = {"folder": "data"} if "folder" in told else {}
            found[name] = {key: value for key, value in told.items() if key not in COSTS} | folder_name
        else:
            found[name] = data
    return found


if __name__ == "__main__":
    serve()
