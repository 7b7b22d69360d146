"""JAX: losses over classes and rows that are spread over devices are those of one device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import require_backend

HERE = Path(__file__).parent


def printed(script, *arguments):
    """What a script prints as JSON in its last line."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_values_and_gradients_in_shard_map_are_those_of_one_device():
    require_backend("jax")
    found = printed("jax_shards.py")
    assert len(found) >= 30
    assert [case for case in found if not case[-1] < 1e-12] == []


@pytest.mark.parametrize("name", ["rows", None, ()])
def test_a_name_that_is_no_axis_in_scope_is_refused(name):
    require_backend("jax")
    from lsmooth.backends import load_backend

    with pytest.raises(ValueError, match="class_shards must be the name of an axis"):
        load_backend("jax").members(name, "class_shards")
