"""Worker processes, which end with the command."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

sent: Any = None
"""The object that `new_pool` has sent to this process."""


def new_pool(n_jobs: int, given: Any = None) -> ProcessPoolExecutor:
    """A pool of processes that end when this one ends, even if it is killed."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_jobs, mp_context=context, initializer=_begin, initargs=(given,))


def in_order(
    pool: ProcessPoolExecutor, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], ahead: int
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The result of each task and the task, in order; up to ``ahead`` tasks are started in advance.

    Raises:
        OSError: if a process has been killed.
    """
    pending: deque[Any] = deque()
    try:
        for task in tasks:
            pending.append((pool.submit(function, *task), task))
            if len(pending) > ahead:
                future, first = pending.popleft()
                yield future.result(), first
        while pending:
            future, first = pending.popleft()
            yield future.result(), first
    except BrokenProcessPool as error:
        raise OSError(
            "One of the processes was killed, perhaps because memory ran out; run the same command again with a "
            "smaller --n-jobs: it continues where it stopped."
        ) from error


def _begin(given: Any) -> None:
    global sent
    sent = given

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
