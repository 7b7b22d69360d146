"""Metrics and temperatures of rows spread over processes, devices or replicas, compared with one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import require_backend

from lsmooth import metrics
from lsmooth.calibration import TemperatureScaling

HERE = Path(__file__).parent


def printed(*commands, **environment):
    """The JSON in the last lines of scripts that run concurrently."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", *map(str, each)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        for each in commands
    ]
    try:
        outputs = [run.communicate(timeout=240) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert not any(run.returncode for run in runs), [err[-3000:] for _, err in outputs]
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


@pytest.fixture(scope="module")
def of_processes(tmp_path_factory):
    """The results of the two processes of a gloo group."""
    require_backend("torch")
    meeting_point = tmp_path_factory.mktemp("group") / "meeting"
    return printed(*((HERE / "torch_metric_states.py", rank, 2, meeting_point) for rank in range(2)))


def test_every_process_of_a_group_has_the_number_of_all_rows(of_processes):
    for found in of_processes:
        for name, values in found.items():
            if name not in ("errors", "integers"):
                np.testing.assert_allclose(values[1], values[0], rtol=1e-12, err_msg=name)
    first, second = of_processes
    assert {name: values[1] for name, values in first.items() if name != "errors"} == {
        name: values[1] for name, values in second.items() if name != "errors"
    }, "members have the same bits"


def test_sums_of_whole_numbers_have_the_same_bits_as_on_one_process(of_processes):
    for found in of_processes:
        assert found["integers"][0] == found["integers"][1]


def test_members_with_different_options_or_classes_raise_an_error(of_processes):
    for found in of_processes:
        assert "row_shards: the members of the group make different calls" in found["errors"]["options"]
        assert found["errors"]["classes"].startswith("row_shards: the members have 4 to 5 classes")


def test_devices_of_a_jax_axis_give_the_number_of_all_rows():
    require_backend("jax")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    (found,) = printed([HERE / "jax_metric_states.py"], XLA_FLAGS=flags)
    assert found["devices"] == 8
    for name, values in found["values"].items():
        np.testing.assert_allclose(values[1], values[0], rtol=1e-12, err_msg=name)
    assert found["integers"][0] == found["integers"][1]
    assert found["all-reduces"] == 1
    assert "batch_state(..., row_shards=axis)" in found["error"]


def test_replicas_of_a_mirrored_strategy_give_the_number_of_all_rows():
    require_backend("tensorflow")
    (found,) = printed([HERE / "tensorflow_metric_states.py"], KERAS_BACKEND="tensorflow")
    for name, values in found["values"].items():
        np.testing.assert_allclose(values[1:], [values[0]] * (len(values) - 1), rtol=1e-12, err_msg=name)
    assert found["integers"][1] == found["integers"][0] == found["integers"][2]


def test_states_of_files_merge_like_metrics():
    labels, p = [0, 1, 1, 0], np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.9, 0.1]])
    whole, texts = metrics.CalibrationError(), []
    whole.update_state(labels, p)
    for rows in (slice(0, 1), slice(1, None)):
        part = metrics.CalibrationError()
        part.update_state(labels[rows], p[rows])
        texts.append(json.dumps(part.get_state()))
    merged = metrics.CalibrationError().merge_state(*map(json.loads, texts))
    np.testing.assert_allclose(merged.result(), whole.result(), rtol=1e-12)
    with pytest.raises(ValueError, match="state must be of a CalibrationError with the same options"):
        metrics.CalibrationError(n_bins=3).merge_state(json.loads(texts[0]))


def test_states_of_temperatures_merge_like_calibrators():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(40, 5))
    labels = (logits / 3 + rng.gumbel(size=logits.shape)).argmax(-1)
    whole = TemperatureScaling().partial_fit(logits, labels)
    states = [TemperatureScaling().partial_fit(logits[k::2], labels[k::2]).get_state() for k in range(2)]
    merged = TemperatureScaling().merge_state(*json.loads(json.dumps(states)))
    np.testing.assert_allclose(merged.temperature_, whole.temperature_, rtol=1e-12)
    with pytest.raises(ValueError, match="No row to fit on"):
        TemperatureScaling().merge_state()
    with pytest.raises(ValueError, match="state must be that of a TemperatureScaling"):
        TemperatureScaling().merge_state({"totals": [0.0], "sums": []})
