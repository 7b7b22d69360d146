"""The divergences that a distillation loss can be asked for."""

from __future__ import annotations

from lsmooth.backends.formulas.divergence import DIVERGENCES

NAMES = tuple(DIVERGENCES)


def parameter_of(divergence: str, *, beta: float = 0.5, alpha: float = 0.5) -> float:
    """The parameter of the divergence of that name: beta, alpha, or one that it ignores.

    Raises:
        ValueError: if there is none, or a parameter is out of range.
    """
    if divergence not in NAMES:
        raise ValueError(f"divergence must be one of {', '.join(NAMES)}; got {divergence!r}.")
    if divergence == "jensen_shannon":
        _check_inside("beta", beta)
        return float(beta)
    if divergence in ("alpha", "skewed_forward_kl", "skewed_reverse_kl"):
        _check_inside("alpha", alpha)
    return float(alpha)


def _check_inside(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(
            f"{name} must be in (0, 1), got {value}; for the ends take divergence='forward_kl' or 'reverse_kl'."
        )
