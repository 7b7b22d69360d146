"""Smoothed cross-entropy, loss and gradient: every installed backend beside its native peer.

    python -m benchmarks.cross_entropy [--rows 2048] [--classes 32000]

Everything runs in one process in alternating blocks whose first run is dropped. Times are
medians, given as a ratio to a plain copy of the logits, and of lsmooth to its peer.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lsmooth.losses import softmax_cross_entropy

EPS = 0.1
Case = Callable[[], Any]


def torch_cases(logits: np.ndarray, labels: np.ndarray) -> dict[str, Case]:
    """PyTorch, eager, beside ``F.cross_entropy``."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    z, y = torch.from_numpy(logits), torch.from_numpy(labels).long()
    warm = torch.empty_like(z)

    def run(loss: Callable[[Any], Any]) -> Case:
        def step() -> None:
            x = z.detach().requires_grad_()
            torch.autograd.grad(loss(x), x)

        return step

    return {
        "copy": lambda: warm.copy_(z),
        "torch peer": run(lambda x: F.cross_entropy(x, y, label_smoothing=EPS)),
        "torch lsmooth": run(lambda x: softmax_cross_entropy(y, x, label_smoothing=EPS)),
    }


def jax_cases(logits: np.ndarray, labels: np.ndarray) -> dict[str, Case]:
    """JAX under jit, beside optax with smoothed one-hot labels."""
    import jax
    import jax.numpy as jnp
    import optax

    z, y = jnp.asarray(logits), jnp.asarray(labels)
    peer = jax.jit(
        jax.value_and_grad(
            lambda x: optax.softmax_cross_entropy(x, optax.smooth_labels(jax.nn.one_hot(y, x.shape[-1]), EPS)).mean()
        )
    )
    ours = jax.jit(jax.value_and_grad(lambda x: softmax_cross_entropy(y, x, label_smoothing=EPS)))
    twice = jax.jit(lambda x: x * 2)
    return {
        "jax x*2": lambda: jax.block_until_ready(twice(z)),
        "jax peer": lambda: jax.block_until_ready(peer(z)),
        "jax lsmooth": lambda: jax.block_until_ready(ours(z)),
    }


def tensorflow_cases(logits: np.ndarray, labels: np.ndarray) -> dict[str, Case]:
    """TensorFlow in a plain ``tf.function`` and under XLA, beside ``tf.compat.v1.losses``."""
    import tensorflow as tf

    z, y = tf.constant(logits), tf.constant(labels)

    def run(loss: Callable[[Any], Any], jit_compile: bool) -> Case:
        def both(x: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(x)
            return value, tape.gradient(value, x)

        function = tf.function(both, jit_compile=jit_compile)
        return lambda: function(z)[1][0, 0].numpy()

    def peer(x: Any) -> Any:
        onehot = tf.one_hot(y, logits.shape[-1])
        return tf.compat.v1.losses.softmax_cross_entropy(onehot, x, label_smoothing=EPS)

    def ours(x: Any) -> Any:
        return softmax_cross_entropy(y, x, label_smoothing=EPS)

    return {
        "tensorflow peer": run(peer, False),
        "tensorflow lsmooth": run(ours, False),
        "tensorflow-xla peer": run(peer, True),
        "tensorflow-xla lsmooth": run(ours, True),
    }


def measure(cases: dict[str, Case], rounds: int = 4) -> dict[str, float]:
    """The median seconds of each case, in alternating blocks of three runs, the first dropped."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            case()
            for _ in range(2):
                start = time.perf_counter()
                case()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=32000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((args.rows, args.classes), np.float32)
    labels = rng.integers(0, args.classes, args.rows).astype(np.int32)
    warm = np.empty_like(logits)
    cases: dict[str, Case] = {"copy": lambda: np.copyto(warm, logits)}
    for package, build in (("torch", torch_cases), ("jax", jax_cases), ("tensorflow", tensorflow_cases)):
        if importlib.util.find_spec(package):
            cases |= build(logits, labels)
    seconds = measure(cases)
    print(f"Smoothed cross-entropy, {args.rows} x {args.classes}, float32, loss and gradient\n")
    print("| case | copies of the logits | peer / lsmooth |\n|---|---|---|")
    for name, value in seconds.items():
        peer = seconds.get(name.replace("lsmooth", "peer"))
        ratio = f"{peer / value:.1f}" if peer and "lsmooth" in name else ""
        print(f"| {name} | {value / seconds['copy']:.2f} | {ratio} |")


if __name__ == "__main__":
    main()
