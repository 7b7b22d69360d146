"""A linear layer and the loss of its logits, or the log-probabilities of sequences, in one call or two."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from lsmooth import distillation, losses, preference
from lsmooth.bench.rows import Call, Plan, Row, Setup
from lsmooth.bench.suites import _frameworks as frameworks

EPS, TEMPERATURE = 0.1, 2.0
# Rows, features, classes.
LARGE, SMALL = (4096, 512, 32000), (64, 16, 500)
SMOOTHED = "linear layer and smoothed cross-entropy, loss and gradients"
COUNTED = "linear layer, smoothed cross-entropy and statistics, loss and gradients"
PLAIN = "linear layer and cross-entropy, loss and gradients"
DISTILLED = "linear layers of teacher and student and their KL, T = 2, loss and the student's gradients"
PREFERRED = "linear layer, log-probabilities of sequences and their DPO loss, loss and gradients"
# Of the tokens, so many are a sequence; the first half of the sequences are those that were chosen.
SEQUENCES = 16
TOP = "linear layer and a teacher's 64 largest classes, bucket, T = 2, loss and gradients"
KEPT = 64
# At least so many times faster than the peer; at most so many times the logits' memory.
BARS: Mapping[str, Mapping[str, float]] = {
    "torch": {"matmul, F.cross_entropy": 1 / 0.7, "matmul, F.kl_div": 1 / 0.7, "matmul, formula": 1.0, "memory": 0.4},
    "jax": {"matmul, optax": 1 / 0.7, "memory": 0.4},
    "tensorflow, function": {"matmul, tf.losses": 1.0, "matmul, keras": 1.0},
}

Step = Callable[..., Any]
"""A framework's scalar loss as a function of hidden states and weight, and of what is held fast."""

Arrays = Callable[[], list[np.ndarray]]

Makers = Mapping[str, Callable[[], Step]]


def rows(plan: Plan) -> Iterator[Row]:
    """The suite: the cross-entropy and the KL beside the loss of logits that are there as a whole."""
    size = SMALL if plan.quick else LARGE
    ids = [np.random.default_rng(0).integers(0, size[2], size[0])]
    if frameworks.wanted(plan, "torch"):
        smoothed = {"lsmooth": lambda: _ours_smoothed(EPS), "matmul, F.cross_entropy": _torch_smoothed}
        plain = {"lsmooth": lambda: _ours_smoothed(0.0), "F.linear_cross_entropy": _torch_chunked}
        distilled = {"lsmooth": _ours_distilled, "matmul, F.kl_div": _torch_distilled}
        if frameworks.has_gpu_peer(plan, "liger-kernel"):
            smoothed["Liger-Kernel"] = lambda: _liger_smoothed(EPS)
            plain["Liger-Kernel"] = lambda: _liger_smoothed(0.0)
            distilled["Liger-Kernel"] = _liger_distilled
        if frameworks.has_gpu_peer(plan, "cut-cross-entropy"):
            plain["cut-cross-entropy"] = _cut_cross_entropy
        setup = functools.partial(_torch, plan)
        yield _row(SMOOTHED, "torch", size, smoothed, setup, ids)
        yield _row(PLAIN, "torch", size, plain, setup, ids)
        counted = {"lsmooth": _ours_with_statistics, "loss alone": lambda: _ours_smoothed(EPS)}
        yield _row(COUNTED, "torch", size, counted, setup, ids)
        yield _row(DISTILLED, "torch", size, distilled, setup)
        preferred = {"lsmooth": _ours_preferred, "matmul, log_softmax": _torch_preferred}
        yield _row(PREFERRED, "torch", size, preferred, setup, ids)
        kept = top_classes(size[0], size[2], KEPT)
        makers = {"lsmooth": _ours_of_top_classes, "matmul, formula": _torch_of_top_classes}
        yield _row(TOP, "torch", size, makers, setup, kept)
    if frameworks.wanted(plan, "jax"):
        smoothed = {"lsmooth": lambda: _ours_smoothed(EPS), "matmul, optax": _optax_smoothed}
        distilled = {"lsmooth": _ours_distilled, "matmul, optax": _optax_distilled}
        yield _row(SMOOTHED, "jax", size, smoothed, _jax, ids)
        yield _row(DISTILLED, "jax", size, distilled, _jax)
        preferred = {"lsmooth": _ours_preferred, "matmul, log_softmax": _jax_preferred}
        yield _row(PREFERRED, "jax", size, preferred, _jax, ids)
    if frameworks.wanted(plan, "tensorflow"):
        smoothed = {"lsmooth": lambda: _ours_smoothed(EPS), "matmul, tf.losses": _tensorflow_smoothed}
        distilled = {"lsmooth": _ours_distilled, "matmul, keras": _keras_distilled}
        yield _row(SMOOTHED, "tensorflow, function", size, smoothed, _tensorflow, ids)
        yield _row(DISTILLED, "tensorflow, function", size, distilled, _tensorflow)


def _row(
    work: str,
    backend: str,
    size: tuple[int, int, int],
    makers: Makers,
    setup: Callable[..., Setup],
    held: list[np.ndarray] | None = None,
) -> Row:
    """``held`` is what is held fast; without it, the teacher's hidden states and weight are."""
    num_rows, features, classes = size

    @functools.cache
    def heads() -> list[np.ndarray]:
        rng = np.random.default_rng(1)
        return [
            scale * rng.standard_normal(shape, np.float32)
            for _ in range(2 if held is None else 1)
            for scale, shape in ((1.0, (num_rows, features)), (0.05, (classes, features)))
        ]

    def given() -> list[np.ndarray]:
        return heads()[2:] if held is None else held

    setups = {name: setup(lambda: heads()[:2], given, maker) for name, maker in makers.items()}
    unit = 4 * num_rows * classes if classes == LARGE[2] else 0
    bars = {name: bar for name, bar in BARS[backend].items() if unit and name in ("memory", *makers)}
    sizes = {"rows": num_rows, "features": features, "classes": classes}
    return Row(work, backend, sizes, setups, unit_bytes=unit, bars=bars)


def _torch(plan: Plan, head: Arrays, given: Arrays, loss: Callable[[], Step]) -> Setup:
    def setup() -> Call:
        h, w = (frameworks.torch_tensor(plan, x).requires_grad_() for x in head())
        others = [frameworks.torch_tensor(plan, x) for x in given()]
        function = loss()

        def step() -> None:
            h.grad = w.grad = None
            function(h, w, *others).backward()

        return frameworks.torch_call(plan, step)

    return setup


def _jax(head: Arrays, given: Arrays, loss: Callable[[], Step]) -> Setup:
    def setup() -> Call:
        import jax

        arrays = [jax.numpy.asarray(x) for x in (*head(), *given())]
        function = jax.jit(jax.value_and_grad(loss(), (0, 1))).lower(*arrays).compile()
        return lambda: jax.block_until_ready(function(*arrays))

    return setup


def _tensorflow(head: Arrays, given: Arrays, loss: Callable[[], Step]) -> Setup:
    def setup() -> Call:
        import tensorflow as tf

        arrays = [tf.constant(x) for x in (*head(), *given())]
        function = loss()

        @tf.function
        def step(h: Any, w: Any, *others: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([h, w])
                value = function(h, w, *others)
            return *tape.gradient(value, [h, w]), value

        def call() -> None:
            of_hidden, of_weight, value = step(*arrays)
            # Reading one number waits for all of them, on a GPU too, whose work is done in order.
            of_hidden[0, 0].numpy(), of_weight[0, 0].numpy(), value.numpy()

        return call

    return setup


def top_classes(num_rows: int, classes: int, kept: int) -> list[np.ndarray]:
    """Class ids, each once in its row, and log-probabilities that leave a tenth of the mass to the others."""
    rng = np.random.default_rng(2)
    first = rng.integers(0, classes, (num_rows, 1))
    probs = 0.9 * rng.dirichlet(np.ones(kept), num_rows)
    return [(first + np.arange(kept)) % classes, np.log(probs).astype(np.float32)]


def _ours_of_top_classes() -> Step:
    options: dict[str, Any] = {"tail": "bucket", "temperature": TEMPERATURE}
    return lambda h, w, i, log_t: distillation.linear_sparse_distillation_loss(i, log_t, h, w, **options)


def _torch_of_top_classes() -> Step:
    loss = torch_top_classes("bucket")
    return lambda h, w, i, log_t: loss(h @ w.T, i, log_t)


def torch_top_classes(tail: str) -> Step:
    """The forward KL to a teacher's largest classes in PyTorch's functions, from all log-probabilities."""
    import torch
    from torch.nn.functional import log_softmax

    def with_rest(log_p: Any) -> Any:
        return torch.cat([log_p, torch.log1p(-log_p.exp().sum(-1, keepdim=True))], -1)

    def loss(z: Any, i: Any, log_t: Any) -> Any:
        pair = [log_t, log_softmax(z, -1).gather(-1, i)]
        pair = pair if tail == "renormalize" else [with_rest(log_p) for log_p in pair]
        log_t, log_s = (log_softmax(log_p / TEMPERATURE, -1) for log_p in pair)
        terms = log_t.exp() * (log_t - log_s)
        return TEMPERATURE**2 * (terms[:, :-1] if tail == "drop" else terms).sum(-1).mean()

    return loss


def _ours_smoothed(eps: float) -> Step:
    return lambda h, w, y: losses.linear_softmax_cross_entropy(y, h, w, label_smoothing=eps)


def _ours_with_statistics() -> Step:
    loss = losses.linear_softmax_cross_entropy_with_statistics
    return lambda h, w, y: loss(y, h, w, label_smoothing=EPS)[0]


def _ours_distilled() -> Step:
    return lambda h, w, th, tw: distillation.linear_distillation_loss(th, tw, h, w, temperature=TEMPERATURE)


def _ours_preferred() -> Step:
    def loss(h: Any, w: Any, y: Any) -> Any:
        log_p = preference.linear_sequence_log_prob(y.reshape(SEQUENCES, -1), h.reshape(SEQUENCES, -1, h.shape[-1]), w)
        chosen, rejected = log_p[: SEQUENCES // 2], log_p[SEQUENCES // 2 :]
        return preference.dpo_loss(chosen, rejected, 0.0 * chosen, 0.0 * rejected)

    return loss


def _torch_preferred() -> Step:
    from torch.nn.functional import log_softmax, logsigmoid

    def loss(h: Any, w: Any, y: Any) -> Any:
        tokens = log_softmax(h @ w.T, -1).gather(-1, y[:, None])
        log_p = tokens.reshape(SEQUENCES, -1).sum(-1)
        return -logsigmoid(0.1 * (log_p[: SEQUENCES // 2] - log_p[SEQUENCES // 2 :])).mean()

    return loss


def _jax_preferred() -> Step:
    import jax

    def loss(h: Any, w: Any, y: Any) -> Any:
        tokens = jax.numpy.take_along_axis(jax.nn.log_softmax(h @ w.T), y[:, None], -1)
        log_p = tokens.reshape(SEQUENCES, -1).sum(-1)
        return -jax.nn.log_sigmoid(0.1 * (log_p[: SEQUENCES // 2] - log_p[SEQUENCES // 2 :])).mean()

    return loss


def _torch_smoothed() -> Step:
    from torch.nn.functional import cross_entropy

    return lambda h, w, y: cross_entropy(h @ w.T, y, label_smoothing=EPS)


def _torch_chunked() -> Step:
    """PyTorch's own way through the rows in blocks, which does not know smoothing."""
    import torch
    from torch.nn.functional import linear_cross_entropy

    options = torch.nn.LinearCrossEntropyOptions()
    return lambda h, w, y: linear_cross_entropy(h, w, y, options=options)


def _liger_smoothed(eps: float) -> Step:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # type: ignore[import-not-found]

    loss = LigerFusedLinearCrossEntropyLoss(label_smoothing=eps)
    return lambda h, w, y: loss(w, h, y)


def _cut_cross_entropy() -> Step:
    """It does not know smoothing."""
    from cut_cross_entropy import linear_cross_entropy  # type: ignore[import-not-found]

    return linear_cross_entropy


def _liger_distilled() -> Step:
    """Its generalised JSD, which is the forward KL at beta 0."""
    from liger_kernel.transformers.functional import liger_fused_linear_jsd  # type: ignore[import-not-found]

    options = {"jsd_beta": 0.0, "temperature": TEMPERATURE}
    return lambda h, w, th, tw: TEMPERATURE**2 * liger_fused_linear_jsd(h, w, th, tw, **options)


def _torch_distilled() -> Step:
    from torch.nn.functional import kl_div, log_softmax, softmax

    def loss(h: Any, w: Any, th: Any, tw: Any) -> Any:
        p, log_q = softmax(th @ tw.T / TEMPERATURE, -1), log_softmax(h @ w.T / TEMPERATURE, -1)
        return TEMPERATURE**2 * kl_div(log_q, p, reduction="batchmean")

    return loss


def _optax_smoothed() -> Step:
    import jax
    import optax

    def loss(h: Any, w: Any, y: Any) -> Any:
        onehot = jax.nn.one_hot(y, w.shape[0])
        return optax.softmax_cross_entropy(h @ w.T, optax.smooth_labels(onehot, EPS)).mean()

    return loss


def _optax_distilled() -> Step:
    import jax
    import optax

    def loss(h: Any, w: Any, th: Any, tw: Any) -> Any:
        log_t, log_s = (jax.nn.log_softmax(z / TEMPERATURE) for z in (th @ tw.T, h @ w.T))
        return TEMPERATURE**2 * optax.losses.kl_divergence_with_log_targets(log_s, log_t).mean()

    return loss


def _tensorflow_smoothed() -> Step:
    import tensorflow as tf

    def loss(h: Any, w: Any, y: Any) -> Any:
        logits = tf.matmul(h, w, transpose_b=True)
        onehot = tf.one_hot(y, w.shape[0])
        return tf.compat.v1.losses.softmax_cross_entropy(onehot, logits, label_smoothing=EPS)

    return loss


def _keras_distilled() -> Step:
    import keras
    import tensorflow as tf

    divergence: Any = keras.losses.KLDivergence()

    def loss(h: Any, w: Any, th: Any, tw: Any) -> Any:
        t, s = (tf.nn.softmax(tf.matmul(a, b, transpose_b=True) / TEMPERATURE) for a, b in ((th, tw), (h, w)))
        return TEMPERATURE**2 * divergence(t, s)

    return loss
