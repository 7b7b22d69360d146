"""No rows, no classes, one class, no counted rows, scalars: results of the originals, or clear errors."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.compat import annotated_transformer, fairseq, megatron, opennmt, optax, timm, transformers

SHAPES = [(0,), (0, 4), (3, 0), (0, 0), (2, 1), (2, 0, 3), (0, 2, 4)]
BY_IDS = {
    "timm": lambda x, y: timm.LabelSmoothingCrossEntropy(0.1)(x, y),
    "timm's binary": lambda x, y: timm.BinaryCrossEntropy(0.1)(x, y),
    "transformers": lambda x, y: transformers.LabelSmoother(0.1)((x,), y),
    "transformers, all ignored": lambda x, y: transformers.LabelSmoother(0.1, ignore_index=0)((x,), y),
    "fairseq": lambda x, y: fairseq.label_smoothed_nll_loss(x, y, 0.1)[0],
    "fairseq, all ignored": lambda x, y: fairseq.label_smoothed_nll_loss(x, y, 0.1, 0)[0],
    "fairseq, rows": lambda x, y: fairseq.label_smoothed_nll_loss(x, y, 0.1, 0, reduce=False)[0],
    "megatron": lambda x, y: megatron.vocab_parallel_cross_entropy(x, y, 0.1),
    "megatron, plain": lambda x, y: megatron.vocab_parallel_cross_entropy(x, y),
    "optax": optax.softmax_cross_entropy_with_integer_labels,
}
BY_ROWS = {
    "timm": timm.SoftTargetCrossEntropy(),
    "timm's binary": timm.BinaryCrossEntropy(),
    "optax": optax.softmax_cross_entropy,
    "optax, safe": optax.safe_softmax_cross_entropy,
    "optax' poly": optax.poly_loss_cross_entropy,
    "optax' divergence": optax.kl_divergence,
}
OF_OTHERS = ("fairseq", "fairseq, all ignored", "fairseq, rows", "megatron")


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def formula(case, x, y):
    """The result of the original, with NaN if it fails without classes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rows, classes = x.shape[:-1], x.shape[-1]
        log_p = x if case.startswith("fairseq") else log_softmax(x)
        nll = -log_p[..., 0] if classes else np.full(rows, np.nan)  # every label is 0
        spread = -log_p.sum(-1)
        ignored = case.endswith("all ignored") or case == "fairseq, rows"
        if ignored:
            nll, spread = np.zeros(rows), np.zeros(rows)
        of_each = np.divide(0.1, classes)
        if case == "optax":
            return nll if classes else np.full(rows, -np.inf)
        if case == "timm's binary":
            t = 0.9 * np.eye(max(classes, 1))[y][..., :classes] + of_each
            return np.asarray(((1 - t) * x + np.log1p(np.exp(-x))).sum() / np.float64(x.size))
        if case == "megatron, plain":
            return nll
        if case in OF_OTHERS:
            of_each = 0.1 / (classes - 1)
            smoothed = (0.9 - of_each) * nll + of_each * spread
            return smoothed if case == "megatron" else smoothed[..., None] if case.endswith("rows") else smoothed.sum()
        count = np.float64(0.0 if ignored else nll.size)
        return 0.9 * (nll.sum() / count) + of_each * (spread.sum() / count)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", BY_IDS)
def test_losses_of_class_ids_match_the_formula(backend, case, shape):
    x, y = np.full(shape, -0.5), np.zeros(shape[:-1], int)
    loss = lambda: BY_IDS[case](backend.asarray(x), backend.asarray(y))  # noqa: E731
    if case in OF_OTHERS and shape[-1] == 1:
        with pytest.raises(ValueError, match="needs at least two classes, got 1"):
            loss()
        return
    wanted = formula(case, x, y)
    assert backend.shape(loss()) == np.shape(wanted)
    assert_close(backend, loss(), wanted, "float64")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", BY_ROWS)
def test_losses_of_distributions_match_the_formula(backend, case, shape):
    x, t = np.full(shape, -0.5), np.full(shape, 0.25)
    log_p = x if case.endswith("divergence") else log_softmax(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = -(t * log_p).sum(-1)
        if case == "timm's binary":
            wanted = ((1 - t) * x + np.log1p(np.exp(-x))).sum() / np.float64(x.size)
        elif case == "timm":
            wanted = rows.sum() / np.float64(rows.size)
        else:
            extra = {"optax' poly": 2.0 * t * (1 - np.exp(log_p)), "optax' divergence": t * np.log(t)}.get(case, 0 * t)
            wanted = rows + extra.sum(-1)
    found = BY_ROWS[case](backend.asarray(x), backend.asarray(t))
    assert backend.shape(found) == np.shape(wanted)
    assert_close(backend, found, wanted, "float64")


@pytest.mark.parametrize("where", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_class_ids_match_the_installed_optax(shape, where):
    losses = pytest.importorskip("optax.losses")
    x, y = np.full(shape, -0.5), np.zeros(shape[:-1], int)
    options = {"where": np.ones(shape, bool)} if where else {}
    wanted = losses.softmax_cross_entropy_with_integer_labels(x.astype("float32"), y, **options)
    found = optax.softmax_cross_entropy_with_integer_labels(x, y, **options)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("case", ["annotated transformer", "opennmt"])
@pytest.mark.parametrize("rows", [0, 2])
def test_padding_and_empty_batches_have_zero_loss(backend, case, rows):
    criterion = {
        "annotated transformer": annotated_transformer.LabelSmoothing(4, 0, 0.1),
        "opennmt": opennmt.LabelSmoothingLoss(0.1, 4, ignore_index=0),
    }[case]
    loss = criterion(backend.asarray(np.full((rows, 4), -0.5)), backend.asarray(np.zeros(rows, int)))
    assert backend.to_numpy(loss) == 0.0


@pytest.mark.parametrize("case", [*BY_IDS, *BY_ROWS])
def test_scalars_have_no_classes(backend, case):
    calls = [calls[case] for calls in (BY_IDS, BY_ROWS) if case in calls]
    for call in calls:
        with pytest.raises(ValueError, match=r"classes.* scalar"):
            call(backend.asarray(0.5), backend.asarray(0.5 if call in BY_ROWS.values() else 0))
