"""Run by test_metric_states.py, once a process: metrics and temperatures of rows that a group's processes share."""

import numpy as np
import torch
import torch.distributed as dist
from torch_process import meet, part, rank, size

from lsmooth import calibration, metrics

meet()
rng = np.random.default_rng(0)
logits = 3 * rng.normal(size=(40, 5))
labels = (logits / 3 + rng.gumbel(size=logits.shape)).argmax(-1)
weights = rng.uniform(0.5, 2.0, 40)
mine = slice(rank * 30, None if rank == size - 1 else rank * 30 + 30)  # not as many rows on each
group = dist.group.WORLD
found = {}


def both(make, *arrays, **options):
    """Results of all rows on one process and on this one after a merge; merging a state twice raises an error."""
    whole, own = make(), make()
    getattr(whole, options["take"])(*arrays)
    rows = [x[mine] for x in arrays]
    if len(rows[0]):
        getattr(own, options["take"])(*rows)
    own.merge_state(row_shards=group)
    return [options["of"](whole), options["of"](own)], [own.get_state(), whole.get_state()]


KINDS = {
    "CalibrationError": lambda: metrics.CalibrationError(from_logits=True),
    "classwise": lambda: metrics.CalibrationError(classwise=True, from_logits=True),
    "NegativeLogLikelihood": lambda: metrics.NegativeLogLikelihood(from_logits=True),
    "BrierScore": lambda: metrics.BrierScore(from_logits=True),
    "TopKAccuracy": lambda: metrics.TopKAccuracy(k=2),
}
for name, make in KINDS.items():
    found[name] = both(make, labels, logits, weights, take="update_state", of=lambda metric: metric.result())[0]
found["integers"] = both(KINDS["TopKAccuracy"], labels, logits, take="update_state", of=lambda m: m.result())[1]
fitted = both(
    calibration.TemperatureScaling, logits, labels, weights, take="partial_fit", of=lambda scaler: scaler.temperature_
)
found["TemperatureScaling"] = fitted[0]

pair = KINDS["classwise"](), KINDS["classwise"]()
half = slice(rank * 20, rank * 20 + 20)
pair[0].update_state(labels, logits)
state = pair[1].batch_state(torch.from_numpy(labels[half]), torch.from_numpy(logits[half]), row_shards=group)
found["batch_state"] = [pair[0].result(), pair[1].merge_state(state).result()]

# Members without rows take part, and so do groups without rows.
late = metrics.CalibrationError(classwise=True, from_logits=True)
if rank == 0:
    late.update_state(labels, logits)
alone = metrics.CalibrationError(classwise=True, from_logits=True)
alone.update_state(labels, logits)
found["no rows on one"] = [alone.result(), late.merge_state(row_shards=group).result()]
found["no rows"] = [0.0, metrics.BrierScore().merge_state(row_shards=group).result()]
scaler = calibration.TemperatureScaling()
if rank == 1:
    scaler.partial_fit(logits, labels)
whole = calibration.TemperatureScaling().partial_fit(logits, labels)
found["no batch on one"] = [whole.temperature_, scaler.merge_state(row_shards=group).temperature_]


def refused(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


found["errors"] = {
    "options": refused(lambda: metrics.CalibrationError(n_bins=10 + rank).merge_state(row_shards=group)),
}
other = metrics.CalibrationError(classwise=True, from_logits=True)
other.update_state(labels % (4 + rank), logits[:, : 4 + rank])
found["errors"]["classes"] = refused(lambda: other.merge_state(row_shards=group))
part(found)
