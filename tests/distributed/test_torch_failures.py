"""A member of a group that stops, or that makes another call, is an error of all members, and soon."""

import json
import math

from conftest import require_backend
from processes import ended, group

LIMIT = 20.0  # of a collective
NAMED = {"rows": "(7,", "dtype": "float64", "option": "label_smoothing=0.2", "array": "temperature"}


def run(case, path):
    """The errors of the members; members that have died report none."""
    require_backend("torch")
    found = ended(group("torch_failures.py", 3, path, case), timeout=4.0 * LIMIT)
    assert all(status == 0 for status, _, _ in found), found
    return [json.loads(out.splitlines()[-1]) for _, out, _ in found if out]


def test_members_that_make_different_calls_raise_an_error_naming_the_difference(tmp_path):
    members = run("differ", tmp_path)
    assert len(members) == 3
    for found in members:
        for name, named in NAMED.items():
            for told, seconds, after in found[name]:
                assert told[0] == "ValueError", told
                assert "class_shards: the members of the group make different calls" in told[1]
                assert named in told[1]
                assert seconds < LIMIT / 2
                assert after is None or abs(after - math.log(12)) < 1e-6
        (late,) = found["late"]
        assert abs(late[0] - math.log(12)) < 1e-6
        for value, _, after in found["another slice"]:
            assert abs(value - math.log(13)) < 1e-6
            assert abs(after - math.log(12)) < 1e-6


def test_a_member_that_dies_is_an_error_of_the_others(tmp_path):
    (alone,) = run("die", tmp_path)
    for state in ("warm", "cold"):
        ((told, seconds, _),) = alone[state]
        assert told[0] == "RuntimeError", told
        assert "class_shards: the members of the group did not all make the same call" in told[1]
        assert seconds < LIMIT
