"""PyTorch's losses with one option more, modules, images and sigmoid losses, each beside PyTorch's own way to it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lsmooth import distillation, losses
from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites._frameworks import EPS, TEMPERATURE, Loss, loss_rows, peer
from lsmooth.bench.suites.linear import KEPT, top_classes
from lsmooth.compat import torch as compat

Shape = tuple[int, ...]


class _Work(NamedTuple):
    """A loss of arrays whose classes lie along axis 1, and PyTorch's way to it."""

    name: str
    shapes: tuple[Shape, ...]  # of the logits or hidden states; the first is small
    arrays: Any  # from a shape, the arrays beside the first
    ours: Loss
    peer: Loss
    bar: float = 1.0  # how many times faster than PyTorch's: above 1, of the largest logits only


def option_rows(plan: Plan) -> Iterator[Row]:
    """Distributions, weights, z-loss, a temperature per row, no reduction, modules, images, and sigmoid losses."""
    for work in _WORKS:
        for shape in work.shapes[:1] if plan.quick else work.shapes[1:]:
            yield from loss_rows(
                plan,
                f"{work.name}, loss and gradient",
                {"rows": math.prod(shape) // shape[1], "classes": shape[1]},
                functools.cache(lambda shape=shape, work=work: (_normal(shape, 0), *work.arrays(shape))),
                work.ours,
                {"torch": {"torch": work.peer}},
                bars={"torch": {"torch": work.bar if shape == _LARGE else min(work.bar, 1.0)}},
                with_memory=False,
            )


def _normal(shape: Shape, seed: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _ids(shape: Shape) -> tuple[np.ndarray]:
    return (np.random.default_rng(1).integers(0, shape[1], (shape[0], *shape[2:])),)


def _few_ignored(shape: Shape) -> tuple[np.ndarray]:
    (labels,) = _ids(shape)
    labels[::4] = -100
    return (labels,)


def _ignored_pixels_and_weights(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    (labels,) = _ids(shape)
    labels.reshape(-1)[::10] = -100
    return labels, _scales(shape[1])


def _ids_and_weights(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    return (*_ids(shape), _scales(shape[1]))


def _scales(size: int) -> np.ndarray:
    return np.random.default_rng(2).uniform(0.5, 2.0, size).astype(np.float32)


def _distributions(shape: Shape) -> tuple[np.ndarray]:
    x = np.random.default_rng(3).random(shape, np.float32)
    return (x / x.sum(1, keepdims=True),)


def _binary(shape: Shape) -> np.ndarray:
    return (np.random.default_rng(3).random(shape) < 0.3).astype(np.float32)


def _head_of_one_in_twenty(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """The weight of at most 32000 classes, and labels, 95% of which are ignored."""
    weight = _normal((min(32000, 64 * shape[1]), shape[1])) / shape[1] ** 0.5
    (labels,) = _ids(shape)
    labels[np.arange(1, shape[0] + 1) % 20 != 0] = -100
    return weight, labels


def _of_top_classes(z: Any, indices: Any, log_t: Any, tail: str) -> Any:
    return distillation.sparse_distillation_loss(indices, log_t, z, tail=tail)


def _largest(shape: Shape) -> list[np.ndarray]:
    return top_classes(shape[0], shape[1], min(KEPT, shape[1] // 2))


_LARGE = (512, 32000)
# Shapes, the small one first.
_LOGITS, _BATCHES = ((64, 1000), _LARGE, (256, 1000)), ((64, 10), (32, 10), (256, 1000))
_IMAGES = ((2, 5, 16, 16), (8, 2, 256, 256), (4, 21, 128, 128), (2, 150, 128, 128))
_MANY_LABELS, _TEACHER = ((2, 3, 8, 8), (8, 20, 128, 128)), ((8, 100), _LARGE)
_loss, _bucket = losses.softmax_cross_entropy, functools.partial(_of_top_classes, tail="bucket")
_drop = functools.partial(_of_top_classes, tail="drop")
_plain, _module, _own_module = peer("cross_entropy"), peer("module"), peer("lsmooth_module")

_WORKS = (
    _Work("cross-entropy, distributions", _LOGITS, _distributions, lambda z, q: _loss(q, z), _plain, 3.0),
    _Work(
        "cross-entropy, class weights",
        _LOGITS,
        _ids_and_weights,
        lambda z, y, w: _loss(y, z, class_weight=w),
        _plain,
        3.0,
    ),
    _Work("cross-entropy, z-loss", _LOGITS, _ids, lambda z, y: _loss(y, z, z_loss=1e-4), peer("z_loss"), 3.0),
    _Work(
        "cross-entropy, temperature per row",
        _LOGITS,
        lambda shape: (*_ids(shape), _scales(shape[0])),
        lambda z, y, t: _loss(y, z, temperature=t),
        peer("cross_entropy_with_temperatures"),
        3.0,
    ),
    _Work(
        "cross-entropy, a masked class",
        _LOGITS,
        lambda shape: (*_ids(shape), np.where(np.arange(shape[1]) == 0, -np.inf, 0.0).astype(np.float32)),
        lambda z, y, m: _loss(y.clamp_min(1), z + m, label_smoothing=EPS),
        peer("cross_entropy_after_adding"),
    ),
    _Work(
        "cross-entropy, no reduction",
        _LOGITS,
        _ids,
        lambda z, y: _loss(y, z, label_smoothing=EPS, reduction="none").sum(),
        peer("cross_entropy_of_rows"),
    ),
    _Work("cross-entropy, module", _BATCHES, _ids, _own_module, _module),
    _Work("cross-entropy, module, a quarter of the rows ignored", _BATCHES, _few_ignored, _own_module, _module),
    _Work("cross-entropy, compat.torch", _BATCHES, _ids, compat.cross_entropy, _plain),
    _Work("cross-entropy, image", _IMAGES, _ids, lambda z, y: _loss(y, z, axis=1), _plain),
    _Work(
        "cross-entropy, image, class weights",
        _IMAGES,
        _ids_and_weights,
        lambda z, y, w: _loss(y, z, axis=1, class_weight=w),
        _plain,
    ),
    _Work(
        "cross-entropy, image, a tenth of the pixels ignored",
        _IMAGES,
        lambda shape: _ignored_pixels_and_weights(shape)[:1],
        lambda z, y: _loss(y, z, axis=1, ignore_index=-100),
        _plain,
    ),
    _Work(
        "cross-entropy, image, class weights, a tenth of the pixels ignored",
        _IMAGES,
        _ignored_pixels_and_weights,
        lambda z, y, w: _loss(y, z, axis=1, class_weight=w, ignore_index=-100),
        _plain,
    ),
    _Work(
        "sigmoid focal loss",
        ((2, 1, 16, 16), (8, 1, 512, 512)),
        lambda shape: (_binary(shape),),
        lambda z, t: losses.sigmoid_focal_loss(t, z, alpha=0.25),
        peer("sigmoid_focal"),
    ),
    _Work(
        "sigmoid cross-entropy, pos_weight",
        _MANY_LABELS,
        lambda shape: (_binary(shape), np.full((shape[1], 1, 1), 2.0, np.float32)),
        lambda z, t, w: losses.sigmoid_cross_entropy(t, z, pos_weight=w),
        peer("sigmoid_cross_entropy_with_pos_weight"),
    ),
    _Work(
        "sigmoid cross-entropy, mask",
        _MANY_LABELS,
        lambda shape: (_binary(shape), _normal(shape) > 0),
        lambda z, t, m: losses.sigmoid_cross_entropy(t, z, mask=m),
        peer("sigmoid_cross_entropy_with_mask"),
    ),
    _Work(
        "sigmoid cross-entropy, no reduction",
        _MANY_LABELS,
        lambda shape: (_binary(shape),),
        lambda z, t: losses.sigmoid_cross_entropy(t, z, reduction="none").sum(),
        peer("sigmoid_cross_entropy_of_elements"),
    ),
    _Work(
        "KL of images, T = 2",
        _IMAGES,
        lambda shape: (_normal(shape),),
        lambda z, t: distillation.distillation_loss(t, z, temperature=TEMPERATURE, axis=1),
        peer("forward_kl_of_images"),
    ),
    _Work("top-k teacher, bucket", _TEACHER, _largest, _bucket, peer("top_classes", tail="bucket", temperature=1.0)),
    _Work("top-k teacher, bucket beside drop", _TEACHER, _largest, _bucket, _drop, 1 / 1.5),
    _Work(
        "linear head, 95% of the rows ignored",
        ((40, 16), (2048, 512)),
        _head_of_one_in_twenty,
        lambda h, w, y: losses.linear_softmax_cross_entropy(y, h, w, ignore_index=-100),
        peer("linear_cross_entropy_of_one_in_twenty"),
        1 / 1.3,
    ),
)
