"""Softmax cross-entropy: every backend gives the reference's value and gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loss_parity import DRAWN, check_parity, distributions, float32_exact

from lsmooth._rows.reductions import REDUCTIONS
from lsmooth.losses import softmax_cross_entropy

ROWS, CLASSES = 6, 5
OPTIONS = {
    "plain": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "all smoothing": {"label_smoothing": 1.0},
    "label_smoothing per row": {"label_smoothing": np.linspace(0.0, 1.0, ROWS)},
    "smoothing_prior": {"label_smoothing": 0.3, "smoothing_prior": np.array([0.5, 0.25, 0.125, 0.125, 0.0])},
    "a prior that does not sum to one": {"label_smoothing": 0.3, "smoothing_prior": np.arange(5.0)},
    "class_weight": {"class_weight": np.array([0.5, 2.0, 0.0, 1.0, 3.0])},
    "class_weight, smoothed": {"class_weight": np.array([0.5, 2.0, 0.0, 1.0, 3.0]), "label_smoothing": 0.2},
    "class_weight and prior": {
        "class_weight": np.array([0.5, 2.0, 0.0, 1.0, 3.0]),
        "smoothing_prior": np.arange(5.0),
        "label_smoothing": 0.2,
    },
    "sample_weight": {"sample_weight": np.array([0.5, 0.0, 2.0, 1.0, 3.0, 0.25])},
    "a scalar sample_weight": {"sample_weight": 2.5},
    "one sample_weight for all": {"sample_weight": np.array([2.5])},
    "temperature": {"temperature": 2.5, "label_smoothing": 0.1},
    "temperature per row": {"temperature": np.linspace(0.5, 4.0, ROWS), "label_smoothing": 0.1},
    "z_loss": {"z_loss": 0.01, "label_smoothing": 0.1},
    "logit_softcap": {"logit_softcap": 3.0, "label_smoothing": 0.1},
    "logit_softcap comes before the temperature": {"logit_softcap": 3.0, "temperature": 0.5},
}
INTEGER_LABEL_OPTIONS = {
    "ignore_index": {"ignore_index": 2, "label_smoothing": 0.1},
    "ignore_index and weights": {
        "ignore_index": 2,
        "label_smoothing": 0.1,
        "class_weight": np.array([0.5, 2.0, 0.5, 1.0, 3.0]),
        "sample_weight": np.array([0.5, 0.0, 2.0, 1.0, 3.0, 0.25]),
    },
}
ALL_OPTIONS = OPTIONS | INTEGER_LABEL_OPTIONS
LABELS = np.array([0, 2, 4, 2, 1, 3])


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return distributions(rng, (ROWS, CLASSES)), float32_exact(rng, (ROWS, CLASSES))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_mean_over_soft_labels(backend, options):
    labels, logits = example(0)
    check_parity(backend, labels, logits, upstream=np.array(-3.0), **options)


@pytest.mark.parametrize("options", ALL_OPTIONS.values(), ids=ALL_OPTIONS)
def test_the_mean_over_integer_labels(backend, options):
    _, logits = example(1)
    check_parity(backend, LABELS, logits, upstream=np.array(-3.0), **options)


@pytest.mark.parametrize("options", ALL_OPTIONS.values(), ids=ALL_OPTIONS)
def test_each_row_with_its_own_upstream_gradient(backend, options):
    labels, logits = example(2)
    upstream = np.array([1.0, -2.0, 0.0, 0.5, 3.0, 7.0])
    check_parity(backend, LABELS, logits, reduction="none", upstream=upstream, **options)
    if "ignore_index" not in options:
        check_parity(backend, labels, logits, reduction="none", upstream=upstream, **options)


@pytest.mark.parametrize("options", ALL_OPTIONS.values(), ids=ALL_OPTIONS)
def test_options_may_be_tensors_of_the_framework(backend, options):
    labels, logits = example(3)
    check_parity(backend, LABELS, logits, tensors=True, **options)
    if "ignore_index" not in options:
        check_parity(backend, labels, logits, tensors=True, **options)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((2, 5, 3, 4), 1), ((2, 5, 3, 4), -3), ((2, 3, 5), -1), ((2, 3, 5), 2), ((5, 7), 0), ((5, 2, 3), 0), ((5,), -1)],
    ids=[
        "segmentation",
        "segmentation, from the end",
        "sequence",
        "sequence, positive",
        "classes first",
        "3d first",
        "one row",
    ],
)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_classes_lie_along_any_axis(backend, shape, axis, reduction):
    rng = np.random.default_rng(4)
    logits, soft = float32_exact(rng, shape), distributions(rng, shape, axis)
    rows = soft.sum(axis).shape
    hard = rng.integers(0, 5, rows)
    options = {
        "compiled": True,
        "axis": axis,
        "reduction": reduction,
        "label_smoothing": rng.uniform(0.0, 1.0, rows),
        "temperature": rng.uniform(0.5, 2.0, rows),
        "sample_weight": rng.uniform(0.0, 2.0, rows),
        "class_weight": rng.uniform(0.0, 2.0, 5),
    }
    check_parity(backend, soft, logits, **options)
    check_parity(backend, hard, logits, ignore_index=3, **options)


@pytest.mark.parametrize("rows", [1, 3, 40, 300])
@pytest.mark.parametrize("classes", [1, 10, 1000, 5000])
def test_small_and_large(backend, rows, classes):
    if rows * classes > 400_000:
        pytest.skip("no larger than needed to be on the other side of every switch")
    dtype = "float32" if rows == 300 else "float64"
    rng = np.random.default_rng(rows + classes)
    logits = float32_exact(rng, (rows, classes))
    upstream = rng.normal(size=rows)
    labels = rng.integers(0, classes, rows)
    options = {"dtype": dtype, "compiled": True}
    check_parity(backend, labels, logits, **options)
    check_parity(backend, labels, logits, label_smoothing=0.1, ignore_index=0, z_loss=1e-3, **options)
    options |= {"label_smoothing": 0.1, "reduction": "none", "upstream": upstream}
    check_parity(backend, labels, logits, **options)
    check_parity(backend, distributions(rng, (rows, classes)), logits, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("options", ALL_OPTIONS.values(), ids=ALL_OPTIONS)
def test_dtypes(backend, dtype, options):
    labels, logits = example(6)
    options = options | {"dtype": dtype, "upstream": np.array(-3.0)}
    check_parity(backend, LABELS, logits, **options)
    if "ignore_index" not in options:
        check_parity(backend, labels, logits, **options)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_summed_in_float32(backend, dtype):
    """A sum of 70000 terms of 1 overflows float16, and stalls at 256 in bfloat16."""
    check_parity(backend, np.array([3]), np.zeros((1, 70_000)), dtype=dtype, label_smoothing=0.1, compiled=True)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_label_dtypes(backend, dtype):
    """300 classes do not fit int8, and an ignore_index of 255 neither: they are not compared in the labels' dtype."""
    rng = np.random.default_rng(7)
    logits = float32_exact(rng, (4, 300))
    labels = np.array([0, 127, 5, 99], dtype)
    for ignore_index in (5, 255, -100):
        check_parity(backend, labels, logits, label_smoothing=0.1, ignore_index=ignore_index, compiled=True)
    check_parity(backend, labels, logits, label_smoothing=0.1, tensors=True, compiled=True)


def test_255_in_uint8_labels_can_be_ignored(backend):
    rng = np.random.default_rng(8)
    labels = np.array([0, 255, 1, 255], np.uint8)
    check_parity(backend, labels, float32_exact(rng, (4, 3)), label_smoothing=0.1, ignore_index=255, compiled=True)


@pytest.mark.parametrize("labels", [np.eye(3, dtype=dtype)[[0, 2]] for dtype in ("bool", "int32", "uint8", "float32")])
def test_one_hot_labels_of_any_dtype_are_distributions(backend, labels):
    logits = float32_exact(np.random.default_rng(9), (2, 3))
    check_parity(backend, labels, logits, label_smoothing=0.1)
    check_parity(backend, labels, logits, label_smoothing=0.1, tensors=True)


def test_rows_of_soft_labels_keep_their_sum(backend):
    rng = np.random.default_rng(10)
    check_parity(backend, rng.uniform(0.0, 2.0, (4, 3)), float32_exact(rng, (4, 3)), label_smoothing=0.2, z_loss=0.1)


def test_lists_are_arrays(backend):
    logits = backend.asarray(np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))
    value = softmax_cross_entropy([0, 2], logits, class_weight=[1.0, 1.0, 2.0], sample_weight=[1.0, 0.5])
    assert backend.is_array(value)


@st.composite
def calls(draw):
    """Labels, logits and options that fit together."""
    rows = draw(st.sampled_from([(), (1,), (4,), (2, 3), (0,), (2, 2, 2)]))
    classes = draw(st.sampled_from([1, 2, 5]))
    axis = draw(st.integers(-len(rows) - 1, len(rows)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.normal(0.0, draw(st.sampled_from([0.1, 3.0, 100.0])), (*rows, classes))
    soft = draw(st.booleans())
    labels = distributions(rng, (*rows, classes)) if soft else rng.integers(0, classes, rows)
    if draw(st.booleans()):
        masked = rng.uniform(size=logits.shape) < 0.3
        kept = rng.integers(0, classes, rows) if soft else labels
        masked &= np.arange(classes) != np.asarray(kept)[..., None]
        logits[masked] = -np.inf
        labels = np.where(masked, 0.0, labels) if soft else labels
    scalar_or_rows = {
        "label_smoothing": (0.1, rng.uniform(0.0, 1.0, rows)),
        "temperature": (1.7, rng.uniform(0.3, 3.0, rows)),
        "sample_weight": (0.3, rng.integers(0, 3, rows).astype(np.float64)),
    }
    options = {name: draw(st.sampled_from(either)) for name, either in scalar_or_rows.items() if draw(st.booleans())}
    others = {
        "smoothing_prior": rng.uniform(0.1, 1.0, classes),
        "class_weight": rng.uniform(0.0, 2.0, classes),
        "z_loss": 0.01,
        "logit_softcap": 5.0,
    }
    options |= {name: value for name, value in others.items() if draw(st.booleans())}
    if not soft and draw(st.booleans()):
        options["ignore_index"] = draw(st.sampled_from([0, -100]))
    options |= {"axis": axis, "reduction": draw(st.sampled_from(REDUCTIONS))}
    logits = np.moveaxis(logits, -1, axis)
    return np.moveaxis(labels, -1, axis) if soft else labels, logits, options


@DRAWN
@given(call=calls(), tensors=st.booleans())
def test_any_call(backend, call, tensors):
    labels, logits, options = call
    check_parity(backend, labels, logits, factor=10.0, tensors=tensors, compiled=True, **options)
