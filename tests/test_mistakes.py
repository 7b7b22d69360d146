"""Messages for the mistakes that users make most often name the remedy, on every backend."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import require_backend

import lsmooth
from lsmooth import analysis, calibration, distillation, losses, metrics, smoothing
from lsmooth.backends import Backend
from lsmooth.compat import torch as compat_torch

LOGITS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
IDS = np.array([0, 1, 2, 0])
IMAGES = np.zeros((2, 3, 4, 5), np.float32)
PIXELS = np.zeros((2, 4, 5), np.int64)
WEIGHT = np.ones((5, 3), np.float32)

SWAPPED = {
    "softmax_cross_entropy": lambda ids, logits: losses.softmax_cross_entropy(logits, ids),
    "softmax_focal_loss": lambda ids, logits: losses.softmax_focal_loss(logits, ids),
    "poly_cross_entropy": lambda ids, logits: losses.poly_cross_entropy(logits, ids),
    "generalized_cross_entropy": lambda ids, logits: losses.generalized_cross_entropy(logits, ids),
    "margin_label_smoothing": lambda ids, logits: losses.margin_label_smoothing(logits, ids),
    "sigmoid_cross_entropy": lambda ids, logits: losses.sigmoid_cross_entropy(logits, ids),
    "sigmoid_focal_loss": lambda ids, logits: losses.sigmoid_focal_loss(logits, ids),
    "hidden states": lambda ids, logits: losses.linear_softmax_cross_entropy(logits, ids, WEIGHT),
    "weight": lambda ids, logits: losses.linear_softmax_cross_entropy(logits, WEIGHT, ids),
    "expected_calibration_error": lambda ids, logits: metrics.expected_calibration_error(logits, ids),
    "brier_score": lambda ids, logits: metrics.brier_score(logits, ids, from_logits=True),
    "CalibrationError": lambda ids, logits: metrics.CalibrationError().update_state(logits, ids),
    "teacher_wrong_class_mass": lambda ids, logits: analysis.teacher_wrong_class_mass(logits, ids),
    "DistillationLoss": lambda ids, logits: distillation.DistillationLoss()(logits, logits, ids),
}


@pytest.mark.parametrize("call", SWAPPED.values(), ids=SWAPPED)
def test_the_error_for_swapped_labels_and_logits_says_labels_come_first(backend: Backend, call) -> None:
    with pytest.raises(TypeError, match=r"^labels come first, as in \w+\(labels, .*, and labels got float32"):
        call(backend.asarray(IDS), backend.asarray(LOGITS))


def test_the_error_for_swapped_lists_says_labels_come_first() -> None:
    with pytest.raises(TypeError, match=r"labels come first, as in softmax_cross_entropy\(labels, logits\)"):
        losses.softmax_cross_entropy([[0.5, 1.5], [2.0, 0.0]], [0, 1])


def test_integer_logits_in_the_right_place_are_to_be_cast(backend: Backend) -> None:
    with pytest.raises(TypeError, match="logits must be floating point, got int32; cast it"):
        losses.softmax_cross_entropy(backend.asarray(IDS), backend.asarray(LOGITS.astype(np.int32)))


@pytest.mark.parametrize(
    "name", ["sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy", "kl_divergence"]
)
def test_the_error_for_swapped_keras_arguments_says_their_order(backend: Backend, name: str) -> None:
    with pytest.raises(ValueError, match="y_true comes first, y_pred second"):
        getattr(losses, name)(backend.asarray(LOGITS), backend.asarray(IDS))


@pytest.mark.parametrize(
    "scaler",
    [
        calibration.TemperatureScaling(),
        calibration.TemperatureScaling(binary=True),
        calibration.VectorScaling(),
        calibration.HistogramBinning(),
    ],
    ids=repr,
)
def test_the_error_for_swapped_fit_arguments_says_logits_come_first(backend: Backend, scaler) -> None:
    with pytest.raises(TypeError, match=r"^logits come first, as in fit\(logits, labels\)"):
        scaler.fit(backend.asarray(IDS), backend.asarray(LOGITS))


def test_the_error_for_swapped_torch_arguments_says_input_comes_first(backend: Backend) -> None:
    with pytest.raises(TypeError, match=r"^input comes first, as in loss\(input, labels\)"):
        compat_torch.cross_entropy(backend.asarray(IDS), backend.asarray(LOGITS))


def test_the_error_for_swapped_module_arguments_says_input_comes_first() -> None:
    require_backend("torch")
    import torch

    from lsmooth.integrations import torch as modules

    ids, logits = torch.tensor(IDS), torch.tensor(LOGITS)
    for loss in (modules.CrossEntropyLoss(), modules.BCEWithLogitsLoss()):
        with pytest.raises(TypeError, match=r"^input comes first, as in loss\(input, target\).*int64.*float32"):
            loss(ids, logits)
    with pytest.raises(TypeError, match=r"^input comes first, as in loss\(input, teacher, target\)"):
        modules.DistillationLoss()(ids, logits, logits)


@pytest.mark.parametrize("order", ["student first", "indices second"])
def test_the_error_for_swapped_sparse_teachers_says_indices_come_first(backend: Backend, order: str) -> None:
    indices, kept, student = (backend.asarray(x) for x in (np.zeros((4, 2), np.int64), LOGITS[:, :2], LOGITS))
    arguments = (student, indices, kept) if order == "student first" else (kept, indices, student)
    with pytest.raises(TypeError, match=r"^teacher_indices come first, as in sparse_distillation_loss\("):
        distillation.sparse_distillation_loss(*arguments)


def test_swapped_teacher_and_student_are_detected_by_their_gradients() -> None:
    require_backend("torch")
    import torch

    teacher, student = torch.tensor(LOGITS), torch.tensor(LOGITS[::-1].copy(), requires_grad=True)
    functions = (
        distillation.distillation_loss,
        distillation.standardized_distillation_loss,
        lambda first, second: distillation.decoupled_distillation_loss(first, second, torch.tensor(IDS)),
        lambda first, second: distillation.DistillationLoss()(torch.tensor(IDS), first, second),
    )
    for function in functions:
        with pytest.warns(UserWarning, match="teacher_logits requires a gradient and student_logits does not"):
            function(student, teacher)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function(teacher, student)
            with torch.no_grad():
                function(teacher, teacher)


FITTING = {
    "softmax_cross_entropy": lambda labels, logits: losses.softmax_cross_entropy(labels, logits),
    "softmax_focal_loss": lambda labels, logits: losses.softmax_focal_loss(labels, logits),
    "expected_calibration_error": lambda labels, logits: metrics.expected_calibration_error(labels, logits),
    "fit": lambda labels, logits: calibration.TemperatureScaling().fit(logits, labels),
    "distillation_loss": lambda labels, logits: distillation.distillation_loss(
        logits, logits, labels=labels, ignore_index=-1
    ),
    "sparse_categorical_crossentropy": lambda labels, logits: losses.sparse_categorical_crossentropy(labels, logits),
}


@pytest.mark.parametrize("call", FITTING.values(), ids=FITTING)
def test_labels_that_fit_another_class_axis_get_an_axis_hint(backend: Backend, call) -> None:
    with pytest.raises(ValueError, match=r"labels fit axis=1\."):
        call(backend.asarray(PIXELS), backend.asarray(IMAGES))


def test_a_mask_that_fits_another_class_axis_gets_an_axis_hint(backend: Backend) -> None:
    images = backend.asarray(IMAGES)
    with pytest.raises(ValueError, match=r"got \(2, 4, 5\)\. The mask fits axis=1\."):
        distillation.distillation_loss(images, images, mask=backend.asarray(PIXELS == 0))


def test_the_error_for_labels_of_one_column_asks_to_drop_the_axis(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"got \(4, 1\)\. Drop the last axis: labels\[\.\.\., 0\]"):
        losses.softmax_cross_entropy(backend.asarray(IDS[:, None]), backend.asarray(LOGITS))


def test_the_error_for_class_ids_in_a_sigmoid_loss_names_the_softmax_loss(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"got \(4,\)\. Class ids are labels of softmax_cross_entropy"):
        losses.sigmoid_cross_entropy(backend.asarray(IDS), backend.asarray(LOGITS))


def test_labels_that_fit_no_class_axis_get_no_axis_hint(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"got \(2,\)\.$"):
        losses.softmax_cross_entropy(backend.asarray(IDS[:2]), backend.asarray(LOGITS))


def test_the_error_for_a_torch_layer_as_weight_names_its_tensors() -> None:
    require_backend("torch")
    import torch

    hidden, layer = torch.zeros(4, 3), torch.nn.Linear(3, 5)
    with pytest.raises(TypeError, match=r"^weight must be .*got a layer \(Linear\); pass layer.weight, and layer.bias"):
        losses.linear_softmax_cross_entropy(torch.tensor(IDS), hidden, layer)
    with pytest.raises(TypeError, match=r"^teacher_weight must be .* layer.bias as teacher_bias"):
        distillation.linear_distillation_loss(hidden, layer, hidden, layer.weight)
    with pytest.raises(TypeError, match=r"^student_weight must be "):
        distillation.linear_distillation_loss(hidden, layer.weight, hidden, layer)


def test_the_error_for_a_keras_layer_as_weight_asks_for_its_transposed_kernel() -> None:
    xp = require_backend("tensorflow")
    import keras

    layer = keras.layers.Dense(5)
    layer.build((None, 3))
    with pytest.raises(TypeError, match=r"got a layer \(Dense\); pass its kernel, transposed"):
        losses.linear_softmax_cross_entropy(IDS, xp.asarray(LOGITS), layer)


def test_a_weight_of_features_by_classes_is_to_be_transposed(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"got \(3, 5\)\. Transpose it"):
        losses.linear_softmax_cross_entropy(IDS, backend.asarray(LOGITS), backend.asarray(WEIGHT.T))


class Classifier:
    """A model of scikit-learn's kind."""

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return inputs


SCALERS = [
    getattr(calibration, name)
    for name in calibration.__all__
    if name != "Calibrator" and hasattr(getattr(calibration, name), "fit")
]


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("model", [lambda inputs: inputs, Classifier()], ids=["callable", "scikit-learn"])
def test_fit_of_a_model_names_what_calibrates_models(scaler, model) -> None:
    groups = ([0, 0, 1, 1],) if scaler is calibration.GroupTemperatureScaling else ()
    with pytest.raises(TypeError, match=r"fit takes logits, got a model .*TemperatureScaled\(model\)\.calibrate"):
        scaler().fit(model, IDS, *groups)


def test_the_error_for_a_model_as_logits_asks_to_call_it(backend: Backend) -> None:
    with pytest.raises(TypeError, match=r"logits must be .*Call the model on its inputs"):
        losses.softmax_cross_entropy(backend.asarray(IDS), lambda inputs: inputs)


@pytest.mark.parametrize("labels", [[[3, 1], [2, 0]], [[1, 1], [0, 1]], [[2, -1], [1, 0]], [[0, 0, 2]]])
def test_class_ids_of_two_axes_need_the_number_of_classes(backend: Backend, labels: list) -> None:
    with pytest.raises(ValueError, match="num_classes is needed to smooth class ids"):
        smoothing.smooth_labels(backend.asarray(np.array(labels)), 0.1)


@pytest.mark.parametrize("smooth", [smoothing.binary_smooth_labels, smoothing.multilabel_smooth_labels])
def test_class_ids_are_refused_as_binary_labels(backend: Backend, smooth) -> None:
    with pytest.raises(ValueError, match=r"labels must be 0 or 1.*for class ids use smooth_labels"):
        smooth(backend.asarray(np.array([[3, 1], [-1, 0]])), 0.1)
    smoothed = backend.to_numpy(smooth(backend.asarray(np.array([[1, 1], [0, 0]])), 0.0))
    np.testing.assert_array_equal(smoothed, [[1, 1], [0, 0]])


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_one_hot_integers_are_distributions(backend: Backend, dtype: str) -> None:
    labels = np.array([[0, 1], [1, 0], [0, 0]], dtype)
    smoothed = backend.to_numpy(smoothing.smooth_labels(backend.asarray(labels), 0.2))
    np.testing.assert_allclose(smoothed, 0.8 * labels + 0.1, rtol=1e-6)


def test_traced_class_ids_of_two_axes_give_nan() -> None:
    require_backend("jax")
    import jax

    smoothed = jax.jit(lambda labels: smoothing.smooth_labels(labels, 0.1))(np.array([[3, 1], [1, 0]]))
    assert np.isnan(smoothed[0]).all()
    np.testing.assert_allclose(smoothed[1], [0.95, 0.05])


# The name of each module of lsmooth, of a package that it needs, and of the extra that installs it.
MODULES = [
    ("lsmooth.integrations.torch", "torch", "torch"),
    ("lsmooth.integrations._torch_options", "torch", "torch"),
    ("lsmooth.integrations.keras", "keras", "keras"),
    ("lsmooth.integrations.flax", "jax", "jax"),
    ("lsmooth.integrations.flax", "flax", "jax"),
    ("lsmooth.integrations.sklearn", "sklearn", "sklearn"),
]


@pytest.mark.parametrize(("module", "package", "extra"), MODULES)
def test_a_missing_framework_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str, extra: str
) -> None:
    if package == "flax":
        pytest.importorskip("jax")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match=rf"needs {package}, .*pip install 'lsmooth\[{extra}\]'") as caught:
        __import__(module)
    assert caught.value.name == package


class Absent:
    """A finder that does not find a package."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, path=None, target=None) -> None:
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_another_missing_package_keeps_its_own_message() -> None:
    from lsmooth.integrations._extras import needs

    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'filelock'$"), needs("torch", "torch"):
        raise ModuleNotFoundError("No module named 'filelock'", name="filelock")


def test_calibrators_without_scipy_name_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    labels = np.tile(IDS, 60)
    with pytest.raises(ImportError, match=r"need SciPy: pip install 'lsmooth\[calibrate\]'"):
        calibration.MatrixScaling().fit(np.tile(LOGITS, (60, 1)), labels)


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("softmax_cross_entropy", "losses"),
        ("TemperatureScaling", "calibration"),
        ("smooth_labels", "smoothing"),
        ("brier_score", "metrics"),
    ],
)
def test_a_name_of_a_module_is_imported_from_there(name: str, home: str) -> None:
    instead = f"from lsmooth.{home} import {name}"
    with pytest.raises(ImportError, match=instead):
        exec(f"from lsmooth import {name}")
    with pytest.raises(AttributeError, match=instead):
        getattr(lsmooth, name)
    assert not hasattr(lsmooth, name)


def test_a_name_of_no_module_is_refused() -> None:
    with pytest.raises(ImportError, match="cannot import name 'distilation'"):
        exec("from lsmooth import distilation")
    assert not hasattr(lsmooth, "__wrapped__")


def test_integrations_are_attributes_that_import_their_framework_when_asked() -> None:
    program = (
        "import sys, lsmooth; lsmooth.integrations; dir(lsmooth.integrations);"
        "sys.exit(' '.join({'torch', 'keras', 'jax', 'sklearn'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not run.stderr.strip(), run.stderr
    assert lsmooth.integrations.transformers.compute_loss_func
    with pytest.raises(AttributeError, match=r"lsmooth\.integrations' has no attribute 'mxnet'"):
        lsmooth.integrations.mxnet  # noqa: B018


@pytest.mark.parametrize("load", [calibration.load, calibration.TemperatureScaling.load])
def test_a_missing_calibrator_is_named_by_its_path(tmp_path, load) -> None:
    path = tmp_path / "scaler.json"
    with pytest.raises(FileNotFoundError, match=r"save\(path\) has written.*scaler\.json"):
        load(path)
    with pytest.raises(OSError, match=r"save\(path\) has written"):
        load(tmp_path)
