"""Teachers and students whose logits, or output layers, are padded by different amounts."""

import numpy as np
import pytest

from lsmooth import distillation
from lsmooth.distillation import DistillationLoss

RNG = np.random.default_rng(0)
CLASSES = 5
TEACHER, STUDENT = RNG.normal(0.0, 2.0, (6, 7)), RNG.normal(0.0, 2.0, (6, 9))
TEACHER[:, CLASSES:] = np.nan
IDS = RNG.integers(0, CLASSES, 6)
KEPT, LOG_PROBS = np.array([[0, 3]] * 6), np.log(np.array([[0.5, 0.25]] * 6))

LOSSES = {
    "forward_kl": lambda t, s, **o: distillation.distillation_loss(t, s, temperature=2.0, **o),
    "jensen_shannon": lambda t, s, **o: distillation.distillation_loss(t, s, divergence="jensen_shannon", **o),
    "mse_logits": lambda t, s, **o: distillation.distillation_loss(t, s, divergence="mse_logits", **o),
    "decoupled": lambda t, s, **o: distillation.decoupled_distillation_loss(t, s, IDS, **o),
    "standardized": distillation.standardized_distillation_loss,
    "gkd": distillation.gkd_loss,
    "ensemble": lambda t, s, **o: distillation.ensemble_distillation_loss([t, 2.0 * t], s, **o),
    "mutual": lambda t, s, **o: distillation.mutual_distillation_losses([t, s], **o)[1],
    "DistillationLoss": lambda t, s, **o: DistillationLoss(0.5, 2.0, label_smoothing=0.1, **o)(IDS, t, s),
    "sparse": lambda t, s, **o: distillation.sparse_distillation_loss(KEPT, LOG_PROBS, s, tail="bucket", **o),
}


def value_and_gradient(xp, loss, z):
    if xp.name == "numpy":
        return xp.to_numpy(loss(z)), np.zeros(z.shape)
    value, gradient = xp.value_and_grad(loss, z)
    return xp.to_numpy(value), xp.to_numpy(gradient)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_padding_does_not_contribute_to_distillation_losses(backend, loss):
    xp = backend
    value, gradient = value_and_gradient(
        xp, lambda s: loss(xp.asarray(TEACHER), s, num_classes=CLASSES), xp.asarray(STUDENT)
    )
    teacher = xp.asarray(TEACHER[:, :CLASSES])
    wanted, slope = value_and_gradient(xp, lambda s: loss(teacher, s), xp.asarray(STUDENT[:, :CLASSES]))
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    np.testing.assert_allclose(gradient[:, :CLASSES], slope, rtol=1e-11, atol=1e-13)
    assert (gradient[:, CLASSES:] == 0).all()


def test_padding_is_removed_along_the_class_axis(backend):
    teacher, student = (backend.asarray(np.moveaxis(x.reshape(2, 3, -1), -1, 1)) for x in (TEACHER, STUDENT))
    value = distillation.distillation_loss(teacher, student, axis=1, num_classes=CLASSES)
    wanted = distillation.distillation_loss(TEACHER[:, :CLASSES], STUDENT[:, :CLASSES])
    np.testing.assert_allclose(backend.to_numpy(value), wanted, rtol=1e-12)


@pytest.mark.parametrize("labels", [None, IDS], ids=["teacher alone", "labels too"])
def test_padded_output_layers(backend, labels):
    hidden = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 4))
    weights = RNG.normal(size=(7, 3)), RNG.normal(size=(9, 4))
    bias = RNG.normal(size=9)

    def loss(teacher, student, bias, **options):
        return distillation.linear_distillation_loss(
            backend.asarray(hidden[0]),
            teacher,
            hidden[1],
            student,
            student_bias=bias,
            labels=labels,
            label_smoothing=0.1,
            block_size=2,
            **options,
        )

    value = loss(*weights, bias, num_classes=CLASSES)
    wanted = loss(weights[0][:CLASSES], weights[1][:CLASSES], bias[:CLASSES])
    np.testing.assert_allclose(backend.to_numpy(value), backend.to_numpy(wanted), rtol=1e-12)
    of_kept = [
        distillation.linear_sparse_distillation_loss(
            KEPT, LOG_PROBS, backend.asarray(hidden[1]), weights[1][:classes], tail="bucket", num_classes=num_classes
        )
        for classes, num_classes in ((9, CLASSES), (CLASSES, None))
    ]
    np.testing.assert_allclose(*map(backend.to_numpy, of_kept), rtol=1e-12)


def test_num_classes_is_at_most_what_both_have(backend):
    with pytest.raises(ValueError, match="num_classes must be at most 7, the number of teacher_logits; got 8"):
        distillation.distillation_loss(backend.asarray(TEACHER), backend.asarray(STUDENT), num_classes=8)
    with pytest.raises(ValueError, match="num_classes must be at most 7, the number of classes of teacher_weight"):
        distillation.linear_distillation_loss(
            backend.asarray(np.ones((2, 3))), np.ones((7, 3)), np.ones((2, 3)), np.ones((9, 3)), num_classes=8
        )


def test_the_configuration_keeps_num_classes():
    loss = DistillationLoss(num_classes=CLASSES)
    assert DistillationLoss.from_config(loss.get_config()).num_classes == CLASSES
