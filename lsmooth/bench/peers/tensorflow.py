"""Losses in TensorFlow's and Keras' own functions."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from lsmooth.bench.suites._frameworks import EPS, TEMPERATURE

_kl_divergence: Any = keras.losses.KLDivergence()


def cross_entropy(x: Any, y: Any) -> Any:
    """Smoothed one-hot labels."""
    onehot = tf.one_hot(y, x.shape[-1])
    return tf.compat.v1.losses.softmax_cross_entropy(onehot, x, label_smoothing=EPS)


def focal(x: Any, y: Any) -> Any:
    """The formula over the cross-entropy."""
    nll = tf.nn.sparse_softmax_cross_entropy_with_logits(y, x)
    return tf.reduce_mean((1 - tf.exp(-nll)) ** 2 * nll)


def sigmoid_cross_entropy(x: Any, y: Any) -> Any:
    """Smoothed by eps / 2."""
    return tf.compat.v1.losses.sigmoid_cross_entropy(y, x, label_smoothing=EPS)


def forward_kl(x: Any, teacher: Any) -> Any:
    """KL(teacher, student)."""
    return TEMPERATURE**2 * _kl_divergence(tf.nn.softmax(teacher / TEMPERATURE), tf.nn.softmax(x / TEMPERATURE))


def linear_cross_entropy(h: Any, w: Any, y: Any) -> Any:
    """The head, then the smoothed loss."""
    return cross_entropy(tf.matmul(h, w, transpose_b=True), y)


def linear_forward_kl(h: Any, w: Any, teacher_h: Any, teacher_w: Any) -> Any:
    """Both heads, then the forward KL."""
    return forward_kl(tf.matmul(h, w, transpose_b=True), tf.matmul(teacher_h, teacher_w, transpose_b=True))
