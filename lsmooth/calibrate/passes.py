"""Passes over the rows of files, in one process or several; a pass that was killed can be continued.

Each pass adds up the results of a function of each block of rows, in the order of the blocks, so the sums have the same
bits for any number of processes and interruptions.
"""

from __future__ import annotations

import io
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import lsmooth
from lsmooth.backends import use_backend
from lsmooth.calibrate import processes
from lsmooth.calibrate.data import Block, Data
from lsmooth.calibrate.files import Progress, digest, identity, write_whole

_SAVING_SHARE = 0.05
"""The share of a pass's time for saving its sums."""


@dataclass
class Sums:
    """Results of rows: numbers that are added, and arrays that are concatenated."""

    added: dict[str, Any] = field(default_factory=dict)
    joined: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        """Add the results of the following rows."""
        for name, value in other.added.items():
            self.added[name] = self.added[name] + value if name in self.added else value
        for name, arrays in other.joined.items():
            self.joined.setdefault(name, []).extend(arrays)

    def concatenated(self, name: str) -> np.ndarray:
        """The concatenated arrays of a name."""
        self.joined[name] = [np.concatenate(self.joined[name])]
        return self.joined[name][0]

    def save(self, path: Path, done: int) -> None:
        """Write a file atomically."""
        content = {f"added.{name}": value for name, value in self.added.items()}
        content |= {f"joined.{name}": self.concatenated(name) for name in self.joined}
        buffer = io.BytesIO()
        np.savez(buffer, done=done, **content)
        write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> tuple[Sums, int]:
        """The results and the number of blocks that `save` wrote; none and 0 without a file."""
        sums = cls()
        try:
            with np.load(path, allow_pickle=False) as content:
                for key in content:
                    kind, _, name = key.partition(".")
                    if kind == "added":
                        sums.added[name] = content[key]
                    elif kind == "joined":
                        sums.joined[name] = [content[key]]
                return sums, int(content["done"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return cls(), 0


def work_folders(folder: Path, files: Sequence[Sequence[Path] | None], how: Any) -> tuple[Path, Path]:
    """A folder for unpacked files, and one for the results of passes with the same files and options."""
    known = [[identity(path) if path.exists() else str(path) for path in paths or ()] for paths in files]
    state = folder / digest([lsmooth.__version__, np.__version__, known, how])
    for path in folder.iterdir():
        if path.is_dir() and path.name not in ("content", "scratch", state.name):
            shutil.rmtree(path)
    for path in (folder / "scratch", state):
        path.mkdir(exist_ok=True)
    return folder / "scratch", state


Function = Callable[[Data, Block], Sums]


class Passes:
    """Passes over data, whose results are saved in ``folder`` unless it is None."""

    def __init__(self, data: Sequence[Data], folder: Path | None, n_jobs: int, progress: Progress):
        self.folder, self._data, self._progress, self._n_jobs = folder, tuple(data), progress, n_jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Passes:
        if self._n_jobs > 1:
            self._pool = processes.new_pool(self._n_jobs, self._data)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def total(self, stage: str, data: Data, function: Function) -> Sums:
        """The sum of the function's results over all blocks, continued from a saved one.

        ``stage`` must be unique. The function must be picklable if there are several processes.
        """
        path = None if self.folder is None else self.folder / f"{stage.replace(' ', '-')}.npz"
        sums, done = (Sums(), 0) if path is None else Sums.load(path)
        spans = islice(data.spans(), done, None)
        saved = time.perf_counter()
        cost = 0.0
        for part, stop in self._parts(function, data, spans):
            sums.add(part)
            done += 1
            self._progress(stage, stop, len(data))
            begin = time.perf_counter()
            if path is not None and (cost < _SAVING_SHARE * (begin - saved) or stop == len(data)):
                sums.save(path, done)
                saved = time.perf_counter()
                cost = saved - begin
        return sums

    def _parts(self, function: Function, data: Data, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[Sums, int]]:
        if self._pool is None:
            with use_backend("numpy"):
                for span in spans:
                    yield function(data, data.rows(*span)), span[1]
            return
        index = next(k for k, each in enumerate(self._data) if each is data)
        tasks = ((index, function, span) for span in spans)
        for part, (_, _, span) in processes.in_order(self._pool, _work, tasks, 2 * self._n_jobs):
            yield part, span[1]


def _work(index: int, function: Function, span: tuple[int, int]) -> Sums:
    with use_backend("numpy"):
        return function(processes.sent[index], processes.sent[index].rows(*span))
