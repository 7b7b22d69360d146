"""Run by test_metric_states.py with 8 host devices: metrics of rows that are spread over them."""

import json

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lsmooth import calibration, metrics

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
logits = 3 * rng.normal(size=(48, 5))
labels = (logits / 3 + rng.gumbel(size=logits.shape)).argmax(-1)
mesh = jax.make_mesh((8,), ("rows",))
rows = PartitionSpec("rows")
spread = [jax.device_put(x, NamedSharding(mesh, rows)) for x in (labels, logits)]
KINDS = {
    "CalibrationError": metrics.CalibrationError(from_logits=True),
    "classwise": metrics.CalibrationError(classwise=True, from_logits=True),
    "NegativeLogLikelihood": metrics.NegativeLogLikelihood(from_logits=True),
    "TopKAccuracy": metrics.TopKAccuracy(k=2),
}
found = {"devices": len(jax.devices()), "values": {}}
for name, metric in KINDS.items():
    metric.update_state(labels, logits)
    expected, state = metric.result(), metric.get_state()

    def step(y, z, metric=metric):
        return metric.batch_state(y, z, row_shards="rows")

    for check in (True, False):
        function = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=rows, out_specs=PartitionSpec(), check_vma=check))
        metric.reset_state()
        metric.merge_state(function(*spread))
        found["values"][f"{name}, shard_map {check}"] = [expected, metric.result()]
    if name == "TopKAccuracy":
        found["integers"] = [state, metric.get_state()]
    mapped = jax.pmap(step, axis_name="rows")(labels.reshape(8, 6), logits.reshape(8, 6, 5))
    metric.reset_state()
    metric.merge_state({"sums": [x[0] for x in mapped["sums"]]})
    found["values"][f"{name}, pmap"] = [expected, metric.result()]
    metric.reset_state()
    metric.update_state(*spread)  # arrays that know their sharding need no option
    found["values"][f"{name}, sharded arrays"] = [expected, metric.result()]
text = function.lower(*spread).compile().as_text()
found["all-reduces"] = text.count(" all-reduce(") + text.count(" all-reduce-start(")
one = calibration.TemperatureScaling().partial_fit(logits, labels)
two = calibration.TemperatureScaling().partial_fit(spread[1], spread[0])
found["values"]["TemperatureScaling, sharded arrays"] = [one.temperature_, two.temperature_]
try:
    metric.merge_state(row_shards="rows")
except TypeError as error:
    found["error"] = str(error)
print(json.dumps(found))
