"""Smoothed softmax cross-entropy, sigmoid cross-entropy and focal loss, with their gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from lsmooth import losses
from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.suites import _frameworks as frameworks
from lsmooth.bench.suites._torch_options import option_rows

EPS = 0.1
CROSS_ENTROPY = "smoothed cross-entropy"
# Rows, classes; the bars hold for the first and the last of them.
LARGE, TOKENS, SMALL = (2048, 32000), (256, 262144), (32, 10)


def rows(plan: Plan) -> Iterator[Row]:
    """The suite."""
    for size in ((64, 1000), SMALL) if plan.quick else (LARGE, TOKENS, SMALL):
        yield from cross_entropy_rows(plan, size, BARS.get(size, {}))
    yield from _statistics_rows(plan, (64, 1000) if plan.quick else LARGE)
    for size in ((64, 100),) if plan.quick else ((4096, 4000),):
        yield from _sigmoid_rows(plan, size)
        yield from _focal_rows(plan, size)
    yield from option_rows(plan)


BARS: Mapping[tuple[int, int], Mapping[str, Mapping[str, float]]] = {
    LARGE: {
        "torch": {"copies": 3.0, "F.cross_entropy": 5.0, "F.cross_entropy, compiled": 2.5, "memory": 1.05},
        "jax": {"copies": 1.8, "optax, one-hot": 2.5},
        "tensorflow, eager": {"copies": 7.0, "tf.losses": 2.0},
        "tensorflow, function": {"copies": 7.0, "tf.losses": 2.0},
        "tensorflow, XLA": {"copies": 4.0, "tf.losses": 2.0},
    },
    # A peer's 1 / 1.1: no more than 10% over it.
    SMALL: {
        "torch": {"F.cross_entropy": 1 / 0.6},
        "jax": {"optax, one-hot": 1 / 1.1},
        "tensorflow, function": {"tf.losses": 1 / 1.1},
        "tensorflow, XLA": {"tf.losses": 1 / 1.1},
    },
}


def cross_entropy_rows(
    plan: Plan, size: tuple[int, int], bars: Mapping[str, Mapping[str, float]], work: str = CROSS_ENTROPY
) -> Iterator[Row]:
    """One row for each framework, and for each of its modes, at one size."""
    logits = functools.cache(lambda: np.random.default_rng(0).standard_normal(size, np.float32))
    ids = np.random.default_rng(1).integers(0, size[1], size[0]).astype(np.int32)
    row = functools.partial(_row, work, size, bars)

    if frameworks.wanted(plan, "torch"):
        step = functools.partial(_torch_step, plan, logits, ids)
        contenders = {"lsmooth": step(_smoothed), "F.cross_entropy": step(_torch_peer)}
        copy = frameworks.torch_copy(plan, logits)
        if frameworks.has_gpu_peer(plan, "liger-kernel"):
            contenders["Liger-Kernel"] = step(_liger_peer)
        if not frameworks.can_compile_torch(plan):
            yield row("torch", contenders, copy)
        else:
            compiled = {"F.cross_entropy, compiled": step(_torch_peer, compiled=True)}
            yield row("torch", contenders | compiled, copy)
            yield row("torch, compiled", {"lsmooth": step(_smoothed, compiled=True)} | compiled, copy)
    if frameworks.wanted(plan, "jax"):
        contenders = {
            "lsmooth": frameworks.jax_step(logits, _smoothed, lambda: ids),
            "optax, one-hot": frameworks.jax_step(logits, _optax_peer, lambda: ids),
        }
        yield row("jax", contenders, frameworks.jax_copy(logits))
    if frameworks.wanted(plan, "tensorflow"):
        for mode in ("eager", "function", "unknown batch", "XLA"):
            contenders = {
                "lsmooth": frameworks.tensorflow_step(logits, lambda: _ours(ids), mode),
                "tf.losses": frameworks.tensorflow_step(logits, lambda: _tensorflow_peer(ids), mode),
            }
            # The bar is in copies into warm memory, which NumPy's is too.
            yield row(f"tensorflow, {mode}", contenders, frameworks.tensorflow_copy(plan, logits))


def _row(work: str, size: tuple[int, int], bars: Mapping[str, Any], backend: str, contenders: Any, copy: Any) -> Row:
    sizes = {"rows": size[0], "classes": size[1]}
    unit = 4 * size[0] * size[1] if size[0] * size[1] >= 2**20 else 0
    return Row(f"{work}, loss and gradient", backend, sizes, contenders, copy, unit, bars.get(backend, {}))


def _statistics_rows(plan: Plan, size: tuple[int, int]) -> Iterator[Row]:
    """The loss with the statistics of its rows, which get no gradient, beside the loss alone."""
    logits = functools.cache(lambda: np.random.default_rng(0).standard_normal(size, np.float32))
    ids = np.random.default_rng(1).integers(0, size[1], size[0]).astype(np.int32)
    row = functools.partial(_row, f"{CROSS_ENTROPY} and statistics", size, {})
    if frameworks.wanted(plan, "torch"):
        step = functools.partial(_torch_step, plan, logits, ids)
        contenders = {"lsmooth": step(_with_statistics(_detached)), "loss alone": step(_smoothed)}
        contenders["F.cross_entropy, log_softmax"] = step(_torch_statistics)
        yield row("torch", contenders, frameworks.torch_copy(plan, logits))
    if frameworks.wanted(plan, "jax"):
        step = functools.partial(frameworks.jax_step, logits)
        contenders = {
            "lsmooth": step(_with_statistics(_stopped_by_jax), lambda: ids),
            "loss alone": step(_smoothed, lambda: ids),
        }
        yield row("jax", contenders, frameworks.jax_copy(logits))
    if frameworks.wanted(plan, "tensorflow"):
        ours = _with_statistics(_stopped_by_tensorflow)
        contenders = {
            "lsmooth": frameworks.tensorflow_step(logits, lambda: lambda x: ours()(x, ids), "function"),
            "loss alone": frameworks.tensorflow_step(logits, lambda: _ours(ids), "function"),
        }
        yield row("tensorflow, function", contenders, frameworks.tensorflow_copy(plan, logits))


def _with_statistics(stopped: Callable[[Any], Any]) -> Callable[[], Any]:
    """Makes a loss that computes the statistics too: compilers leave out what no result needs."""

    def loss(x: Any, y: Any) -> Any:
        value, statistics = losses.softmax_cross_entropy_with_statistics(y, x, label_smoothing=EPS)
        return value + 1e-30 * stopped(statistics)

    return lambda: loss


def _detached(statistics: losses.SoftmaxStatistics) -> Any:
    return sum(x.detach().sum() for x in statistics)


def _stopped_by_jax(statistics: losses.SoftmaxStatistics) -> Any:
    import jax

    return sum(jax.lax.stop_gradient(x).sum() for x in statistics)


def _stopped_by_tensorflow(statistics: losses.SoftmaxStatistics) -> Any:
    import tensorflow as tf

    return sum(tf.reduce_sum(tf.cast(tf.stop_gradient(x), tf.float32)) for x in statistics)


def _torch_statistics() -> Any:
    import torch

    functional = torch.nn.functional

    def loss(x: Any, y: Any) -> Any:
        with torch.no_grad():
            log_p = functional.log_softmax(x, -1)
            entropy = -(log_p.exp() * log_p).sum()
            statistics = entropy + log_p.gather(-1, y[:, None]).sum() + (x.argmax(-1) == y).sum()
        return functional.cross_entropy(x, y, label_smoothing=EPS) + 1e-30 * statistics

    return loss


def _ours(ids: np.ndarray) -> Any:
    return lambda x: losses.softmax_cross_entropy(ids, x, label_smoothing=EPS)


def _torch_step(plan: Plan, logits: frameworks.Data, ids: np.ndarray, loss: Any, compiled: bool = False) -> Any:
    """With the labels as PyTorch's losses want them, int64."""
    return frameworks.torch_step(plan, logits, loss, lambda: ids.astype(np.int64), compiled=compiled)


def _smoothed() -> Any:
    return lambda x, y: losses.softmax_cross_entropy(y, x, label_smoothing=EPS)


def _torch_peer() -> Any:
    import torch

    return lambda x, y: torch.nn.functional.cross_entropy(x, y, label_smoothing=EPS)


def _liger_peer() -> Any:
    """It writes the gradient over the logits, which are those of the last gradient from the second call on."""
    from liger_kernel.transformers import LigerCrossEntropyLoss  # type: ignore[import-not-found]

    return LigerCrossEntropyLoss(label_smoothing=EPS)


def _optax_peer() -> Any:
    import jax
    import optax

    def loss(x: Any, y: Any) -> Any:
        onehot = jax.nn.one_hot(y, x.shape[-1])
        return optax.softmax_cross_entropy(x, optax.smooth_labels(onehot, EPS)).mean()

    return loss


def _tensorflow_peer(ids: np.ndarray) -> Any:
    import tensorflow as tf

    def loss(x: Any) -> Any:
        onehot = tf.one_hot(ids, x.shape[-1])
        return tf.compat.v1.losses.softmax_cross_entropy(onehot, x, label_smoothing=EPS)

    return loss


def _sigmoid_rows(plan: Plan, size: tuple[int, int]) -> Iterator[Row]:
    """Binary cross-entropy of every logit, smoothed by eps / 2."""
    logits = functools.cache(lambda: np.random.default_rng(0).standard_normal(size, np.float32))
    labels = functools.cache(lambda: (np.random.default_rng(1).random(size) < 0.1).astype(np.float32))

    def ours() -> Any:
        return lambda x, y: losses.sigmoid_cross_entropy(y, x, label_smoothing=EPS)

    def torch_peer() -> Any:
        import torch

        functional = torch.nn.functional
        return lambda x, y: functional.binary_cross_entropy_with_logits(x, y * (1 - EPS) + EPS / 2)

    def optax_peer() -> Any:
        import optax

        return lambda x, y: optax.sigmoid_binary_cross_entropy(x, y * (1 - EPS) + EPS / 2).mean()

    def tensorflow_ours() -> Any:
        import tensorflow as tf

        y = tf.constant(labels())
        return lambda x: losses.sigmoid_cross_entropy(y, x, label_smoothing=EPS)

    def tensorflow_peer() -> Any:
        import tensorflow as tf

        y, sigmoid = tf.constant(labels()), tf.compat.v1.losses.sigmoid_cross_entropy
        return lambda x: sigmoid(y, x, label_smoothing=EPS)

    yield from _elementwise_rows(
        plan,
        "smoothed sigmoid cross-entropy",
        size,
        logits,
        {
            "torch": (ours, torch_peer),
            "jax": (ours, optax_peer),
            "tensorflow": (tensorflow_ours, tensorflow_peer),
        },
        {"torch": "F.binary_cross_entropy_with_logits", "jax": "optax", "tensorflow": "tf.losses"},
        labels,
    )


def _focal_rows(plan: Plan, size: tuple[int, int]) -> Iterator[Row]:
    """The focal loss of a softmax; the peers are its formula in the framework's own functions."""
    logits = functools.cache(lambda: np.random.default_rng(0).standard_normal(size, np.float32))
    ids = np.random.default_rng(1).integers(0, size[1], size[0]).astype(np.int32)

    def ours() -> Any:
        return lambda x, y: losses.softmax_focal_loss(y, x, gamma=2.0)

    def torch_peer() -> Any:
        import torch

        def loss(x: Any, y: Any) -> Any:
            nll = torch.nn.functional.cross_entropy(x, y, reduction="none")
            return ((1 - torch.exp(-nll)) ** 2 * nll).mean()

        return loss

    def optax_peer() -> Any:
        import jax.numpy as jnp
        import optax

        def loss(x: Any, y: Any) -> Any:
            nll = optax.softmax_cross_entropy_with_integer_labels(x, y)
            return ((1 - jnp.exp(-nll)) ** 2 * nll).mean()

        return loss

    def tensorflow_ours() -> Any:
        return lambda x: losses.softmax_focal_loss(ids, x, gamma=2.0)

    def tensorflow_peer() -> Any:
        import tensorflow as tf

        def loss(x: Any) -> Any:
            nll = tf.nn.sparse_softmax_cross_entropy_with_logits(ids, x)
            return tf.reduce_mean((1 - tf.exp(-nll)) ** 2 * nll)

        return loss

    formula = "the formula over its cross-entropy"
    yield from _elementwise_rows(
        plan,
        "focal loss",
        size,
        logits,
        {"torch": (ours, torch_peer), "jax": (ours, optax_peer), "tensorflow": (tensorflow_ours, tensorflow_peer)},
        dict.fromkeys(("torch", "jax", "tensorflow"), formula),
        lambda: ids.astype(np.int64),
    )


def _elementwise_rows(
    plan: Plan,
    work: str,
    size: tuple[int, int],
    logits: Callable[[], np.ndarray],
    pairs: Mapping[str, tuple[Any, Any]],
    peers: Mapping[str, str],
    *others: frameworks.Data,
) -> Iterator[Row]:
    steps: dict[str, Any] = {
        "torch": lambda loss: frameworks.torch_step(plan, logits, loss, *others),
        "jax": lambda loss: frameworks.jax_step(logits, loss, *others),
    }
    for mode in ("eager", "function", "XLA"):
        steps[f"tensorflow, {mode}"] = functools.partial(frameworks.tensorflow_step, logits, mode=mode)
    for name, step in steps.items():
        backend = name.partition(",")[0]
        if frameworks.wanted(plan, backend):
            ours, peer = pairs[backend]
            contenders = {"lsmooth": step(ours), peers[backend]: step(peer)}
            yield _row(work, size, {}, name, contenders, frameworks.copy(plan, backend, logits))
