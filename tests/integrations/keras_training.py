"""Run by test_keras_integration.py in a process with KERAS_BACKEND set; prints results as JSON."""

import json
import sys

import keras
import numpy as np
from sklearn.datasets import load_digits

from lsmooth import losses, metrics
from lsmooth.integrations import keras as lsmooth_keras


def train(path):
    """Losses over the epochs, and the loss of the saved and loaded model."""
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype("float32")
    weight = np.where(y < 5, 1.0, 0.5).astype("float32")
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10)])
    loss = lsmooth_keras.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss)
    history = model.fit(x, y, sample_weight=weight, epochs=3, batch_size=128, verbose=0)
    model.save(path)
    loaded = keras.saving.load_model(path)
    smooth = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    return {
        "losses": history.history["loss"],
        "of_the_model": float(model.evaluate(x, y, batch_size=1797, verbose=0)),
        "of_the_loaded_model": float(loaded.evaluate(x, y, batch_size=1797, verbose=0)),
        "of_keras": float(smooth(np.eye(10)[y], model.predict(x, verbose=0))),
        "loaded_loss": type(loaded.loss).__name__,
        "label_smoothing": loaded.loss.label_smoothing,
    }


def masked_loss():
    """A mask that an Embedding left on its output reaches the reduction: ours and Keras'."""
    inputs = keras.Input((4,), dtype="int32")
    outputs = keras.layers.Dense(3)(keras.layers.Embedding(5, 2, mask_zero=True)(inputs))
    model = keras.Model(inputs, outputs)
    tokens, labels = np.array([[1, 2, 0, 0], [3, 0, 0, 0]]), np.array([[0, 1, 2, 2], [1, 2, 2, 2]])
    return [
        float(cls(from_logits=True)(labels, model(tokens)))
        for cls in (lsmooth_keras.SparseCategoricalCrossentropy, keras.losses.SparseCategoricalCrossentropy)
    ]


def round_trips():
    """Which registered losses survive Keras' serialisation with their config."""
    survived = []
    for name in lsmooth_keras.__all__:
        if not issubclass(getattr(lsmooth_keras, name), keras.losses.Loss):
            continue
        loss = getattr(lsmooth_keras, name)(name="mine", reduction="sum")
        again = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
        if type(again) is type(loss) and again.get_config() == loss.get_config():
            survived.append(name)
    return survived


def tied_weight():
    """Loss, and gradient with respect to an embedding's own variable, of a tied head and of its logits."""
    table = keras.layers.Embedding(5, 4)
    table.build((None,))
    rng = np.random.default_rng(0)
    table.embeddings.assign(rng.standard_normal((5, 4), np.float32))
    hidden, labels = rng.standard_normal((6, 4), np.float32), np.arange(6) % 5

    def fused():
        return losses.linear_softmax_cross_entropy(labels, hidden, table.embeddings, block_size=2)

    def materialised():
        return losses.softmax_cross_entropy(labels, keras.ops.matmul(hidden, keras.ops.transpose(table.embeddings)))

    return [_value_and_gradient(loss, table.embeddings) for loss in (fused, materialised)]


def _value_and_gradient(loss, variable):
    """Of a Keras variable, in the way of each backend."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        gradient = tape.gradient(value, variable.value)
    elif keras.backend.backend() == "torch":
        variable.value.grad = None
        value = loss()
        value.backward()
        gradient = variable.value.grad
    else:
        import jax

        def of_variable(x):
            with keras.StatelessScope([(variable, x)]):
                return loss()

        value, gradient = jax.value_and_grad(of_variable)(variable.value)
    to_numpy = keras.ops.convert_to_numpy
    return [float(value), to_numpy(gradient).tolist()]


class Head(keras.layers.Layer):
    """A head that adds its loss, fused or of its logits, as the loss of the model."""

    def __init__(self, fused):
        super().__init__()
        self.fused = fused

    def build(self, shapes):
        initializer = keras.initializers.RandomNormal(seed=1)
        self.kernel = self.add_weight(shape=(5, shapes[0][-1]), initializer=initializer, name="kernel")

    def call(self, inputs):
        hidden, labels = inputs
        if self.fused:
            loss = losses.linear_softmax_cross_entropy(labels, hidden, self.kernel, label_smoothing=0.1, block_size=4)
        else:
            logits = keras.ops.matmul(hidden, keras.ops.transpose(self.kernel))
            loss = losses.softmax_cross_entropy(labels, logits, label_smoothing=0.1)
        self.add_loss(loss)
        return hidden


def added_loss():
    """Losses over the epochs of a functional model, whose batch is symbolic, with a fused head and with logits."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 6)).astype("float32"), rng.integers(0, 5, 20)
    histories = []
    for fused in (True, False):
        features, labels = keras.Input((6,)), keras.Input((), dtype="int32")
        hidden = keras.layers.Dense(8, "relu", kernel_initializer=keras.initializers.RandomNormal(seed=2))(features)
        model = keras.Model([features, labels], Head(fused)([hidden, labels]))
        model.compile(optimizer=keras.optimizers.SGD(0.5))
        histories.append(model.fit([x, y], epochs=3, batch_size=8, shuffle=False, verbose=0).history["loss"])
    return histories


def streamed():
    """Metrics in ``fit`` and ``evaluate``, saved with the model, and those of `lsmooth.metrics` of all rows."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 4)).astype("float32"), rng.integers(0, 3, 90)
    weight = rng.random(90).astype("float32")
    kinds = {
        "ece": (lsmooth_keras.CalibrationError, {"n_bins": 5}, metrics.expected_calibration_error),
        "classwise": (
            lsmooth_keras.CalibrationError,
            {"classwise": True, "num_classes": 3},
            metrics.classwise_calibration_error,
        ),
        "nll": (lsmooth_keras.NegativeLogLikelihood, {}, metrics.negative_log_likelihood),
        "brier": (lsmooth_keras.BrierScore, {}, metrics.brier_score),
    }
    made = [cls(name=name, from_logits=True, **options) for name, (cls, options, _) in kinds.items()]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, weighted_metrics=made)
    history = model.fit(x, y, sample_weight=weight, batch_size=32, epochs=2, verbose=0).history
    model.save(sys.argv[1])
    loaded = keras.saving.load_model(sys.argv[1])
    logits = model.predict(x, verbose=0)
    found = {"trained": all(np.isfinite(history[name]).all() and min(history[name]) > 0 for name in kinds)}
    for which, each in (("model", model), ("loaded", loaded)):
        got = each.evaluate(x, y, sample_weight=weight, batch_size=32, verbose=0, return_dict=True)
        found[which] = {name: got[name] for name in kinds}
    found["expected"] = {
        name: float(
            function(y, logits, from_logits=True, sample_weight=weight, **({"n_bins": 5} if name == "ece" else {}))
        )
        for name, (_, _, function) in kinds.items()
    }
    halves = [lsmooth_keras.CalibrationError(from_logits=True) for _ in range(2)]
    halves[0].update_state(y[:40], logits[:40])
    halves[1].update_state(keras.ops.one_hot(y[40:], 3), logits[40:])
    own = metrics.CalibrationError(from_logits=True)
    own.set_state(halves[0].get_state())
    other = metrics.CalibrationError(from_logits=True)
    other.update_state(y[40:], logits[40:])
    found["merged"] = [float(halves[0].merge_state(halves[1]).result()), own.merge_state(other).result()]
    halves[1].set_state(own.get_state())
    found["merged"].append(float(halves[1].result()))
    halves[1].reset_state()
    found["reset"] = float(halves[1].result())
    p = 1 / (1 + np.exp(-logits[:, :1]))
    binary = lsmooth_keras.BrierScore(binary=True)
    binary.update_state((y == 0)[:, None].astype("float32"), p, weight)
    expected = metrics.brier_score((y == 0).astype(int), p[:, 0], binary=True, sample_weight=weight)
    found["binary"] = [float(binary.result()), float(expected)]
    inputs = keras.Input((3,), dtype="int32")
    masked = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Embedding(5, 2, mask_zero=True)(inputs)))
    tokens, ids = np.array([[1, 2, 0], [3, 0, 0]]), np.array([[0, 1, 2], [1, 2, 2]])
    metric = lsmooth_keras.NegativeLogLikelihood(from_logits=True)
    metric.update_state(ids, masked(tokens))
    z = masked.predict(tokens, verbose=0)[tokens > 0]
    found["masked"] = [
        float(metric.result()),
        float(metrics.negative_log_likelihood(ids[tokens > 0], z, from_logits=True)),
    ]
    return found


seen = {
    "streamed": streamed(),
    "train": train(sys.argv[1]),
    "masked": masked_loss(),
    "round_trips": round_trips(),
    "tied": tied_weight(),
    "added": added_loss(),
}
print(json.dumps(seen))
