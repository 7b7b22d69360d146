"""lsmooth.integrations.flax: compiled training steps for NNX models."""

from __future__ import annotations

import pytest

from lsmooth.distillation import DistillationLoss
from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy

jnp = pytest.importorskip("jax.numpy", reason="jax is not installed")
nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
integration = pytest.importorskip("lsmooth.integrations.flax")
make_distillation_step, make_train_step = integration.make_distillation_step, integration.make_train_step


@pytest.fixture(scope="module")
def digits():
    x, y = datasets.load_digits(return_X_y=True)
    return jnp.asarray(x / 16.0, jnp.float32), jnp.asarray(y)


def test_a_network_learns_the_digits(digits):
    model = nnx.Linear(64, 10, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.05), wrt=nnx.Param)
    step = make_train_step(label_smoothing=0.1)
    values = [float(step(model, optimizer, *digits)) for _ in range(40)]
    assert values[-1] < 0.5 * values[0]


def test_a_step_is_the_loss_before_it_and_a_move_down_its_gradient(digits):
    x, y = digits
    model = nnx.Linear(64, 10, rngs=nnx.Rngs(0))

    def objective(model):
        return softmax_cross_entropy(y, model(x), label_smoothing=0.1)

    expected, gradient = nnx.value_and_grad(objective)(model)
    moved = model.kernel[...] - 0.1 * gradient.kernel[...]
    value = make_train_step(label_smoothing=0.1)(model, nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param), x, y)
    assert jnp.allclose(value, expected, rtol=1e-6)
    assert jnp.allclose(model.kernel[...], moved, atol=1e-6)


def test_another_loss_can_be_chosen(digits):
    x, y = digits
    model = nnx.Linear(64, 10, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.05), wrt=nnx.Param)
    step = make_train_step(sigmoid_cross_entropy, label_smoothing=0.1)
    targets = jnp.eye(10)[y]
    expected = sigmoid_cross_entropy(targets, model(x), label_smoothing=0.1)
    values = [float(step(model, optimizer, x, targets)) for _ in range(5)]
    assert values[0] == pytest.approx(float(expected), rel=1e-6)
    assert values[-1] < values[0]


def test_the_step_is_compiled_once(digits):
    traces = []

    def loss(labels, logits):
        traces.append(1)
        return softmax_cross_entropy(labels, logits)

    model = nnx.Linear(64, 10, rngs=nnx.Rngs(0))
    optimizer, step = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param), make_train_step(loss)
    for _ in range(3):
        step(model, optimizer, *digits)
    assert len(traces) == 1


@pytest.fixture
def pair():
    return nnx.Linear(64, 10, rngs=nnx.Rngs(0)), nnx.Linear(64, 10, rngs=nnx.Rngs(1))


def test_a_step_of_distillation_moves_the_student_down_the_gradient_of_its_loss(digits, pair):
    (x, y), (teacher, student), loss = digits, pair, DistillationLoss(0.9, 2.0, label_smoothing=0.1)
    teacher_before = teacher.kernel[...]
    expected, gradient = nnx.value_and_grad(lambda model: loss(y, teacher(x), model(x)))(student)
    moved = student.kernel[...] - 0.1 * gradient.kernel[...]
    optimizer = nnx.Optimizer(student, optax.sgd(0.1), wrt=nnx.Param)
    value = make_distillation_step(loss)(student, optimizer, teacher, x, y)
    assert jnp.allclose(value, expected, rtol=1e-6)
    assert jnp.allclose(student.kernel[...], moved, atol=1e-6)
    assert (teacher.kernel[...] == teacher_before).all()


def test_custom_losses_receive_labels_teacher_and_student(digits, pair):
    (x, y), (teacher, student) = digits, pair
    seen = []

    def loss(labels, teacher_logits, student_logits):
        seen.append((labels.dtype, teacher_logits.shape, student_logits.shape))
        return jnp.mean((teacher_logits - student_logits) ** 2)

    expected = jnp.mean((teacher(x) - student(x)) ** 2)
    optimizer = nnx.Optimizer(student, optax.sgd(0.01), wrt=nnx.Param)
    step = make_distillation_step(loss)
    assert step(student, optimizer, teacher, x, y) == pytest.approx(float(expected), rel=1e-5)
    step(student, optimizer, teacher, x, y)
    assert seen == [(y.dtype, (1797, 10), (1797, 10))], "it was traced more than once"


def test_the_default_loss_weighs_labels_and_teacher_equally(digits, pair):
    (x, y), (teacher, student) = digits, pair
    expected = DistillationLoss()(y, teacher(x), student(x))
    optimizer = nnx.Optimizer(student, optax.sgd(0.1), wrt=nnx.Param)
    assert make_distillation_step()(student, optimizer, teacher, x, y) == pytest.approx(float(expected), rel=1e-6)
