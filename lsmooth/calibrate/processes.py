"""Processes that work for the command, and end with it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

own: Any = None
"""What `new_pool` has given each process of its own."""


def new_pool(n_jobs: int, given: Any = None) -> ProcessPoolExecutor:
    """Processes that end when this one does, however it ends."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_jobs, mp_context=context, initializer=_begin, initargs=(given,))


def in_order(
    pool: ProcessPoolExecutor, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], ahead: int
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The result of each task beside the task, in their order; so many tasks are begun before they are asked for.

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
            "One of the processes was killed, perhaps for want of memory; run the same command again with a smaller "
            "--n-jobs: it goes on where it has stopped."
        ) from error


def _begin(given: Any) -> None:
    global own
    own = given

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
