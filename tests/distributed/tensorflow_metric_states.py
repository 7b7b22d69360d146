"""Run by test_metric_states.py: metrics of rows that the replicas of a MirroredStrategy share."""

import json

import keras
import numpy as np
import tensorflow as tf

from lsmooth import calibration, metrics
from lsmooth.integrations.keras import CalibrationError

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
replica = tf.distribute.get_replica_context
rng = np.random.default_rng(0)
logits = 3 * rng.normal(size=(40, 5))
labels = (logits / 3 + rng.gumbel(size=logits.shape)).argmax(-1)
KINDS = {
    "CalibrationError": lambda: metrics.CalibrationError(from_logits=True),
    "classwise": lambda: metrics.CalibrationError(classwise=True, from_logits=True),
    "NegativeLogLikelihood": lambda: metrics.NegativeLogLikelihood(from_logits=True),
    "TopKAccuracy": lambda: metrics.TopKAccuracy(k=2),
}
parts = [slice(0, 26), slice(26, None)]


def mine(x):
    """The rows of the replica that calls."""
    return tf.constant(x[parts[int(tf.get_static_value(replica().replica_id_in_sync_group))]])


def first(result):
    return strategy.experimental_local_results(result)[0]


found = {"values": {}}
for name, make in KINDS.items():
    whole = make()
    whole.update_state(labels, logits)
    results = []

    def merged(make=make, results=results):
        metric = make()
        metric.update_state(mine(labels), mine(logits))
        results.append(metric.merge_state(row_shards=replica()))

    strategy.run(merged)
    found["values"][f"{name}, eager"] = [whole.result(), *(metric.result() for metric in results)]
    if name == "TopKAccuracy":
        found["integers"] = [whole.get_state(), *(metric.get_state() for metric in results)]

    @tf.function
    def step(make=make):
        return strategy.run(lambda: make().batch_state(mine(labels), mine(logits), row_shards=replica()))

    state = {"sums": [first(x) for x in step()["sums"]]}
    found["values"][f"{name}, tf.function"] = [whole.result(), make().merge_state(state).result()]

temperatures = []
strategy.run(
    lambda: temperatures.append(
        calibration.TemperatureScaling()
        .partial_fit(mine(logits), mine(labels))
        .merge_state(row_shards=replica())
        .temperature_
    )
)
whole = calibration.TemperatureScaling().partial_fit(logits, labels)
found["values"]["TemperatureScaling"] = [whole.temperature_, *temperatures]

with strategy.scope():
    metric = CalibrationError(from_logits=True, dtype="float64")
strategy.run(lambda: metric.update_state(mine(labels), mine(logits)))
whole = KINDS["CalibrationError"]()
whole.update_state(labels, logits)
found["values"]["keras"] = [whole.result(), float(keras.ops.convert_to_numpy(metric.result()))]
print(json.dumps(found))
