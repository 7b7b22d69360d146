"""Losses with classes or rows spread over the replicas of a strategy, compared with one device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import require_backend


def run(count: int) -> dict:
    """The output of tensorflow_replicas.py with that many logical CPUs."""
    require_backend("tensorflow")
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("tensorflow_replicas.py"))]
    process = subprocess.run([*command, str(count)], capture_output=True, text=True, timeout=500, check=False)
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def seen():
    """Over two replicas."""
    return run(2)


def test_four_replicas_compute_what_one_device_does():
    four = run(4)
    assert max(*four["class_shards"].values(), *four["row_shards"].values(), *four["training"]) < 1e-12, four


@pytest.mark.parametrize("option", ["class_shards", "row_shards"])
def test_values_and_gradients_match_one_device(seen, option):
    assert max(seen[option].values()) < 1e-12, seen[option]
    assert seen["eager"][option] < 1e-12


def test_slices_may_have_sizes_that_are_not_known_while_tracing(seen):
    assert max(seen["unknown"].values()) < 1e-12, seen["unknown"]


def test_a_call_sends_two_collectives_of_at_most_four_numbers_a_row(seen):
    for name in ("weights", "forward KL"):
        (first, top), (second, sums) = seen["sent"][name]
        assert (first, second) == ("all_gather", "all_reduce")
        assert top[:-1] == [1, 8]
        assert top[-1] <= 4
        assert sums[:-1] == [8]
        assert sums[-1] <= 4


def test_a_linear_head_also_adds_up_the_gradient_of_its_hidden_states(seen):
    *loss, gradient = seen["sent"]["linear"]
    assert len(loss) == 2
    assert gradient == ["all_reduce", [8, 3]]


def test_spread_rows_exchange_a_sum_and_its_divisor(seen):
    assert seen["sent by rows"] == [["all_reduce", [2]]]


def test_one_replica_computes_the_plain_loss(seen):
    assert seen["one replica"] == pytest.approx([seen["one replica"][0]] * 3, rel=1e-14)


def test_a_step_whose_replicas_ignore_different_numbers_of_rows_is_that_of_one_device(seen):
    assert max(seen["training"]) < 1e-12


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("another context", "ValueError: row_shards is the replica context of another call or strategy"),
        ("no context", "TypeError: class_shards must be a tf.distribute.ReplicaContext"),
        ("options differ", "replica 1 float64, rows (8,), label_smoothing=0.2"),
        ("both", "class_shards and row_shards must be different groups"),
        ("outside strategy.run", "ValueError: row_shards was given outside strategy.run"),
    ],
)
def test_invalid_calls_say_why(seen, case, expected):
    assert expected in seen["errors"][case]
