"""One small call of every public function and class, for tests that hold of all of them.

A row is a function of arrays: its first parameter is the public object, the others name arrays of
`INPUTS`. So the same row can be called on any backend, traced by ``jax.jit`` or ``tf.function``, or
fed with placeholders. A row may be called ``"losses.softmax_cross_entropy, class weights"``: what
stands before the comma is the public name.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lsmooth.backends import Backend

MODULES = (
    "losses",
    "smoothing",
    "distillation",
    "preference",
    "calibration",
    "metrics",
    "analysis",
    "compat.annotated_transformer",
    "compat.distillkit",
    "compat.fairseq",
    "compat.megatron",
    "compat.opennmt",
    "compat.optax",
    "compat.tf_losses",
    "compat.timm",
    "compat.torch",
    "compat.transformers",
    "compat.ultralytics",
)
"""What takes and returns arrays of any framework.

Not here: `plots` draws and `study` trains; `integrations` are bound to one framework, and `testing` and `backends`
are for those who write a backend. Each has tests of its own.
"""

WITHOUT_A_ROW = {
    "analysis.Projection": "what penultimate_projection returns",
    "calibration.Calibrator": "a base class",
    "calibration.ConvergenceWarning": "a warning",
    "compat.tf_losses.Reduction": "names of reductions",
    "losses.Loss": "a base class",
    "losses.SoftmaxStatistics": "what softmax_statistics returns",
    "metrics.BrierDecomposition": "what brier_decomposition returns",
    "metrics.CalibrationSlope": "what calibration_slope returns",
    "metrics.ConsistencyBand": "what consistency_band returns",
    "metrics.CorpCurve": "what corp_reliability_curve returns",
    "metrics.CorpDecomposition": "what corp_decomposition returns",
    "metrics.Explanation": "what explain_difference returns",
    "metrics.Interval": "what metric_interval returns",
    "metrics.Metric": "a base class",
    "metrics.ReliabilityCurve": "what reliability_curve returns",
    "metrics.RiskCoverageCurve": "what risk_coverage_curve returns",
}


def public_names() -> list[str]:
    """Every public function and class of `MODULES`, by its module and name."""
    names = []
    for path in MODULES:
        module = importlib.import_module(f"lsmooth.{path}")
        own = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == module.__name__
        ]
        names += [f"{path}.{name}" for name in getattr(module, "__all__", own)]
    return names


def _softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def _inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    # Exact in float32, so that a float32 call differs from a float64 one by its own rounding only.
    normal = lambda *shape: np.round(256.0 * rng.normal(0.0, 2.0, shape)) / 256.0  # noqa: E731
    logits, teacher = normal(4, 3), normal(4, 3)
    many = normal(30, 3)
    many_ids = np.where(rng.random(30) < 0.6, many.argmax(-1), rng.integers(0, 3, 30))
    soft = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.125, 0.125, 0.75], [0.25, 0.5, 0.25]])
    return {
        "logits": logits,
        "logits_2": teacher,
        "ids": np.array([0, 2, 1, 2]),
        "ids_with_gap": np.array([0, -100, 1, 2]),
        "soft": soft,
        "one_hot": np.eye(3)[[0, 2, 1, 2]],
        "probabilities": _softmax(logits),
        "log_probs": np.log(_softmax(logits)),
        "log_targets": np.log(_softmax(teacher)),
        "binary": np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
        "row_weight": np.array([1.0, 0.5, 2.0, 0.0]),
        "class_weight": np.array([0.5, 1.0, 2.0]),
        "prior": np.array([0.5, 0.25, 0.25]),
        "row_eps": np.array([0.0, 0.125, 0.25, 0.5]),
        "row_temperature": np.array([0.5, 1.0, 2.0, 4.0]),
        "counted": np.array([True, True, False, True]),
        "hidden": normal(4, 5),
        "weight": normal(3, 5),
        "bias": normal(3),
        "teacher_hidden": normal(4, 2),
        "teacher_weight": normal(3, 2),
        "features": normal(4, 2, 3),
        "features_2": normal(4, 2, 3),
        "embeddings": normal(4, 5),
        "embeddings_2": normal(4, 5),
        "top_ids": np.array([[0, 1], [2, 0], [1, 2], [2, 1]]),
        "top_log_probs": np.log(np.array([[0.5, 0.25], [0.75, 0.125], [0.5, 0.375], [0.25, 0.25]])),
        "sequences": normal(2, 4, 3),
        "sequence_ids": np.array([[0, 2, -100, 1], [2, 1, 1, -100]]),
        "images": normal(2, 3, 2, 2),
        "image_ids": np.array([[[0, 2], [1, 1]], [[2, 0], [0, 1]]]),
        "many_logits": many,
        "many_ids": many_ids,
        "groups": np.arange(30) % 2,
        "angles": np.array([5.0, 93.0, -20.0]),
        "scores": normal(2, 18),
        "counts": np.array([500, 250, 1]),
        "ancestors": np.array([[0, 0], [0, 1], [1, 2]]),
        "line_ids": np.array([[0, 0, 2, 1], [1, 1, 1, 0]]),
        "class_smoothing": np.array([0.25, 0.125, 0.0]),
        "differences": normal(6, 2),
        "points": normal(4, 2),
        "policy": normal(4),
        "policy_2": normal(4),
        "square": normal(3, 3),
        "line_mask": np.array([[True, False, True, True], [False, False, False, False]]),
    }


INPUTS: Mapping[str, np.ndarray] = _inputs()
"""Small arrays by name: float64, int64 and bool."""


def _predicted(f: Any, logits: Any, labels: Any, **options: Any) -> Any:
    """A calibrator's probabilities for the logits it was fitted on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f(**options).fit(logits, labels).predict_proba(logits)


def _streamed(f: Any, labels: Any, predictions: Any, **options: Any) -> Any:
    """A metric of two batches, the second merged in."""
    one, other = f(**options), f(**options)
    one.update_state(labels[:2, ...], predictions[:2, ...])
    other.update_state(labels[2:, ...], predictions[2:, ...])
    return one.merge_state(other).result()


def _online(f: Any, ids: Any, logits: Any) -> Any:
    smoother = f(3, alpha=0.75)
    smoother.update_state(ids, logits)
    smoother.next_epoch()
    return smoother.smooth_labels(ids)


def _moving(f: Any, ids: Any, logits: Any) -> Any:
    teacher = f(8, 3)
    teacher.update_state([0, 1, 2, 5], logits)
    return teacher.logits(ids, like=logits)


def _from_config(f: Any, *arrays: Any, **options: Any) -> Any:
    """A loss that went through its configuration."""
    loss = f(**options)
    return type(loss).from_config(loss.get_config())(*arrays)


def _restored(f: Any, soft: Any, probabilities: Any) -> Any:
    losses = importlib.import_module("lsmooth.losses")
    return losses.deserialize(f(losses.CategoricalCrossentropy(label_smoothing=0.125)))(soft, probabilities)


def _made(f: Any, soft: Any, probabilities: Any) -> Any:
    settings = {"class_name": "CategoricalCrossentropy", "config": {"label_smoothing": 0.125}}
    return f(settings)(soft, probabilities)


def _loaded(f: Any, many_logits: Any) -> Any:
    import tempfile
    from pathlib import Path

    from lsmooth.calibration import TemperatureScaling

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "temperature.json"
        TemperatureScaling().fit(INPUTS["many_logits"], INPUTS["many_ids"]).save(path)
        return f(path).transform(many_logits)


def _deprecated(f: Any, *arrays: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return f(*arrays)


def _top_k(f: Any, labels: Any, predictions: Any, **options: Any) -> Any:
    from lsmooth.metrics import top_k_accuracy

    return f(top_k_accuracy, labels, predictions, **options)


CALLS: Mapping[str, Callable[..., Any]] = {
    # losses
    "losses.softmax_cross_entropy": lambda f, ids, logits: f(ids, logits, label_smoothing=0.125),
    "losses.softmax_cross_entropy, per row": lambda f, soft, logits, row_eps, row_temperature: f(
        soft, logits, label_smoothing=row_eps, temperature=row_temperature, reduction="none"
    ),
    "losses.softmax_cross_entropy, per class": lambda f, ids_with_gap, logits, prior, class_weight, row_weight: f(
        ids_with_gap,
        logits,
        label_smoothing=0.125,
        smoothing_prior=prior,
        class_weight=class_weight,
        sample_weight=row_weight,
        ignore_index=-100,
        z_loss=0.125,
        logit_softcap=8.0,
    ),
    "losses.softmax_cross_entropy, images": lambda f, image_ids, images: f(
        image_ids, images, axis=1, label_smoothing=0.125, reduction="sum_by_nonzero_weights"
    ),
    "losses.sigmoid_cross_entropy": lambda f, binary, logits: f(binary, logits, label_smoothing=0.125),
    "losses.sigmoid_cross_entropy, per class": lambda f, binary, logits, class_weight, row_weight: f(
        binary, logits, pos_weight=class_weight, sample_weight=row_weight[:, None], reduction="none"
    ),
    "losses.linear_softmax_cross_entropy": lambda f, ids, hidden, weight, bias: f(
        ids, hidden, weight, bias, label_smoothing=0.125, block_size=2
    ),
    "losses.linear_softmax_cross_entropy, per row": lambda f, ids_with_gap, hidden, weight, row_eps, row_weight: f(
        ids_with_gap,
        hidden,
        weight,
        label_smoothing=row_eps,
        sample_weight=row_weight,
        ignore_index=-100,
        reduction="none",
        block_size=2,
    ),
    "losses.linear_softmax_statistics": lambda f, ids, hidden, weight, bias, row_temperature: f(
        ids, hidden, weight, bias, temperature=row_temperature, block_size=2
    ),
    "losses.linear_softmax_cross_entropy_with_statistics": lambda f, ids_with_gap, hidden, weight, bias, row_eps: f(
        ids_with_gap, hidden, weight, bias, label_smoothing=row_eps, ignore_index=-100, block_size=2
    ),
    "losses.softmax_statistics": lambda f, ids, logits, row_temperature: f(
        ids, logits, temperature=row_temperature, logit_softcap=8.0
    ),
    "losses.softmax_statistics, padding": lambda f, ids, hidden: f(ids, hidden, num_classes=3),
    "losses.softmax_cross_entropy_with_statistics": lambda f, ids_with_gap, logits: f(
        ids_with_gap, logits, label_smoothing=0.125, ignore_index=-100
    ),
    "losses.softmax_cross_entropy_with_statistics, soft": lambda f, soft, logits, counted: f(
        soft, logits, mask=counted, z_loss=0.125, reduction="none"
    ),
    "losses.softmax_focal_loss": lambda f, ids, logits, class_weight: f(
        ids, logits, alpha=class_weight, label_smoothing=0.125
    ),
    "losses.sigmoid_focal_loss": lambda f, binary, logits: f(binary, logits, alpha=0.25),
    "losses.poly_cross_entropy": lambda f, ids, logits: f(ids, logits, label_smoothing=0.125),
    "losses.generalized_cross_entropy": lambda f, ids, logits: f(ids, logits),
    "losses.symmetric_cross_entropy": lambda f, ids, logits: f(ids, logits),
    "losses.bootstrap_cross_entropy": lambda f, ids, logits: f(ids, logits, label_smoothing=0.125),
    "losses.bootstrap_cross_entropy, hard": lambda f, soft, logits: f(soft, logits, hard=True),
    "losses.margin_label_smoothing": lambda f, ids, logits: f(ids, logits, margin=1.0),
    "losses.adaptive_conditional_label_smoothing": lambda f, ids, logits: f(ids, logits, margin=1.0),
    "losses.max_suppression": lambda f, ids, logits: f(ids, logits),
    "losses.confidence_penalty": lambda f, ids_with_gap, logits: f(ids_with_gap, logits, ignore_index=-100),
    "losses.logit_penalty": lambda f, ids, logits: f(ids, logits, beta=0.125),
    "losses.categorical_crossentropy": lambda f, soft, probabilities: f(soft, probabilities, label_smoothing=0.125),
    "losses.sparse_categorical_crossentropy": lambda f, ids_with_gap, probabilities: f(
        ids_with_gap, probabilities, ignore_class=-100, label_smoothing=0.125
    ),
    "losses.binary_crossentropy": lambda f, binary, probabilities: f(binary, probabilities, label_smoothing=0.125),
    "losses.categorical_focal_crossentropy": lambda f, soft, logits: f(soft, logits, from_logits=True),
    "losses.binary_focal_crossentropy": lambda f, binary, probabilities: f(
        binary, probabilities, apply_class_balancing=True
    ),
    "losses.kl_divergence": lambda f, soft, probabilities: f(soft, probabilities),
    "losses.CategoricalCrossentropy": lambda f, soft, logits, row_weight: f(from_logits=True, label_smoothing=0.125)(
        soft, logits, sample_weight=row_weight
    ),
    "losses.SparseCategoricalCrossentropy": lambda f, ids, probabilities: _from_config(
        f, ids, probabilities, label_smoothing=0.125
    ),
    "losses.BinaryCrossentropy": lambda f, binary, logits: f(from_logits=True)(binary, logits),
    "losses.CategoricalFocalCrossentropy": lambda f, soft, probabilities: f()(soft, probabilities),
    "losses.BinaryFocalCrossentropy": lambda f, binary, logits: f(from_logits=True)(binary, logits),
    "losses.KLDivergence": lambda f, soft, probabilities: f(reduction=None)(soft, probabilities),
    "losses.get": lambda f, soft, probabilities: f("categorical_crossentropy")(soft, probabilities),
    "losses.serialize": _restored,
    "losses.deserialize": _made,
    # smoothing
    "smoothing.smooth_labels": lambda f, ids, prior: f(ids, 0.125, num_classes=3, prior=prior),
    "smoothing.smooth_labels, padding": lambda f, ids: f(ids, 0.125, num_classes=3, padding_idx=1),
    "smoothing.binary_smooth_labels": lambda f, binary: f(binary, 0.125),
    "smoothing.multilabel_smooth_labels": lambda f, binary: f(binary, 0.125, normalize=True),
    "smoothing.negative_smooth_labels": lambda f, ids: f(ids, -0.25, num_classes=3),
    "smoothing.noise_correcting_smoothing": lambda f: f(0.25, 10),
    "smoothing.similarity_smooth_labels": lambda f, ids, ancestors: f(
        ids, 0.125, similarity=np.array([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    ),
    "smoothing.hierarchy_similarity": lambda f, ancestors: f(ancestors, beta=2.0),
    "smoothing.circular_smooth_labels": lambda f, ids: f(ids, 3, radius=1.0),
    "smoothing.circular_bins": lambda f, angles: f(angles, 18),
    "smoothing.circular_angles": lambda f, scores: f(scores),
    "smoothing.ordinal_smooth_labels": lambda f, ids: f(ids, 3, sigma=0.5),
    "smoothing.spatial_smooth_labels": lambda f, line_ids: f(line_ids, 3, spatial_dims=1),
    "smoothing.class_prior": lambda f, ids, row_weight: f(ids, 3, sample_weight=row_weight, pseudo_count=1.0),
    "smoothing.label_aware_smoothing": lambda f, counts: f(counts),
    "smoothing.smoothing_of_labels": lambda f, ids, class_smoothing: f(ids, class_smoothing),
    "smoothing.linear_schedule": lambda f: f(0.0, 0.5, 10)(3),
    "smoothing.cosine_schedule": lambda f: f(0.0, 0.5, 10)(3),
    "smoothing.OnlineLabelSmoothing": _online,
    # distillation
    "distillation.distillation_loss": lambda f, logits, logits_2: f(logits_2, logits, temperature=2.0),
    "distillation.distillation_loss, per row": lambda f, logits, logits_2, row_temperature, counted: f(
        logits_2, logits, temperature=row_temperature, divergence="jensen_shannon", mask=counted, reduction="none"
    ),
    "distillation.decoupled_distillation_loss": lambda f, logits, logits_2, ids: f(
        logits_2, logits, ids, temperature=2.0
    ),
    "distillation.standardized_distillation_loss": lambda f, logits, logits_2: f(logits_2, logits, temperature=2.0),
    "distillation.gkd_loss": lambda f, logits, logits_2, ids_with_gap: f(logits_2, logits, labels=ids_with_gap),
    "distillation.ensemble_distillation_loss": lambda f, logits, logits_2, probabilities: f(
        [logits_2, probabilities], logits, teacher_weights=[0.75, 0.25], temperature=2.0
    ),
    "distillation.mutual_distillation_losses": lambda f, logits, logits_2: f([logits, logits_2]),
    "distillation.sparse_distillation_loss": lambda f, top_ids, top_log_probs, logits: f(
        top_ids, top_log_probs, logits, tail="bucket"
    ),
    "distillation.linear_sparse_distillation_loss": lambda f, top_ids, top_log_probs, hidden, weight, bias, ids: f(
        top_ids, top_log_probs, hidden, weight, bias, labels=ids, tail="bucket", temperature=2.0, block_size=2
    ),
    "distillation.linear_distillation_loss": lambda f, teacher_hidden, teacher_weight, hidden, weight, bias, ids: f(
        teacher_hidden,
        teacher_weight,
        hidden,
        weight,
        student_bias=bias,
        labels=ids,
        alpha=0.25,
        label_smoothing=0.125,
        temperature=2.0,
        block_size=2,
    ),
    "distillation.hint_loss": lambda f, features, features_2: f(features_2, features),
    "distillation.attention_transfer_loss": lambda f, features, features_2, row_weight: f(
        features_2, features, sample_weight=row_weight
    ),
    "distillation.similarity_preserving_loss": lambda f, embeddings, features: f(embeddings, features),
    "distillation.relational_distance_loss": lambda f, embeddings, embeddings_2: f(embeddings_2, embeddings),
    "distillation.relational_angle_loss": lambda f, embeddings, embeddings_2: f(embeddings_2, embeddings),
    "distillation.contrastive_distillation_loss": lambda f, embeddings, embeddings_2, ids: f(
        embeddings_2, embeddings, labels=ids
    ),
    "distillation.virtual_teacher_logits": lambda f, ids: f(ids, 3, confidence=0.75),
    "distillation.DistillationLoss": lambda f, ids, logits, logits_2: f(0.25, 2.0, label_smoothing=0.125)(
        ids, logits_2, logits
    ),
    "distillation.MovingAverageTeacher": _moving,
    # preference
    "preference.dpo_loss": lambda f, policy, policy_2, row_eps: f(
        policy, policy_2, row_eps, row_eps, beta=0.5, label_smoothing=0.125
    ),
    "preference.dpo_loss, per pair": lambda f, policy, policy_2, row_eps, row_temperature, row_weight, counted: f(
        policy,
        policy_2,
        row_eps,
        row_temperature,
        beta=row_temperature,
        label_smoothing=row_eps,
        sample_weight=row_weight,
        mask=counted,
        reduction="none",
    ),
    "preference.dpo_loss, robust": lambda f, policy, policy_2, row_eps: f(
        policy, policy_2, row_eps, row_eps, label_smoothing=0.125, loss_type="robust"
    ),
    "preference.dpo_loss, exo": lambda f, policy, policy_2, row_eps: f(
        policy, policy_2, row_eps, row_eps, label_smoothing=0.125, loss_type="exo_pair", reduction="sum"
    ),
    "preference.dpo_loss, hinge": lambda f, policy, policy_2, row_eps: f(
        policy, policy_2, row_eps, row_eps, loss_type="hinge"
    ),
    "preference.dpo_loss, ipo": lambda f, policy, policy_2, row_eps: f(
        policy, policy_2, row_eps, row_eps, beta=0.5, loss_type="ipo"
    ),
    "preference.reward_loss": lambda f, policy, policy_2, row_temperature: f(
        policy, policy_2, margin=row_temperature, label_smoothing=0.125
    ),
    "preference.sequence_log_prob": lambda f, sequence_ids, sequences: f(sequence_ids, sequences, temperature=2.0),
    "preference.sequence_log_prob, mean": lambda f, line_ids, sequences, line_mask: f(
        line_ids, sequences, mask=line_mask, length_normalized=True
    ),
    "preference.linear_sequence_log_prob": lambda f, sequence_ids, sequences, square, class_weight: f(
        sequence_ids, sequences, square, class_weight, length_normalized=True, block_size=2
    ),
    # calibration
    "calibration.TemperatureScaling": lambda f, many_logits, many_ids: _predicted(f, many_logits, many_ids),
    "calibration.VectorScaling": lambda f, many_logits, many_ids: _predicted(f, many_logits, many_ids),
    "calibration.BiasCorrectedTemperatureScaling": lambda f, many_logits, many_ids: _predicted(
        f, many_logits, many_ids
    ),
    "calibration.MatrixScaling": lambda f, many_logits, many_ids: _predicted(
        f, many_logits, many_ids, off_diagonal=0.125, intercept=0.125
    ),
    "calibration.DirichletCalibration": lambda f, many_logits, many_ids: _predicted(
        f, many_logits, many_ids, off_diagonal=0.125, intercept=0.125
    ),
    "calibration.MixedTemperatureScaling": lambda f, many_logits, many_ids: _predicted(f, many_logits, many_ids),
    "calibration.StructuredVectorScaling": lambda f, many_logits, many_ids: _predicted(f, many_logits, many_ids),
    "calibration.StructuredMatrixScaling": lambda f, many_logits, many_ids: _predicted(f, many_logits, many_ids),
    "calibration.QuadraticScaling": lambda f, many_logits, many_ids: _predicted(
        f, many_logits[..., 0], many_ids < 1, binary=True
    ),
    "calibration.HistogramBinning": lambda f, many_logits, many_ids: _predicted(f, many_logits, many_ids, n_bins=3),
    "calibration.IsotonicCalibration": lambda f, many_logits, many_ids: _predicted(f, many_logits, many_ids),
    "calibration.GroupTemperatureScaling": lambda f, many_logits, many_ids, groups: (
        f().fit(many_logits, many_ids, groups=groups).predict_proba(many_logits, groups=groups)
    ),
    "calibration.apply_temperature": lambda f, logits, row_temperature: f(logits, row_temperature),
    "calibration.load": _loaded,
    # metrics
    "metrics.expected_calibration_error": lambda f, ids, probabilities: f(ids, probabilities, n_bins=3),
    "metrics.maximum_calibration_error": lambda f, ids, logits: f(ids, logits, from_logits=True, n_bins=3),
    "metrics.adaptive_calibration_error": lambda f, ids, probabilities, row_weight: f(
        ids, probabilities, n_bins=2, sample_weight=row_weight
    ),
    "metrics.classwise_calibration_error": lambda f, ids, probabilities: f(ids, probabilities, n_bins=3),
    "metrics.smooth_calibration_error": lambda f, many_ids, many_logits: f(
        many_ids, many_logits, from_logits=True, bandwidth=0.125
    ),
    "metrics.brier_score": lambda f, ids_with_gap, probabilities: f(ids_with_gap, probabilities, ignore_index=-100),
    "metrics.brier_decomposition": lambda f, ids, probabilities: f(ids, probabilities, n_bins=3),
    "metrics.negative_log_likelihood": lambda f, ids, logits: f(ids, logits, from_logits=True),
    "metrics.reliability_curve": lambda f, many_ids, many_logits: f(many_ids, many_logits, from_logits=True, n_bins=2),
    "metrics.classwise_reliability_curve": lambda f, many_ids, many_logits: f(
        many_ids, many_logits, from_logits=True, n_bins=2
    ),
    "metrics.consistency_band": lambda f, many_ids, many_logits: f(
        many_ids, many_logits, from_logits=True, n_bins=2, n_resamples=20
    ),
    "metrics.calibration_slope": lambda f, many_ids, many_logits: f(
        many_ids < 1, many_logits[..., 0], from_logits=True, binary=True
    ),
    "metrics.corp_decomposition": lambda f, many_ids, many_logits: f(many_ids, many_logits, from_logits=True),
    "metrics.corp_reliability_curve": lambda f, many_ids, many_logits: f(many_ids, many_logits, from_logits=True),
    "metrics.detection_calibration_error": lambda f, ids, probabilities: f(
        ids < 1, probabilities[..., 0], probabilities[..., 1:], n_bins=(3, 2, 2)
    ),
    "metrics.risk_coverage_curve": lambda f, ids, probabilities: f(ids, probabilities),
    "metrics.area_under_risk_coverage": lambda f, ids, probabilities: f(ids, probabilities),
    "metrics.top_k_accuracy": lambda f, ids, logits: f(ids, logits, k=2),
    "metrics.explain_difference": lambda f, many_ids, many_logits: f(many_ids, many_logits, from_logits=True),
    "metrics.metric_interval": lambda f, many_ids, many_logits: _top_k(f, many_ids, many_logits, n_resamples=20),
    "metrics.CalibrationError": lambda f, ids, probabilities: _streamed(f, ids, probabilities, n_bins=3),
    "metrics.BrierScore": lambda f, ids, probabilities: _streamed(f, ids, probabilities),
    "metrics.NegativeLogLikelihood": lambda f, ids, logits: _streamed(f, ids, logits, from_logits=True),
    "metrics.TopKAccuracy": lambda f, ids, logits: _streamed(f, ids, logits, k=2),
    # analysis
    "analysis.cluster_tightness": lambda f, points: f(points, np.array([0, 0, 1, 1])),
    "analysis.match_temperature": lambda f, ids, one_hot: f(ids, 8.0 * one_hot, 0.25),
    "analysis.mutual_information": lambda f, differences: f(differences),
    "analysis.penultimate_projection": lambda f, hidden, weight: f(
        hidden, np.array([0, 2, 1, 2]), weight, classes=(0, 1, 2)
    ),
    "analysis.teacher_entropy": lambda f, logits: f(logits, temperature=2.0),
    "analysis.teacher_wrong_class_mass": lambda f, ids, logits: f(ids, logits, temperature=2.0),
    # compat
    "compat.annotated_transformer.LabelSmoothing": lambda f, log_probs, ids: f(3, 1, 0.25)(log_probs, ids),
    "compat.distillkit.sparse_kl_div": lambda f, logits, top_ids, top_log_probs: f(
        logits, top_ids, top_log_probs, missing="symmetric_uniform", temperature=2.0
    ),
    "compat.fairseq.label_smoothed_nll_loss": lambda f, log_probs, ids_with_gap: f(
        log_probs, ids_with_gap, 0.125, ignore_index=-100
    ),
    "compat.megatron.vocab_parallel_cross_entropy": lambda f, logits, ids: f(logits, ids, 0.125),
    "compat.opennmt.LabelSmoothingLoss": lambda f, log_probs, ids: f(0.25, 3, ignore_index=1)(log_probs, ids),
    "compat.optax.smooth_labels": lambda f, soft: f(soft, 0.125),
    "compat.optax.softmax_cross_entropy": lambda f, logits, soft: f(logits, soft),
    "compat.optax.safe_softmax_cross_entropy": lambda f, logits, soft: f(logits, soft),
    "compat.optax.softmax_cross_entropy_with_integer_labels": lambda f, logits, ids: f(logits, ids),
    "compat.optax.sigmoid_binary_cross_entropy": lambda f, logits, binary: f(logits, binary),
    "compat.optax.sigmoid_focal_loss": lambda f, logits, binary: f(logits, binary, alpha=0.25),
    "compat.optax.poly_loss_cross_entropy": lambda f, logits, soft: f(logits, soft),
    "compat.optax.kl_divergence": lambda f, log_probs, soft: f(log_probs, soft),
    "compat.optax.kl_divergence_with_log_targets": lambda f, log_probs, log_targets: f(log_probs, log_targets),
    "compat.optax.generalized_kl_divergence": lambda f, log_probs, soft: f(log_probs, soft),
    "compat.optax.convex_kl_divergence": lambda f, log_probs, soft: _deprecated(f, log_probs, soft),
    "compat.tf_losses.softmax_cross_entropy": lambda f, one_hot, logits, row_weight: f(
        one_hot, logits, weights=row_weight, label_smoothing=0.125
    ),
    "compat.tf_losses.sparse_softmax_cross_entropy": lambda f, ids, logits: f(ids, logits, weights=0.5),
    "compat.tf_losses.sigmoid_cross_entropy": lambda f, binary, logits: f(binary, logits, label_smoothing=0.125),
    "compat.tf_losses.compute_weighted_loss": lambda f, logits, row_weight: f(logits, row_weight[:, None]),
    "compat.timm.LabelSmoothingCrossEntropy": lambda f, logits, ids: f(0.125)(logits, ids),
    "compat.timm.SoftTargetCrossEntropy": lambda f, logits, soft: f()(logits, soft),
    "compat.timm.BinaryCrossEntropy": lambda f, logits, ids: f(0.125)(logits, ids),
    "compat.torch.cross_entropy": lambda f, images, image_ids, class_weight: f(
        images, image_ids, weight=class_weight, label_smoothing=0.125
    ),
    "compat.torch.CrossEntropyLoss": lambda f, logits, ids_with_gap: f(label_smoothing=0.125)(logits, ids_with_gap),
    "compat.transformers.LabelSmoother": lambda f, sequences, sequence_ids: f(0.125)(
        {"logits": sequences}, sequence_ids, shift_labels=True
    ),
    "compat.ultralytics.smooth_BCE": lambda f: f(0.125),
}
"""The calls by public name, with a comma and what is special where a name has several."""

READ_VALUES = {
    "analysis.match_temperature",
    "calibration.BiasCorrectedTemperatureScaling",
    "calibration.DirichletCalibration",
    "calibration.GroupTemperatureScaling",
    "calibration.HistogramBinning",
    "calibration.IsotonicCalibration",
    "calibration.MatrixScaling",
    "calibration.MixedTemperatureScaling",
    "calibration.QuadraticScaling",
    "calibration.StructuredMatrixScaling",
    "calibration.StructuredVectorScaling",
    "calibration.TemperatureScaling",
    "calibration.VectorScaling",
    "distillation.MovingAverageTeacher",
    "metrics.BrierScore",
    "metrics.CalibrationError",
    "metrics.NegativeLogLikelihood",
    "metrics.TopKAccuracy",
    "metrics.calibration_slope",
    "metrics.consistency_band",
    "metrics.corp_decomposition",
    "metrics.corp_reliability_curve",
    "metrics.explain_difference",
    "metrics.metric_interval",
    "metrics.smooth_calibration_error",
    "smoothing.OnlineLabelSmoothing",
}
"""Calls that read the values of arrays, and so cannot be traced."""


def public_name(row: str) -> str:
    """The name of the function or class that a row calls."""
    return row.partition(",")[0]


def input_names(row: str) -> list[str]:
    """The arrays of a row, as names in `INPUTS`."""
    return list(inspect.signature(CALLS[row]).parameters)[1:]


def call(row: str, arrays: Mapping[str, Any], change: Callable[[Any], Any] = lambda public: public) -> Any:
    """The result of a row on these arrays, by name; ``change`` is applied to the public object."""
    path, _, name = public_name(row).rpartition(".")
    public = change(getattr(importlib.import_module(f"lsmooth.{path}"), name))
    return CALLS[row](public, **{name: arrays[name] for name in input_names(row)})


def converted(xp: Backend, row: str, floats: str = "float64", integers: str = "int64") -> dict[str, Any]:
    """The arrays of a row as arrays of a backend, in these dtypes."""

    def dtype(x: np.ndarray) -> str:
        return {"f": floats, "i": integers, "b": "bool"}[x.dtype.kind]

    return {name: xp.asarray(INPUTS[name].astype(dtype(INPUTS[name]))) for name in input_names(row)}


def total(xp: Backend, result: Any) -> Any:
    """The sum of all that is floating in a result, or None: something to differentiate."""
    if xp.is_array(result):
        return xp.sum(xp.cast(result, "float64")) if "float" in xp.dtype(result) else None
    if isinstance(result, list | tuple):
        totals = [part for part in (total(xp, x) for x in result) if part is not None]
        return sum(totals[1:], start=totals[0]) if totals else None
    return None


def parts(xp: Backend, result: Any) -> list[Any]:
    """The numbers of a result as NumPy arrays, and its strings, in order."""
    if xp.is_array(result):
        return [xp.to_numpy(result)]
    if dataclasses.is_dataclass(result):
        return parts(xp, dataclasses.asdict(result))  # type: ignore[arg-type]
    if isinstance(result, Mapping):
        return parts(xp, list(result.values()))
    if isinstance(result, list | tuple):
        return [part for x in result for part in parts(xp, x)]
    return [result if isinstance(result, str) or result is None else np.asarray(result)]


def expected(row: str) -> list[Any]:
    """The result of a row by NumPy in float64."""
    from lsmooth.backends import load_backend

    return parts(load_backend("numpy"), call(row, INPUTS))


def check(xp: Backend, row: str, result: Any, floats: str = "float64") -> None:
    """A result equals NumPy's in float64, as closely as the dtype of the inputs and its own allow."""
    got, wanted = parts(xp, result), expected(row)
    assert len(got) == len(wanted), f"{len(got)} parts, expected {len(wanted)}"
    for x, y in zip(got, wanted, strict=True):
        if isinstance(y, str) or y is None:
            assert x == y
        else:
            # TensorFlow's old losses always reduce in float32.
            exact = floats == "float64" and x.dtype != np.float32 and not row.startswith("compat.tf_losses.")
            tolerance = 1e-9 if exact else 2e-5
            np.testing.assert_allclose(
                np.asarray(x, np.float64), np.asarray(y, np.float64), rtol=tolerance, atol=tolerance, equal_nan=True
            )
