"""Losses of `tf.RaggedTensor`s are those of their flat values, as long as the classes are not the ragged axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import require_backend

from lsmooth import distillation, losses, metrics

LENGTHS = [2, 0, 3]
CLASSES = 4


@pytest.fixture
def tf():
    require_backend("tensorflow")
    return pytest.importorskip("tensorflow")


def ragged(tf, flat):
    return tf.RaggedTensor.from_row_lengths(flat, LENGTHS)


def data(tf):
    """Class ids, distributions and logits of five rows in a batch of three."""
    rng = np.random.default_rng(0)
    ids, soft = rng.integers(CLASSES, size=5), rng.dirichlet(np.ones(CLASSES), 5)
    return tf.constant(ids), tf.constant(soft), tf.constant(rng.normal(size=(5, CLASSES)))


OF_IDS = {
    "softmax": losses.softmax_cross_entropy,
    "options": lambda labels, logits, **options: losses.softmax_cross_entropy(
        labels, logits, label_smoothing=0.1, class_weight=np.arange(1.0, 5.0), ignore_index=1, z_loss=0.1, **options
    ),
    "focal": losses.softmax_focal_loss,
    "poly": losses.poly_cross_entropy,
    "generalized": losses.generalized_cross_entropy,
    "symmetric": losses.symmetric_cross_entropy,
    "bootstrap": losses.bootstrap_cross_entropy,
    "margin": losses.margin_label_smoothing,
    "max suppression": losses.max_suppression,
    "linear": lambda labels, hidden, **options: losses.linear_softmax_cross_entropy(
        labels, hidden, np.eye(CLASSES)[:3], ignore_index=3, **options
    ),
}
WEIGHT = np.random.default_rng(1).normal(size=(6, CLASSES))


def hard_and_soft(labels, student, reduction="mean", **options):
    loss = distillation.DistillationLoss(0.7, 2.0, label_smoothing=0.1, ignore_index=1, reduction=reduction)
    return loss(labels, 2.0 * student, student, **options)


def top_classes(teacher, student, **options):
    """Of a teacher who keeps two classes of each row."""
    indices = teacher.with_flat_values(PLACES) if hasattr(teacher, "flat_values") else PLACES
    log_probs = teacher.with_flat_values(np.full((5, 2), -1.0)) if hasattr(teacher, "flat_values") else -np.ones((5, 2))
    return distillation.linear_sparse_distillation_loss(indices, log_probs, student, WEIGHT, tail="bucket", **options)


PLACES = np.array([[0, 1], [2, 0], [5, 4], [3, 1], [1, 2]])
OF_IDS["hard and soft"] = hard_and_soft
OF_DISTRIBUTIONS = {
    "softmax": losses.softmax_cross_entropy,
    "sigmoid": losses.sigmoid_cross_entropy,
    "sigmoid focal": losses.sigmoid_focal_loss,
    "distillation": lambda teacher, student, **options: distillation.distillation_loss(
        10 * teacher, student, temperature=2.0, **options
    ),
    "standardized": distillation.standardized_distillation_loss,
    "gkd": distillation.gkd_loss,
    "ensemble": lambda teacher, student, **options: distillation.ensemble_distillation_loss(
        [10 * teacher, 5 * teacher], student, **options
    ),
    "linear distillation": lambda teacher, student, **options: distillation.linear_distillation_loss(
        teacher, WEIGHT, student, WEIGHT, **options
    ),
    "linear, top classes": top_classes,
}
CALLS = [(loss, False) for loss in OF_IDS.values()] + [(loss, True) for loss in OF_DISTRIBUTIONS.values()]
NAMES = [f"ids-{name}" for name in OF_IDS] + [f"distributions-{name}" for name in OF_DISTRIBUTIONS]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "function"])
@pytest.mark.parametrize(("loss", "soft"), CALLS, ids=NAMES)
def test_rows_keep_their_place_and_their_gradient(tf, loss, soft, compiled):
    ids, distributions, logits = data(tf)
    labels = distributions if soft else ids

    def step(labels, logits):
        return loss(labels, logits, reduction="none"), loss(labels, logits)

    if compiled:
        step = tf.function(step)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        rows, mean = step(ragged(tf, labels), ragged(tf, logits))
    expected = step(labels, logits)
    np.testing.assert_allclose(rows.flat_values.numpy(), expected[0].numpy(), rtol=1e-12)
    assert rows.row_lengths().numpy().tolist() == LENGTHS
    np.testing.assert_allclose(mean.numpy(), expected[1].numpy(), rtol=1e-12)
    with tf.GradientTape() as flat_tape:
        flat_tape.watch(logits)
        flat = loss(labels, logits)
    np.testing.assert_allclose(
        tape.gradient(mean, logits).numpy(), flat_tape.gradient(flat, logits).numpy(), rtol=1e-10, atol=1e-14
    )


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", None])
@pytest.mark.parametrize(
    ("name", "soft"),
    [
        ("SparseCategoricalCrossentropy", False),
        ("CategoricalCrossentropy", True),
        ("CategoricalFocalCrossentropy", True),
        ("BinaryCrossentropy", True),
    ],
)
def test_keras_classes_take_ragged_rows(tf, name, soft, reduction):
    ids, distributions, logits = data(tf)
    labels = distributions if soft else ids
    weight = tf.constant(np.linspace(1.0, 2.0, 5), tf.float32)
    loss = getattr(losses, name)(from_logits=True, reduction=reduction)
    got = loss(ragged(tf, labels), ragged(tf, logits), sample_weight=ragged(tf, weight))
    expected = loss(labels, logits, sample_weight=weight).numpy()
    np.testing.assert_allclose(getattr(got, "flat_values", got).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "categorical_crossentropy", "kl_divergence"])
def test_keras_functions_take_ragged_rows(tf, name):
    ids, distributions, logits = data(tf)
    labels = ids if name.startswith("sparse") else distributions
    loss, probabilities = getattr(losses, name), tf.nn.softmax(logits)
    got = loss(ragged(tf, labels), ragged(tf, probabilities))
    assert got.row_lengths().numpy().tolist() == LENGTHS
    np.testing.assert_allclose(got.flat_values.numpy(), loss(labels, probabilities).numpy(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("option", ["sample_weight", "mask", "label_smoothing", "temperature"])
def test_options_of_the_batch_count_for_each_of_its_rows(tf, option, shape):
    ids, _, logits = data(tf)
    values = np.array([True, True, False]) if option == "mask" else np.array([0.2, 0.7, 0.5])
    of_batch: dict[str, Any] = {option: values.reshape(shape)}
    of_rows: dict[str, Any] = {option: np.repeat(values, LENGTHS)}
    got = losses.softmax_cross_entropy(ragged(tf, ids), ragged(tf, logits), reduction="none", **of_batch)
    expected = losses.softmax_cross_entropy(ids, logits, reduction="none", **of_rows)
    np.testing.assert_allclose(got.flat_values.numpy(), expected.numpy(), rtol=1e-12)


def test_signatures_of_ragged_arguments_compile_once(tf):
    signature = [tf.RaggedTensorSpec([None, None], tf.int64), tf.RaggedTensorSpec([None, None, CLASSES], tf.float64, 1)]
    step = tf.function(lambda y, z: losses.softmax_cross_entropy(y, z, reduction="none"), input_signature=signature)
    ids, _, logits = data(tf)
    for size in (5, 2):
        lengths = [size, 0]
        y, z = (tf.RaggedTensor.from_row_lengths(x[:size], lengths) for x in (ids, logits))
        expected = losses.softmax_cross_entropy(ids[:size], logits[:size], reduction="none")
        np.testing.assert_allclose(step(y, z).flat_values.numpy(), expected.numpy(), rtol=1e-12)


def test_lists_of_rows_with_equal_numbers_of_classes_are_taken(tf):
    labels, logits = (
        tf.ragged.constant([[0, 1], [2]]),
        tf.ragged.constant([[[0.1, 0.2, 0.3], [1, 0, 2]], [[3, 2, 1.0]]]),
    )
    got = losses.softmax_cross_entropy(labels, logits, reduction="none")
    expected = losses.softmax_cross_entropy(
        [0, 1, 2], np.array([[0.1, 0.2, 0.3], [1, 0, 2], [3, 2, 1.0]]), reduction="none"
    )
    np.testing.assert_allclose(got.flat_values.numpy(), expected, rtol=1e-6)
    elements = losses.sigmoid_cross_entropy(logits * 0, logits, reduction="none")
    assert elements.shape.rank == 3


def test_two_ragged_axes(tf):
    ids, _, logits = data(tf)
    y, z = (tf.RaggedTensor.from_nested_row_lengths(x, [[1, 2], LENGTHS]) for x in (ids, logits))
    weight = np.array([1.0, 3.0])
    got = losses.softmax_cross_entropy(y, z, sample_weight=weight, reduction="none")
    expected = losses.softmax_cross_entropy(ids, logits, sample_weight=[1.0, 1, 3, 3, 3], reduction="none")
    np.testing.assert_allclose(got.flat_values.numpy(), expected.numpy(), rtol=1e-12)
    assert got.ragged_rank == 2


def test_invalid_batches_are_named(tf):
    ids, _distributions, logits = data(tf)
    y, z = ragged(tf, ids), ragged(tf, logits)
    with pytest.raises(TypeError, match=r"logits is a tf\.RaggedTensor whose last axis, the classes, is ragged"):
        losses.softmax_cross_entropy(y, y)
    with pytest.raises(TypeError, match=r"labels must be a tf.RaggedTensor, as logits is.*flat_values"):
        losses.softmax_cross_entropy(np.zeros((3, 3), int), z)
    with pytest.raises(TypeError, match=r"logits must be a tf.RaggedTensor, as labels is.*flat_values"):
        losses.softmax_cross_entropy(y, logits)
    with pytest.raises(ValueError, match=r"labels and logits must have the same row lengths; .*\[0, 1, 2, 5\]"):
        losses.softmax_cross_entropy(tf.RaggedTensor.from_row_lengths(ids, [1, 1, 3]), z)
    with pytest.raises(ValueError, match="axis must be -1"):
        losses.softmax_cross_entropy(y, z, axis=1)
    with pytest.raises(TypeError, match=r"sample_weight beside ragged logits must be ragged too.*\(3, 3\)"):
        losses.softmax_cross_entropy(y, z, sample_weight=np.ones((3, 3)))
    with pytest.raises(TypeError, match=r"takes no tf\.RaggedTensor: pass the flat values"):
        metrics.expected_calibration_error(y, z)


def test_different_rows_are_an_error_inside_a_function_too(tf):
    ids, _, logits = data(tf)
    step = tf.function(losses.softmax_cross_entropy)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="labels and logits must have the same row"):
        step(tf.RaggedTensor.from_row_lengths(ids, [1, 1, 3]), ragged(tf, logits))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "function"])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("option", ["sample_weight", "mask", "label_smoothing", "temperature"])
def test_options_of_another_number_of_entries_are_named(tf, option, size, compiled):
    ids, _, logits = data(tf)
    value = tf.ones([size], bool) if option == "mask" else tf.fill([size], tf.constant(0.5, tf.float64))

    def call(value):
        options: dict[str, Any] = {option: value}
        return losses.softmax_cross_entropy(ragged(tf, ids), ragged(tf, logits), **options)

    if compiled:
        call = tf.function(call, input_signature=[tf.TensorSpec([None], value.dtype)])
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=f"{option} must hold one value for each"):
        call(value)


def test_warnings_point_at_the_caller():
    with pytest.warns(SyntaxWarning, match="two or more classes") as caught:
        losses.categorical_crossentropy(np.ones((2, 1)), np.ones((2, 1)))
    assert [warning.filename for warning in caught] == [__file__]


def test_warnings_of_recovered_logits_point_at_the_caller(tf):
    for loss in (losses.binary_crossentropy, losses.categorical_crossentropy):
        y_pred = tf.nn.softmax(tf.zeros([2, 3]))
        y_pred._keras_logits = tf.zeros([2, 3])
        with pytest.warns(UserWarning, match="from_logits=True") as caught:
            loss(np.ones((2, 3)) / 3, y_pred, from_logits=True)
        assert [warning.filename for warning in caught] == [__file__]
