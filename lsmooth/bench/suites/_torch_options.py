"""The softmax cross-entropy of PyTorch with one option more, each beside PyTorch's own way to it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lsmooth import losses
from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites import _frameworks as frameworks
from lsmooth.bench.suites._torch_peers import PEERS, Step

SIZES = ((512, 32000), (256, 1000))
# Options by which the loss of large logits is to be three times as fast.
LARGE_BARS = {f"cross-entropy, {x}" for x in ("distributions", "class weights", "z-loss", "temperature per row")}
IMAGES = ((8, 2, 256, 256), (4, 21, 128, 128), (2, 150, 128, 128))


def option_rows(plan: Plan) -> Iterator[Row]:
    """Distributions, weights, z-loss, a temperature per row, no reduction, modules, and images."""
    if not frameworks.wanted(plan, "torch"):
        return
    for size in ((64, 1000),) if plan.quick else SIZES:
        for work, (ours, peer, extra) in _options(size).items():
            yield _row(plan, f"cross-entropy, {work}", size, ours, peer, extra)
    for size in ((64, 10),) if plan.quick else ((32, 10), (256, 1000)):
        for work, ignored in (("module", 0), ("module, a quarter of the rows ignored", 4)):
            yield _row(plan, f"cross-entropy, {work}", size, *_modules(ignored), lambda: np.zeros(1))
        yield _row(plan, "cross-entropy, compat.torch", size, *_compat(), lambda: np.zeros(1))
    for shape in ((2, 5, 16, 16),) if plan.quick else IMAGES:
        yield _row(plan, "cross-entropy, image", shape, *_images(), lambda: np.zeros(1))
    for work, steps, extra, large, small in PEERS:
        size = small if plan.quick else large
        ours, peer = (functools.partial(_one_of, steps, i) for i in range(2))
        yield _row(plan, work, size, ours, peer, functools.partial(extra, size))


def _one_of(steps: Callable[[], tuple[Step, Step]], i: int) -> Step:
    return steps()[i]


def _row(plan: Plan, work: str, shape: tuple[int, ...], ours: Any, peer: Any, extra: frameworks.Data) -> Row:
    logits = functools.cache(lambda: np.random.default_rng(0).standard_normal(shape, np.float32))
    rows = (shape[0], *shape[2:])
    ids = functools.cache(lambda: np.random.default_rng(1).integers(0, shape[1], rows))
    contenders = {
        "lsmooth": frameworks.torch_step(plan, logits, ours, ids, extra),
        "torch": frameworks.torch_step(plan, logits, peer, ids, extra),
    }
    sizes = {"rows": math.prod(rows), "classes": shape[1]}
    copy = frameworks.torch_copy(plan, logits)
    return Row(f"{work}, loss and gradient", "torch", sizes, contenders, copy, 0, {"torch": _bar(work, sizes)})


def _bar(work: str, sizes: dict[str, int]) -> float:
    """How many times faster than its peer the work is to be."""
    if "drop" in work:
        return 1 / 1.5
    if "ignored" in work and "linear" in work:
        return 1 / 1.3
    return 3.0 if work in LARGE_BARS and sizes["classes"] == SIZES[0][1] else 1.0


def _options(size: tuple[int, int]) -> dict[str, tuple[Callable[[], Step], Callable[[], Step], frameworks.Data]]:
    """Of each option: lsmooth's step, PyTorch's, and the tensor that both take."""
    rng = np.random.default_rng(2)
    ours, per_row = losses.softmax_cross_entropy, rng.uniform(0.5, 2.0, size[0]).astype(np.float32)
    per_class = rng.uniform(0.5, 2.0, size[1]).astype(np.float32)

    def distributions() -> np.ndarray:
        x = np.random.default_rng(3).random(size, np.float32)
        return x / x.sum(1, keepdims=True)

    def peer(step: Callable[[Any], Step]) -> Callable[[], Step]:
        def torch_step() -> Step:
            import torch

            return step(torch)

        return torch_step

    return {
        "distributions": (
            lambda: lambda z, y, q: ours(q, z),
            peer(lambda torch: lambda z, y, q: torch.nn.functional.cross_entropy(z, q)),
            distributions,
        ),
        "class weights": (
            lambda: lambda z, y, w: ours(y, z, class_weight=w),
            peer(lambda torch: lambda z, y, w: torch.nn.functional.cross_entropy(z, y, weight=w)),
            lambda: per_class,
        ),
        "z-loss": (
            lambda: lambda z, y, _: ours(y, z, z_loss=1e-4),
            peer(
                lambda torch: (
                    lambda z, y, _: (
                        torch.nn.functional.cross_entropy(z, y) + 1e-4 * torch.logsumexp(z, 1).square().mean()
                    )
                )
            ),
            lambda: per_row,
        ),
        "temperature per row": (
            lambda: lambda z, y, t: ours(y, z, temperature=t),
            peer(lambda torch: lambda z, y, t: torch.nn.functional.cross_entropy(z / t[:, None], y)),
            lambda: per_row,
        ),
        "a masked class": (
            lambda: lambda z, y, m: ours(y.clamp_min(1), z + m, label_smoothing=0.1),
            peer(
                lambda torch: (
                    lambda z, y, m: torch.nn.functional.cross_entropy(z + 0 * m[1], y.clamp_min(1), label_smoothing=0.1)
                )
            ),
            lambda: np.where(np.arange(size[1]) == 0, -np.inf, 0.0).astype(np.float32),
        ),
        "no reduction": (
            lambda: lambda z, y, _: ours(y, z, label_smoothing=0.1, reduction="none").sum(),
            peer(
                lambda torch: (
                    lambda z, y, _: torch.nn.functional.cross_entropy(z, y, label_smoothing=0.1, reduction="none").sum()
                )
            ),
            lambda: per_row,
        ),
    }


def _modules(ignored: int) -> tuple[Callable[[], Step], Callable[[], Step]]:
    """The modules; of so many rows one is ignored, none for 0."""

    def step(loss: Any) -> Step:
        labels: list[Any] = []

        def call(z: Any, y: Any, _: Any) -> Any:
            if not labels:
                labels.append(y.clone())
                labels[0][: len(y) if ignored else 0 : max(1, ignored)] = -100
            return loss(z, labels[0])

        return call

    def ours() -> Step:
        from lsmooth.integrations.torch import CrossEntropyLoss

        return step(CrossEntropyLoss())

    def peer() -> Step:
        import torch

        return step(torch.nn.CrossEntropyLoss())

    return ours, peer


def _compat() -> tuple[Callable[[], Step], Callable[[], Step]]:
    def ours() -> Step:
        from lsmooth.compat.torch import cross_entropy

        return lambda z, y, _: cross_entropy(z, y)

    def peer() -> Step:
        import torch

        return lambda z, y, _: torch.nn.functional.cross_entropy(z, y)

    return ours, peer


def _images() -> tuple[Callable[[], Step], Callable[[], Step]]:
    def peer() -> Step:
        import torch

        return lambda z, y, _: torch.nn.functional.cross_entropy(z, y)

    return lambda: lambda z, y, _: losses.softmax_cross_entropy(y, z, axis=1), peer
