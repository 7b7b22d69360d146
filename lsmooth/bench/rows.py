"""What a suite says of its work, and nothing of how it is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Call: TypeAlias = Callable[[], object]
"""One run of the work; it returns when the result is there (JAX: block until ready; TF: read an element)."""

Setup: TypeAlias = Callable[[], Call]
"""Makes the data and compiles what is to be compiled, and returns the call; run once per process."""


@dataclass(frozen=True)
class Plan:
    """What the user asked for; a suite leaves out the rows of backends that are not in it."""

    backends: tuple[str, ...] = ("numpy", "jax", "tensorflow", "torch")
    quick: bool = False  # small sizes only, to see that everything runs
    device: str = "cpu"  # or "cuda", or what else JAX calls its devices
    listing: bool = False  # what would be measured, whatever is installed; nothing is set up


@dataclass(frozen=True)
class Row:
    """One line of the table: the same work done by lsmooth and by its peers.

    Attributes:
        work: what is done, in words that group rows: ``"smoothed cross-entropy, loss and gradient"``.
        backend: the framework, and its mode where it has several: ``"torch"``, ``"tensorflow, XLA"``.
        size: the sizes by name, ``{"rows": 2048, "classes": 32000}``.
        contenders: setups by name. ``"lsmooth"`` is one of them; the others are the peers.
        copy: the setup of the copy limit in the same framework, None if it means nothing here.
        unit_bytes: what peak memory is counted in, mostly the size of the logits; 0 not to measure it.
        bars: what lsmooth is held to: ``"copies"``, at most so many times ``copy``; ``"memory"``, at
            most so many units; ``"seconds"``, at most so many; and by the name of a peer, at least so
            many times faster than it.
        self_timed: whether a call returns its own seconds, as a process that times its import does. Such a call may
            count in ``compilations`` how many programs it compiled.
        runs: how often a self-timed call is measured, after a first that is not.
    """

    work: str
    backend: str
    size: Mapping[str, int]
    contenders: Mapping[str, Setup]
    copy: Setup | None = None
    unit_bytes: int = 0
    bars: Mapping[str, float] = field(default_factory=dict)
    self_timed: bool = False
    runs: int = 9
