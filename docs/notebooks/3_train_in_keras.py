# %% [markdown]
# # Train a Keras model with label smoothing
#
# The loss and the metrics go into `model.compile`. The saved model holds both.

# %%
import keras
from sklearn.datasets import load_digits

from lsmooth.integrations.keras import CalibrationError, NegativeLogLikelihood, SparseCategoricalCrossentropy

keras.utils.set_random_seed(0)
inputs, labels = load_digits(return_X_y=True)
inputs = (inputs / 16).astype("float32")

# %%
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
model.compile(
    keras.optimizers.Adam(1e-2),
    loss=SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    metrics=["accuracy", CalibrationError(from_logits=True, name="ece"), NegativeLogLikelihood(from_logits=True)],
)
history = model.fit(inputs, labels, validation_split=0.5, epochs=5, batch_size=64, verbose=0).history
print({name: round(values[-1], 3) for name, values in history.items()})
assert history["val_accuracy"][-1] > 0.8

# %%
model.save("digits.keras")
loaded = keras.saving.load_model("digits.keras")
print(loaded.loss.label_smoothing)
assert loaded.loss.label_smoothing == 0.1
