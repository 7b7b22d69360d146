"""Run by test_keras_in_models.py in a process with KERAS_BACKEND set; prints results as JSON.

With the argument "early" a loss is made before Keras is imported.
"""

import json
import sys
import tempfile
import warnings

from lsmooth import losses

early = losses.SparseCategoricalCrossentropy(from_logits=True) if "early" in sys.argv else None

import keras  # noqa: E402
import numpy as np  # noqa: E402

BACKEND = keras.backend.backend()
CLASSES = {
    "SparseCategoricalCrossentropy": "softmax",
    "CategoricalCrossentropy": "softmax",
    "CategoricalFocalCrossentropy": "softmax",
    "KLDivergence": "softmax",
    "BinaryCrossentropy": "sigmoid",
    "BinaryFocalCrossentropy": "sigmoid",
}
FUNCTIONS = {
    "sparse_categorical_crossentropy": "softmax",
    "categorical_crossentropy": "softmax",
    "categorical_focal_crossentropy": "softmax",
    "binary_crossentropy": "sigmoid",
    "binary_focal_crossentropy": "sigmoid",
}
rng = np.random.default_rng(0)
x = rng.standard_normal((12, 5)).astype("float32")
ids = rng.integers(0, 3, 12)
one_hot = np.eye(3, dtype="float32")[ids]
weight = rng.random(12).astype("float32")


def labels_of(name):
    return ids if name.lower().startswith("sparse") else one_hot


def loss_of(module, name, **options):
    loss = getattr(module, name)
    return loss(**options) if isinstance(loss, type) else loss


def model_of(loss, activation=None, scale=1.0, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation)])
    model.set_weights([scale * w for w in model.get_weights()])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, **options)
    return model


def weights_count_as_in_keras():
    """Of each class, and each function: the loss and the weights after a step, ours and Keras'."""
    seen = {}
    for name, activation in {**CLASSES, **FUNCTIONS}.items():
        pair = []
        for module in (losses, keras.losses):
            model = model_of(loss_of(module, name), activation, run_eagerly=True)
            value = float(model.train_on_batch(x, labels_of(name), sample_weight=weight))
            pair.append([value, *model.get_weights()[0].ravel().tolist()])
        seen[name] = pair
    return seen


def class_weights_in_a_compiled_model():
    options = {"epochs": 1, "batch_size": 6, "verbose": 0, "shuffle": False, "class_weight": {0: 1.0, 1: 3.0, 2: 0.5}}
    histories = []
    for module in (losses, keras.losses):
        model = model_of(module.SparseCategoricalCrossentropy(from_logits=True))
        histories.append(model.fit(x, ids, **options).history["loss"][0])
    return histories


def saved():
    """The loss object of each saved and loaded model, and whether the loss of the model is equal."""
    seen = {}
    folder = tempfile.mkdtemp()
    smoothed = losses.SparseCategoricalCrossentropy(label_smoothing=0.2)
    focal = losses.CategoricalFocalCrossentropy(alpha=np.array([0.2, 0.3, 0.5]), gamma=np.float32(1.5))
    cases = {
        "class": (smoothed, ids),
        "alphas": (focal, one_hot),
        "function": (losses.sparse_categorical_crossentropy, ids),
    }
    for case, (loss, labels) in cases.items():
        for extension in ("keras", "h5"):
            model = model_of(loss, "softmax", run_eagerly=True)
            before = float(model.test_on_batch(x, labels))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.save(f"{folder}/{case}.{extension}")
                loaded = keras.saving.load_model(f"{folder}/{case}.{extension}")
            seen[f"{case}.{extension}"] = {
                "is_ours": getattr(loaded.loss, "__module__", "").startswith("lsmooth."),
                "before": before,
                "after": float(loaded.test_on_batch(x, labels)),
            }
    return seen


def gradients_behind_saturated_activations():
    """Of each class and function: the gradient by the logits behind probabilities of 0 and 1, ours and Keras'."""
    seen = {}
    for name, activation in {**CLASSES, **FUNCTIONS}.items():
        if name == "CategoricalFocalCrossentropy":
            continue
        activate = getattr(keras.activations, activation)
        logits = (np.array([1, 4, 8, 16, 16, 17, 20, 60, 100, 1, 2, 3])[:, None] * np.sign(x[:, :3])).astype("float32")
        pair = []
        for module in (losses, keras.losses):
            loss = loss_of(module, name)
            pair.append(gradient(loss, labels_of(name), activate, logits))
        seen[name] = pair
    return seen


def gradient(loss, labels, activate, logits):
    def function(z):
        return loss(labels, activate(z))

    if BACKEND == "tensorflow":
        import tensorflow as tf

        z = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = tf.reduce_sum(function(z))
        result = tape.gradient(value, z)
    elif BACKEND == "torch":
        import torch

        result = torch.tensor(logits, requires_grad=True)
        function(result).sum().backward()
        result = result.grad
    else:
        import jax

        result = jax.grad(lambda z: function(z).sum())(logits)
    return np.asarray(result).ravel().tolist()


def histories():
    """Losses of models with saturated probabilities as compiled by Keras, of lsmooth and of Keras."""
    seen = {}
    for name in ("SparseCategoricalCrossentropy", "BinaryCrossentropy"):
        seen[name] = [
            model_of(getattr(module, name)(), CLASSES[name], scale=30.0)
            .fit(x, labels_of(name), epochs=3, batch_size=4, verbose=0, shuffle=False)
            .history["loss"]
            for module in (losses, keras.losses)
        ]
    return seen


def warns_of_logits_behind_a_softmax():
    messages = []
    for module in (losses, keras.losses):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss = module.CategoricalCrossentropy(from_logits=True)
            value = float(loss(one_hot, keras.activations.softmax(keras.ops.convert_to_tensor(x[:, :3]))))
        messages.append([value, any("from_logits=True" in str(warning.message) for warning in caught)])
    return messages


def smoothing_that_a_callback_changes():
    """Losses of a batch under eps 0 and 0.5, of one compiled model; an error's text where eps cannot be followed."""

    def losses_of(attach):
        eps = keras.Variable(0.0, trainable=False, name="eps")
        model = model_of(losses.CategoricalCrossentropy(from_logits=True, label_smoothing=eps))
        model.optimizer.learning_rate = 0.0
        if attach:
            model.label_smoothing = eps
        change = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: eps.assign(0.5 * epoch))
        return model.fit(x, one_hot, epochs=2, batch_size=12, verbose=0, callbacks=[change]).history["loss"]

    def expected(eps):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=eps)
        return float(model_of(loss, run_eagerly=True).test_on_batch(x, one_hot))

    try:
        detached = losses_of(False)
    except ValueError as error:
        detached = str(error)
    return {"attached": losses_of(True), "detached": detached, "expected": [expected(0.0), expected(0.5)]}


def replicas():
    """The first loss and the weights after it under a strategy of two replicas: ours and Keras'."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    seen = []
    for module in (losses, keras.losses):
        with strategy.scope():
            model = model_of(module.SparseCategoricalCrossentropy(from_logits=True))
        history = model.fit(x, ids, sample_weight=weight, batch_size=6, epochs=1, verbose=0, shuffle=False)
        seen.append([history.history["loss"][0], *model.get_weights()[0].ravel().tolist()])
    return seen


def functions_that_return_a_mean():
    """The errors of fit for each loss, and for one with reduction="none"."""
    said = {}
    for function in (losses.softmax_cross_entropy, losses.poly_cross_entropy, losses.softmax_focal_loss):
        try:
            model_of(function).fit(x, ids, verbose=0)
            said[function.__name__] = ""
        except TypeError as error:
            said[function.__name__] = str(error)
    rows = model_of(lambda y, z: losses.softmax_cross_entropy(y, z, reduction="none"))
    said["rows"] = rows.fit(x, one_hot, verbose=0).history["loss"][0]
    return said


if early is not None:
    pair = [model_of(loss) for loss in (early, keras.losses.SparseCategoricalCrossentropy(from_logits=True))]
    values = [float(model.train_on_batch(x, ids, sample_weight=weight)) for model in pair]
    print(json.dumps({"joined": isinstance(early, keras.losses.Loss), "values": values}))
    sys.exit()

seen = {"replicas": replicas()} if BACKEND == "tensorflow" else {}
for case in (
    weights_count_as_in_keras,
    class_weights_in_a_compiled_model,
    saved,
    gradients_behind_saturated_activations,
    histories,
    warns_of_logits_behind_a_softmax,
    smoothing_that_a_callback_changes,
    functions_that_return_a_mean,
):
    seen[case.__name__] = case()
print(json.dumps(seen))
