"""Fit a temperature and measure the calibration error over partitions of a Dask cluster.

Each partition is mapped to a state of fixed size, and the states are reduced to one, so that no process has more than
one partition in memory.

Run: python examples/dask_calibration.py
"""

import dask.bag
import numpy as np
from dask.distributed import Client, LocalCluster

from lsmooth.calibration import TemperatureScaling
from lsmooth.metrics import CalibrationError


def load(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a partition: read yours from a file. Here the logits are twice as large as is right."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, (2000, 10))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return 2.0 * logits, labels


def fitted(partition: tuple[np.ndarray, np.ndarray]) -> dict:
    """The sums of a partition from which a temperature is found."""
    return TemperatureScaling().partial_fit(*partition).get_state()


def measured(partition: tuple[np.ndarray, np.ndarray], temperature: float) -> dict:
    """The sums of a partition from which its calibration error is found."""
    logits, labels = partition
    metric = CalibrationError(from_logits=True)
    metric.update_state(labels, logits / temperature)
    return metric.get_state()


def merged_temperatures(states) -> dict:
    """One state of some."""
    return TemperatureScaling().merge_state(*states).get_state()


def merged_metrics(states) -> dict:
    """One state of some."""
    return CalibrationError(from_logits=True).merge_state(*states).get_state()


def calibrate(partitions: dask.bag.Bag) -> tuple[float, float, float]:
    """The temperature of all rows, and their calibration error before and after it."""
    state = partitions.map(fitted).reduction(merged_temperatures, merged_temperatures).compute()
    temperature = TemperatureScaling().merge_state(state).temperature_
    errors = []
    for t in (1.0, temperature):
        state = partitions.map(measured, t).reduction(merged_metrics, merged_metrics).compute()
        errors.append(CalibrationError(from_logits=True).merge_state(state).result())
    return temperature, *errors


def main() -> tuple[float, float, float]:
    """The same on a cluster of two workers on this machine."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        temperature, before, after = calibrate(dask.bag.from_sequence(range(8), npartitions=8).map(load))
    print(f"T = {temperature:.4f}, calibration error {before:.4f}, after it {after:.4f}")
    return temperature, before, after


if __name__ == "__main__":
    main()
