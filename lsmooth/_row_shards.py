"""Sums on the host, added up over the members of a group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lsmooth.backends import load_backend

_FRAMEWORKS = ("torch", "tensorflow")


def total_of_members(
    row_shards: Any,
    sums: tuple[np.ndarray, ...] | None,
    empty: Callable[[int], tuple[np.ndarray, ...]],
    signature: str,
) -> tuple[np.ndarray, ...] | None:
    """The sums of all members in float64; None if no member has any.

    Args:
        row_shards: the group.
        sums: those of this member; None if it has seen no rows.
        empty: returns the sums of no rows for a number of classes.
        signature: a text that must be the same on all members.
    """
    framework = type(row_shards).__module__.partition(".")[0]
    if framework not in _FRAMEWORKS:
        raise TypeError(
            "row_shards must be a torch.distributed.ProcessGroup, a one-dimensional DeviceMesh or a "
            f"tf.distribute.ReplicaContext here, got {row_shards!r}. In jax.shard_map, take the sums of a metric by "
            "batch_state(..., row_shards=axis); sharded arrays outside of it need no option."
        )
    xp = load_backend(framework)
    members = xp.members(row_shards, "row_shards")
    classes = 0 if sums is None else max([2, *(len(x) for x in sums if x.ndim)])
    bounds = np.array([classes, -classes if classes else -(2.0**31)])
    largest, _ = members.agree(members.placed(xp.asarray(bounds, "float64")), 0, signature)
    most, least = xp.to_numpy(largest).tolist()
    if not most:
        return None
    if most != -least:
        raise ValueError(f"row_shards: the members have {-least:g} to {most:g} classes; all must have the same number.")
    own = empty(int(most)) if sums is None else sums
    flat = np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in own])
    total = xp.to_numpy(members.sum(members.placed(xp.asarray(flat, "float64"))))
    ends = np.cumsum([x.size for x in own])
    return tuple(part.reshape(x.shape) for part, x in zip(np.split(total, ends[:-1]), own, strict=True))
