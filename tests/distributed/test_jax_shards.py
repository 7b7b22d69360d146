"""JAX: losses over classes and rows that are spread over devices are those of one device."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import require_backend

HERE = Path(__file__).parent


def printed(script, *arguments):
    """The JSON in the last line of a script."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_values_and_gradients_in_shard_map_match_one_device():
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


@pytest.mark.parametrize("mode", ["Auto", "Explicit"])
def test_arrays_with_explicit_sharding_match_one_device(mode):
    require_backend("jax")
    found = printed("jax_arrays.py", mode)
    assert len(found["cases"]) >= 12
    assert [case for case in found["cases"] if not case[2] < 1e-12] == []
    assert found["transformed"] < 1e-12  # forward mode, second derivatives, vmap
    assert max(found["memory"].values()) < 1.2  # of one device with the same local shapes
    assert found["memory of one"] < 0.5  # of the logits
    for function, given, _, over_classes, over_rows, moved in found["cases"]:
        # A head's loop has its sums in it unless the types say where everything is.
        if "linear" in function and mode == "Auto":
            continue
        third = "statistics" in function or given.get("divergence") in ("jensen_shannon", "total_variation")
        floats = 4 + (given.get("labels") == "soft") * 3 + ("class_weight" in given)
        assert len(over_classes) <= 2 + third, (function, given)
        assert max(over_classes, default=0) <= floats, (function, given)
        assert over_rows <= 2 if "divergence" in given else 1, (function, given)
        assert moved == 0, (function, given)


def test_two_processes_give_the_numbers_of_one_device():
    require_backend("jax")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE / "jax_process.py")]
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([*command, str(rank), str(port)], **kept) for rank in range(2)]
    try:
        outputs = [run.communicate(timeout=240) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert not any(run.returncode for run in runs), outputs
    for out, _ in outputs:
        found = json.loads(out.splitlines()[-1])
        assert len(found) == 5
        assert max(found) < 1e-12
