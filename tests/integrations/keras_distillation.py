"""Run by test_keras_distillation.py in a process with KERAS_BACKEND set; prints results as JSON."""

import json
import sys

import keras
import numpy as np

from lsmooth.distillation import distillation_loss, similarity_preserving_loss
from lsmooth.integrations.keras import LogitsDistillation

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((64, 8)).astype("float32"), RNG.integers(0, 5, 64)


def dense(units, outputs=1):
    """A classifier of one hidden layer."""
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(units, "relu", name="hidden")(inputs)
    heads = [keras.layers.Dense(5)(hidden) for _ in range(outputs)]
    return keras.Model(inputs, heads[0] if outputs == 1 else heads)


def of_logits(teacher, student, **options):
    """The same number from NumPy arrays."""
    return float(distillation_loss(np.asarray(teacher, "float64"), np.asarray(student, "float64"), **options))


def logits(model, x=X):
    """The predictions of a model as an array."""
    return [keras.ops.convert_to_numpy(z) for z in keras.tree.flatten(model(x))]


def distill(path):
    """The metrics of a Distiller trained with the loss, before and after saving."""
    teacher, student = dense(32), dense(8)
    loss = LogitsDistillation(temperature=2.0)
    distiller = keras.distillation.Distiller(teacher, student, loss, student_loss_weight=0.25)
    distiller.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    frozen = logits(teacher)[0]
    expected = of_logits(frozen, *logits(student), temperature=2.0)
    before = distiller.evaluate(X, Y, batch_size=64, verbose=0, return_dict=True)
    history = distiller.fit(X, Y, batch_size=64, epochs=20, verbose=0).history
    distiller.save(path)
    loaded = keras.saving.load_model(path)
    return {
        "before": before,
        "expected": expected,
        "losses": history["distillation_loss"],
        "moved_teacher": float(np.abs(logits(teacher)[0] - frozen).max()),
        "config": loss.get_config(),
        "loaded_config": loaded.distillation_losses[0].get_config(),
        "same_predictions": bool(np.allclose(logits(loaded)[0], logits(student)[0], atol=1e-6)),
    }


def several_outputs():
    """A model with two outputs: a divergence for each, or for one alone."""
    teacher, student = dense(16, outputs=2), dense(4, outputs=2)
    pairs = list(zip(logits(teacher), logits(student), strict=True))
    tensors = teacher(X), student(X)
    found = [
        float(LogitsDistillation(1.5, names).compute_loss(*tensors))
        for names in (["kl_divergence", "jensen_shannon"], [None, "total_variation"])
    ]
    expected = [
        of_logits(*pairs[0], temperature=1.5) + of_logits(*pairs[1], temperature=1.5, divergence="jensen_shannon"),
        of_logits(*pairs[1], temperature=1.5, divergence="total_variation"),
    ]
    return {"found": found, "expected": expected}


def options():
    """Every option reaches the function."""
    teacher, student = (RNG.standard_normal((6, 5)).astype("float32") for _ in range(2))
    cases = [
        ({"loss": "jensen_shannon", "beta": 0.2}, {"divergence": "jensen_shannon", "beta": 0.2}),
        ({"loss": "alpha", "alpha": 0.2}, {"divergence": "alpha", "alpha": 0.2}),
        ({"scale_by_temperature_squared": False}, {"scale_by_temperature_squared": False}),
        ({"axis": 0}, {"axis": 0}),
    ]
    tensors = [keras.ops.convert_to_tensor(x) for x in (teacher, student)]
    return {
        "found": [float(LogitsDistillation(**given).compute_loss(*tensors)) for given, _ in cases],
        "expected": [of_logits(teacher, student, temperature=3.0, **named) for _, named in cases],
    }


def masked():
    """Padding that an Embedding masks counts in no mean."""
    tokens = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    models = []
    for _ in range(2):
        inputs = keras.Input((4,), dtype="int32")
        models.append(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Embedding(5, 2, mask_zero=True)(inputs))))
    found = float(LogitsDistillation(1.0).compute_loss(*(model(tokens) for model in models)))
    return {"found": [found], "expected": [of_logits(*(logits(m, tokens)[0] for m in models), mask=tokens != 0)]}


def of_features():
    """A loss of lsmooth's as that of Keras' FeatureDistillation."""
    teacher, student = dense(32), dense(8)
    loss = keras.distillation.FeatureDistillation(similarity_preserving_loss, "hidden", "hidden")
    distiller = keras.distillation.Distiller(teacher, student, loss, student_loss_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    losses = distiller.fit(X, Y, batch_size=64, epochs=10, verbose=0).history["distillation_loss"]
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(loss))))
    return {"losses": losses, "survives": again.loss is similarity_preserving_loss}


def beside_keras():
    """Keras' own loss with an instance of KLDivergence, and with its default, on the same logits."""
    teacher, student = (keras.ops.convert_to_tensor(RNG.standard_normal((6, 5)).astype("float32")) for _ in range(2))
    of_keras = keras.distillation.LogitsDistillation
    return [
        float(loss.compute_loss(teacher, student))
        for loss in (LogitsDistillation(), of_keras(loss=keras.losses.KLDivergence()), of_keras())
    ]


keras.utils.set_random_seed(0)
print(
    json.dumps(
        {
            "distill": distill(sys.argv[1]),
            "several_outputs": several_outputs(),
            "options": options(),
            "masked": masked(),
            "of_features": of_features(),
            "beside_keras": beside_keras(),
        }
    )
)
