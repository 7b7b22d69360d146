"""The Keras-named classes: reductions, weights, masks and configs are Keras', on every backend."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import assert_close

from lsmooth import _keras_settings as keras_settings
from lsmooth import losses

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(5), (4, 3))
ONE_HOT = np.eye(5)[RNG.integers(0, 5, (4, 3))]
REDUCTIONS = ["sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None]
CLASSES = {name: x for name, x in vars(losses).items() if isinstance(x, type) and issubclass(x, losses.Loss)}
NAMES = [name for name in losses.__all__ if name in CLASSES and name != "Loss"]


class SquaredError(losses.Loss):
    """A loss of the user's own."""

    def call(self, y_true, y_pred):
        return (y_true - y_pred) ** 2


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras", reason="keras is not installed")


@pytest.fixture
def on_keras(keras):
    """Evaluates one of Keras' losses, and gives NumPy back."""

    def evaluate(name, y_true, y_pred, sample_weight=None, mask=None, **options):
        y_pred = keras.ops.convert_to_tensor(y_pred, "float64")
        if mask is not None:
            keras.src.backend.set_keras_mask(y_pred, keras.ops.convert_to_tensor(mask))
        loss = getattr(keras.losses, name)(dtype="float64", **options)
        return keras.ops.convert_to_numpy(loss(y_true, y_pred, sample_weight=sample_weight))

    return evaluate


@pytest.fixture(scope="module")
def bar(keras):
    """The dtype of the comparison: on its other backends Keras rounds to float32 in places."""
    return "float64" if keras.backend.backend() == "tensorflow" else "float32"


def evaluate(backend, name, y_true, y_pred, sample_weight=None, mask=None, **options):
    """One of lsmooth's losses on a backend."""
    keras = sys.modules["keras"]
    y_pred = backend.asarray(y_pred, "float64")
    if mask is not None:
        keras.src.backend.set_keras_mask(y_pred, backend.asarray(mask))
    return getattr(losses, name)(dtype="float64", **options)(y_true, y_pred, sample_weight=sample_weight)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "weight",
    [None, 2.0, 0.0, RNG.random((4, 3)), RNG.random((4, 3, 1)), RNG.random((4, 1)), np.zeros((4, 3))],
    ids=["none", "scalar", "zero", "rows", "rows+1", "examples", "zeros"],
)
def test_weights_and_reductions_match_keras(backend, bar, on_keras, reduction, weight):
    options = {"sample_weight": weight, "reduction": reduction, "label_smoothing": 0.1}
    expected = on_keras("CategoricalCrossentropy", ONE_HOT, P, **options)
    got = evaluate(backend, "CategoricalCrossentropy", ONE_HOT, P, **options)
    assert got.shape == expected.shape
    assert_close(backend, got, expected, bar, factor=10)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mask", [RNG.random((4, 3)) < 0.5, RNG.random((4, 3, 1)) < 0.5, np.zeros((4, 3), bool)])
@pytest.mark.parametrize("weight", [None, RNG.random((4, 3))], ids=["unweighted", "weighted"])
def test_a_mask_on_the_predictions_counts_as_in_keras(backend, bar, on_keras, reduction, mask, weight):
    options = {"sample_weight": weight, "mask": mask, "reduction": reduction}
    expected = on_keras("CategoricalCrossentropy", ONE_HOT, P, **options)
    got = evaluate(backend, "CategoricalCrossentropy", ONE_HOT, P, **options)
    assert_close(backend, got, expected, bar, factor=10)


@pytest.mark.parametrize("mask", [None, RNG.random((4, 3)) < 0.5])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_mean_is_over_the_classes_that_are_not_ignored(backend, bar, on_keras, reduction, mask):
    ids = ONE_HOT.argmax(-1)
    options = {"ignore_class": int(ids[0, 0]), "from_logits": True, "mask": mask, "reduction": reduction}
    expected = on_keras("SparseCategoricalCrossentropy", ids, np.log(P), **options)
    got = evaluate(backend, "SparseCategoricalCrossentropy", ids, np.log(P), **options)
    assert_close(backend, got, expected, bar, factor=10)


@pytest.mark.parametrize(
    ("true_shape", "pred_shape"), [((4,), (4, 1)), ((4, 1), (4,)), ((4, 3, 1), (4, 3)), ((4, 3), (4, 3, 1))]
)
def test_trailing_dimensions_of_1_are_squeezed_as_in_keras(backend, bar, on_keras, true_shape, pred_shape):
    y_true = RNG.integers(0, 2, true_shape)
    y_pred = RNG.random(pred_shape)
    expected = on_keras("BinaryCrossentropy", y_true, y_pred)
    assert_close(backend, evaluate(backend, "BinaryCrossentropy", y_true, y_pred), expected, bar, factor=10)


def test_ignored_classes_leave_the_mean_without_keras_too():
    code = (
        "import numpy as np; from lsmooth.losses import SparseCategoricalCrossentropy; import sys; "
        "p = np.array([[0.5, 0.5], [0.1, 0.9]]); "
        "print(float(SparseCategoricalCrossentropy(ignore_class=-1)(np.array([0, -1]), p)), 'keras' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert float(printed[0]) == pytest.approx(np.log(2), rel=1e-6)
    assert printed[1] == "False"


@pytest.mark.parametrize("name", NAMES)
def test_configs_match_keras_and_recreate_the_loss(keras, name):
    ours, theirs = getattr(losses, name), getattr(keras.losses, name)
    assert ours().get_config() == theirs().get_config()
    changed = {key: value for key, value in {"label_smoothing": 0.3, "axis": 1}.items() if key in ours().get_config()}
    loss = ours(**changed, reduction="sum", name="mine", dtype="float64")
    again = losses.deserialize(json.loads(json.dumps(losses.serialize(loss))))
    assert type(again) is ours
    assert again.get_config() == loss.get_config()
    assert (again.dtype, again.reduction, again.name) == ("float64", "sum", "mine")
    assert pickle.loads(pickle.dumps(loss)).get_config() == loss.get_config()


def test_a_config_keeps_options_that_keras_drops_or_lacks():
    loss = losses.SparseCategoricalCrossentropy(axis=1, label_smoothing=0.2)
    again = losses.SparseCategoricalCrossentropy.from_config(loss.get_config())
    assert (again.axis, again.label_smoothing) == (1, 0.2)


def test_class_ids_survive_a_loss_in_half_precision(backend):
    if backend.name == "numpy":
        pytest.skip("NumPy alone has no bfloat16")
    logits = np.zeros((1, 600))
    logits[0, 513] = 8.0
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, dtype="bfloat16")
    value = loss(backend.asarray(np.array([513])), backend.asarray(logits))
    assert backend.dtype(value) == "bfloat16"
    assert backend.to_numpy(value) < 1.0


def test_results_are_float64_only_for_float64_inputs(backend):
    for dtype, expected in ((None, "float32"), ("float64", "float64"), (np.float64, "float64")):
        loss = losses.KLDivergence(dtype=dtype)
        assert loss.dtype == expected
        assert backend.dtype(loss(ONE_HOT, backend.asarray(P, "float64"))) == expected


def test_dtypes_have_many_names():
    policy = type("Policy", (), {"compute_dtype": "float16"})()
    assert keras_settings.compute_dtype(policy) == "float16"
    assert keras_settings.compute_dtype("mixed_bfloat16") == "bfloat16"
    torch = pytest.importorskip("torch", reason="torch is not installed")
    assert keras_settings.compute_dtype(torch.float64) == "float64"


def test_custom_losses_are_weighted_and_reduced(backend):
    y_pred = backend.asarray(np.array([1.0, 3.0]))
    loss = SquaredError()
    assert loss.name == "squared_error"
    assert float(loss([0.0, 0.0], y_pred, sample_weight=[1.0, 0.0])) == 0.5


def test_custom_losses_accept_dicts_and_tuples(backend):
    class Both(losses.Loss):
        def call(self, y_true, y_pred):
            return (y_true["a"] - y_pred["a"]) ** 2 + (y_true["b"] - y_pred["b"]) ** 2

    class Pair(losses.Loss):
        def call(self, y_true, y_pred):
            return (y_true - y_pred[0]) * y_pred[1]

    two, one = backend.asarray(np.array([2.0])), np.array([1.0])
    assert float(Both()({"a": one, "b": [0.0]}, {"a": two, "b": two})) == 5.0
    assert float(Pair()(one, (two, two))) == -2.0


def test_losses_are_found_by_name():
    assert losses.get("categorical_crossentropy") is losses.categorical_crossentropy
    assert losses.get("bce") is losses.get("BCE") is losses.binary_crossentropy
    assert losses.get("kld") is losses.kl_divergence
    assert isinstance(losses.get("KLDivergence"), losses.KLDivergence)
    assert losses.get(losses.kl_divergence) is losses.kl_divergence
    assert isinstance(losses.get(losses.KLDivergence), losses.KLDivergence)
    assert losses.get(None) is None
    assert losses.deserialize(losses.serialize(losses.kl_divergence)) is losses.kl_divergence
    mine = losses.serialize(SquaredError(name="mine"))
    assert losses.deserialize(mine, {"SquaredError": SquaredError}).name == "mine"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: losses.get("typo"), "No loss is called 'typo'. Known are BCE, "),
        (lambda: losses.get(3), "identifier must be a loss or the name of one; got 3"),
        (lambda: losses.deserialize({"config": {}}), "must be a loss's name or a config with a class_name"),
        (lambda: losses.deserialize({"class_name": "os.system", "config": {}}), "No loss is called 'os.system'"),
        (lambda: losses.deserialize({"class_name": "KLDivergence", "config": "x"}), "must be the config of a loss"),
        (lambda: losses.deserialize({"class_name": "function", "config": {"a": 1}}), "No loss is called"),
        (lambda: losses.KLDivergence(reduction="abc"), "Invalid value for argument reduction: .* got 'abc'"),
        (lambda: losses.KLDivergence(dtype="int32"), "dtype must be None or one of float64, .* got 'int32'"),
    ],
)
def test_unknown_names_raise_a_clear_error(call, error):
    with pytest.raises(ValueError, match=error):
        call()


def test_only_losses_and_functions_can_be_serialised():
    with pytest.raises(TypeError, match=r"loss must be a lsmooth\.losses\.Loss or a function, got int"):
        losses.serialize(3)


def test_two_frameworks_in_one_call_are_an_error():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    jnp = pytest.importorskip("jax.numpy", reason="jax is not installed")
    with pytest.raises(TypeError, match=r"y_pred is a torch.Tensor and y_true a jax.Array; convert one of them"):
        losses.KLDivergence()(jnp.asarray(ONE_HOT), torch.tensor(P))


def test_a_loss_must_implement_call():
    with pytest.raises(NotImplementedError, match="Loss must implement call"):
        losses.Loss()([0.0], [1.0])


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        (
            "CategoricalCrossentropy",
            {"label_smoothing": None},
            "label_smoothing must be a number or a tensor, got None",
        ),
        ("BinaryCrossentropy", {"label_smoothing": "0.1"}, "label_smoothing must be a number or a tensor, got '0.1'"),
        ("SparseCategoricalCrossentropy", {"label_smoothing": True}, "label_smoothing must be a number or a tensor"),
        ("SparseCategoricalCrossentropy", {"ignore_class": "-1"}, "ignore_class must be None or an integer, got '-1'"),
        ("SparseCategoricalCrossentropy", {"from_logits": "False"}, "from_logits must be True or False, got 'False'"),
        ("CategoricalFocalCrossentropy", {"gamma": None}, "gamma must be a number or a tensor, got None"),
        ("CategoricalFocalCrossentropy", {"alpha": "0.25"}, "alpha must be a number or a tensor, got '0.25'"),
        ("BinaryFocalCrossentropy", {"apply_class_balancing": None}, "apply_class_balancing must be True or False"),
        ("BinaryFocalCrossentropy", {"axis": 1.0}, "axis must be an integer, got 1.0"),
        ("CategoricalCrossentropy", {"axis": True}, "axis must be an integer, got True"),
    ],
)
def test_options_of_a_wrong_type_are_an_error_when_the_loss_is_made(name, options, error):
    with pytest.raises(TypeError, match=error):
        getattr(losses, name)(**options)


@pytest.mark.parametrize(("option", "value"), [("label_smoothing", 1.5), ("label_smoothing", -0.1), ("gamma", -1.0)])
def test_options_out_of_range_are_an_error_when_the_loss_is_made(option, value):
    with pytest.raises(ValueError, match=f"{option} must be .*, got {value:g}"):
        losses.BinaryFocalCrossentropy(**{option: value})


@pytest.mark.parametrize("option", ["label_smoothing", "alpha", "gamma"])
@pytest.mark.parametrize("value", [None, "0.1"])
def test_the_error_of_a_function_names_options_of_a_wrong_type(backend, option, value):
    with pytest.raises(TypeError, match=f"{option} must be a number or a tensor, got {value!r}"):
        losses.categorical_focal_crossentropy(ONE_HOT, backend.asarray(P), **{option: value})


def test_options_as_arrays_make_configs_that_json_can_hold(backend):
    loss = losses.CategoricalFocalCrossentropy(
        alpha=backend.asarray(np.arange(1.0, 6.0)),
        gamma=np.float32(1.5),
        axis=np.int64(-1),
        label_smoothing=np.array(0.5),
    )
    config = json.loads(json.dumps(loss.get_config()))
    assert (config["alpha"], config["gamma"], config["axis"]) == ([1.0, 2.0, 3.0, 4.0, 5.0], 1.5, -1)
    y_pred = backend.asarray(P)
    again = losses.CategoricalFocalCrossentropy.from_config(config)
    assert_close(backend, again(ONE_HOT, y_pred), backend.to_numpy(loss(ONE_HOT, y_pred)), "float32")


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_keras_losses_where_keras_has_been_imported(keras, name):
    loss = getattr(losses, name)()
    assert isinstance(loss, keras.losses.Loss)
    assert isinstance(SquaredError(), keras.losses.Loss)
    integration = pytest.importorskip("lsmooth.integrations.keras")
    assert getattr(integration, name) is getattr(losses, name)


@pytest.mark.parametrize("offset", [100.0, 1e4])
@pytest.mark.parametrize("name", NAMES)
def test_a_common_offset_of_float32_logits_changes_nothing(backend, name, offset):
    if "from_logits" not in getattr(losses, name)().get_config():
        pytest.skip("it takes probabilities")
    binary = name.startswith("Binary")
    y_true = ONE_HOT.argmax(-1) if name.startswith("Sparse") else ONE_HOT
    logits = (np.log(P) * 2 + (0.0 if binary else offset)).astype("float32")
    loss = getattr(losses, name)(from_logits=True, label_smoothing=0.1)
    exact = getattr(losses, name)(from_logits=True, label_smoothing=0.1, dtype="float64")(
        y_true, logits.astype("float64") - (0.0 if binary else offset)
    )
    assert_close(backend, loss(y_true, backend.asarray(logits)), exact, "float32", factor=10)
