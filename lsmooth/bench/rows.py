"""The description of the work of a suite, independent of how it is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Call: TypeAlias = Callable[[], object]
"""One run of the work; it returns when the result is computed (JAX: block until ready; TF: read an element)."""

Setup: TypeAlias = Callable[[], Call]
"""Makes the data, compiles, and returns the call; it runs once per process."""


@dataclass(frozen=True)
class Plan:
    """The user's choices; a suite leaves out the rows of other backends."""

    backends: tuple[str, ...] = ("numpy", "jax", "tensorflow", "torch")
    quick: bool = False  # small sizes only, to check that everything runs
    device: str = "cpu"  # or "cuda", or JAX' name of another device
    listing: bool = False  # list all rows, installed or not; nothing is set up


@dataclass(frozen=True)
class Row:
    """One line of the table: the same work done by lsmooth and by its peers.

    Attributes:
        work: the name of the work, by which rows are grouped: ``"smoothed cross-entropy, loss and gradient"``.
        backend: the framework, and its mode where it has several: ``"torch"``, ``"tensorflow, XLA"``.
        size: the sizes by name, ``{"rows": 2048, "classes": 32000}``.
        contenders: setups by name. ``"lsmooth"`` is one of them; the others are the peers.
        copy: the setup of the copy limit in the same framework, or None.
        unit_bytes: the unit of peak memory, mostly the size of the logits; with 0 it is not measured.
        bars: the targets of lsmooth: the most ``"copies"`` (times of ``copy``), units of
            ``"memory"`` and ``"seconds"``, and the least speed relative to a peer, by its name.
        self_timed: whether a call returns its own seconds, as a process that times its import does. Such a call may
            have an attribute ``compilations``, the number of programs it compiled.
        runs: how often a self-timed call is measured, after a first run that is dropped.
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
