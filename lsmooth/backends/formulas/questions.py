"""Columns that a member computes from its slice of the classes, and losses that follow from their reductions.

A question names the columns that it needs: maxima, and sums relative to the member's own maxima, which lose no digits.
Once the overall maxima are known, the sums are shifted to be relative to them, and added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from lsmooth.backends.formulas import divergence as divergences
from lsmooth.backends.formulas.rows import (
    MINUS_INFINITY,
    accumulate,
    logits_over_temperature,
    match_rank,
    over_temperature,
    proper_rows,
    row_maximum,
)
from lsmooth.backends.formulas.softmax import ShiftedRows, capped_logits
from lsmooth.backends.options import DivergenceOptions, SoftmaxOptions, with_arrays

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend

# The options that `CrossEntropyQuestion` and `DivergenceQuestion` take; scale and total are applied to their answers.
KNOWN_SOFTMAX = (
    "label_smoothing",
    "prior",
    "class_weight",
    "temperature",
    "z_loss",
    "logit_softcap",
    "counted",
    "scale",
    "total",
    "num_classes",
)
KNOWN_DIVERGENCE = ("divergence", "parameter", "temperature", "counted", "scale", "total", "constant_teacher")

Columns = dict[str, "Array"]  # numbers of each row (...), by name


class Slices(NamedTuple):
    """A member's slice of the logits of each head (rows, classes), and the other arrays of the call."""

    xp: Backend
    logits: Sequence[Array]
    rows: Mapping[str, Array]
    shared: Mapping[str, Array]

    def seen(self, head: int, counted: Array | None, softcap: float | None = None) -> Array:
        """The logits of a head, with zeros in ignored rows, -inf for padding, and the soft-cap."""
        xp, logits = self.xp, accumulate(self.xp, self.logits[head])
        if counted is not None:
            logits = xp.where(counted[..., None], logits, 0.0)
        padding = self.padding()
        logits = logits if padding is None else xp.where(padding, MINUS_INFINITY, logits)
        return capped_logits(xp, logits, softcap)

    def padding(self) -> Array | None:
        """Whether a class of the slice is padding: from ``rows["limit"]`` on."""
        if "limit" not in self.rows:
            return None
        xp, limit = self.xp, self.rows["limit"][..., None]
        size = xp.shape(self.logits[-1])[-1]
        if size is None:
            return xp.cumsum(xp.ones_like(self.logits[-1], xp.dtype(limit))) - 1 >= limit
        ids = xp.asarray(np.arange(size), xp.dtype(limit), like=limit)
        return match_rank(xp, ids, limit) >= limit


class Question(Protocol):
    """Columns of the rows that a loss needs."""

    @property
    def maxima(self) -> tuple[str, ...]:
        """The names of the columns of which the members need the maximum."""
        ...

    @property
    def sums(self) -> tuple[str, ...]:
        """The names of the columns that the members add up."""
        ...

    @property
    def own(self) -> tuple[str, ...]:
        """The names of columns that stay with the member."""
        ...

    def local(self, slices: Slices) -> Columns:
        """All columns of a member's slice; sums are relative to its own maxima."""
        ...

    def shifted(self, xp: Backend, own: Columns, top: Columns, rows: Mapping[str, Array]) -> Columns:
        """The sums relative to the overall maxima ``top``."""
        ...


class Below(NamedTuple):
    """A slice of one softmax: its logits less their maximum, over T."""

    rows: ShiftedRows
    z: Array
    exps: Array


def below_maximum(xp: Backend, logits: Array, temperature: Any) -> Below:
    """The slice of a softmax of these logits."""
    rows = ShiftedRows(xp, logits, row_maximum(xp, logits), temperature)
    z = logits_over_temperature(xp, logits - rows.shift[..., None], temperature)
    return Below(rows, z, xp.exp(z))


def largest(xp: Backend, logits: Array) -> Array:
    """The largest logit of each row, as a constant; -inf if all are masked."""
    return xp.stop_gradient(xp.max(xp.stop_gradient(logits), axis=-1))


def finite(xp: Backend, x: Array) -> Array:
    """``x``, 0 where it is infinite."""
    return xp.where(xp.equal(abs(x), -MINUS_INFINITY), 0.0, x)


def step_down(xp: Backend, own: Array, top: Array, temperature: Any) -> Array:
    """``(own - top) / T`` of the maxima; 0 for slices without classes, whose sums are 0."""
    empty = xp.equal(own, MINUS_INFINITY)
    return over_temperature(xp.where(empty, 0.0, finite(xp, own) - finite(xp, top)), temperature)


class CrossEntropyQuestion(NamedTuple):
    """The softmax cross-entropy of the last head, and optionally the statistics of its softmax."""

    options: SoftmaxOptions  # without arrays: `rows` and `shared` hold these
    soft: bool  # whether labels are distributions
    smoothed: bool  # whether there is an eps, which may be one of the arrays
    weighted: bool = False  # whether there are class weights
    statistics: bool = False
    prefix: str = ""  # of the names of its arrays in `rows`

    @property
    def maxima(self) -> tuple[str, ...]:
        label = () if self.soft else ("picked", "label_weight") if self.weighted else ("picked",)
        label = (*label, "label_largest") if self.soft and self.statistics else label
        # The soft-cap may make two logits equal: predictions use the logits without it.
        return ("top", *label, *(("largest",) if self.statistics and self.options.logit_softcap is not None else ()))

    @property
    def sums(self) -> tuple[str, ...]:
        names = ["total"]
        if self.soft:
            names += ["label_sum", "label_mass"]
            names += ["plain_sum", "plain_mass"] if self.weighted and self.statistics else []
        if self.smoothed:
            names += ["smooth_sum", "smooth_left", "smooth_mass"] if self.weighted else ["smooth_sum", "smooth_left"]
        return (*names, *(("spread",) if self.statistics else ()))

    @property
    def own(self) -> tuple[str, ...]:
        if not self.statistics:
            return ()
        return ("place", "label_place") if self.soft else ("place",)

    def local(self, slices: Slices) -> Columns:
        xp = slices.xp
        options = with_arrays(with_arrays(self.options, slices.shared), slices.rows, prefix=self.prefix)
        counted, temperature, weight = options.counted, options.temperature, options.class_weight
        logits = slices.seen(-1, counted, options.logit_softcap)
        below = below_maximum(xp, logits, temperature)
        columns = {"top": largest(xp, logits), "total": xp.sum(below.exps, axis=-1)}
        if self.statistics:
            columns["largest"], columns["place"] = _prediction(xp, slices.seen(-1, counted))
            terms = below.exps * xp.where(xp.equal(below.z, MINUS_INFINITY), 0.0, below.z)
            columns["spread"] = xp.sum(terms, axis=-1)
        if self.soft:
            padding, labels = slices.padding(), slices.rows["labels"]
            labels = labels if padding is None else xp.where(padding, 0.0, labels)
            columns["label_sum"], columns["label_mass"] = _label_sums(below.rows, labels, weight)
            if self.statistics:
                columns["label_largest"], columns["label_place"] = _prediction(xp, labels)
            if "plain_sum" in self.sums:
                columns["plain_sum"], columns["plain_mass"] = _label_sums(below.rows, labels, None)
        else:
            ids, here = self._ids(slices)
            columns["picked"] = xp.where(here, xp.pick(logits, ids), MINUS_INFINITY)
            if weight is not None:
                columns["label_weight"] = xp.where(here, xp.take(weight, ids), MINUS_INFINITY)
        if self.smoothed:
            columns |= _smoothing_sums(below.rows, options.prior, weight)
        return columns

    def _ids(self, slices: Slices) -> tuple[Array, Array]:
        """The labels in this slice, 0 in place of others; and a mask of the labels in this slice."""
        xp, labels = slices.xp, slices.rows["labels"]
        here = (labels >= 0) & (labels < xp.length(slices.logits[-1], -1, xp.dtype(labels)))
        return xp.where(here, labels, 0), here

    def shifted(self, xp: Backend, own: Columns, top: Columns, rows: Mapping[str, Array]) -> Columns:
        temperature = with_arrays(self.options, rows, prefix=self.prefix).temperature
        step = step_down(xp, own["top"], top["top"], temperature)
        factor = xp.exp(step)
        sums = {name: own[name] for name in self.sums}
        for name, mass in (("label_sum", "label_mass"), ("plain_sum", "plain_mass"), ("smooth_sum", self._spread_mass)):
            if name in sums:
                sums[name] = own[name] + step * own[mass]
        if self.statistics:
            sums["spread"] = factor * (own["spread"] + step * own["total"])
        return {**sums, "total": factor * own["total"]}

    @property
    def _spread_mass(self) -> str:
        return "smooth_mass" if self.weighted else "smooth_left"


def _label_sums(below: ShiftedRows, labels: Array, weight: Array | None) -> tuple[Array, Array]:
    """``sum_k t_k w_k (z_k - m) / T`` and ``sum_k t_k w_k`` of a slice."""
    xp = below.xp
    mass = labels if weight is None else labels * match_rank(xp, weight, labels)
    without = xp.equal(mass, 0) & xp.equal(below.logits, MINUS_INFINITY)
    proper = proper_rows(xp, labels)
    return below.weighted_sum(mass, without) * proper, xp.sum(mass, axis=-1) * proper


def _prediction(xp: Backend, x: Array) -> tuple[Array, Array]:
    """The largest number of a slice and its position, as floats, which are exact below 2^24."""
    x = xp.stop_gradient(x)
    return xp.max(x, axis=-1), xp.cast(xp.argmax(x, axis=-1), xp.dtype(x))


def _smoothing_sums(below: ShiftedRows, prior: Array | None, weight: Array | None) -> Columns:
    """``sum_k u_k w_k (z_k - m) / T``, ``sum_k u_k`` and ``sum_k u_k w_k`` over the classes that are not masked."""
    xp, logits = below.xp, below.logits
    masked = xp.equal(logits, MINUS_INFINITY)
    left = xp.cast(~masked, xp.dtype(logits))
    left = left if prior is None else left * match_rank(xp, prior, logits)
    mass = left if weight is None else left * match_rank(xp, weight, logits)
    columns = {"smooth_sum": below.weighted_sum(mass, masked), "smooth_left": xp.sum(left, axis=-1)}
    return columns if weight is None else {**columns, "smooth_mass": xp.sum(mass, axis=-1)}


class CrossEntropyAnswer(NamedTuple):
    """Of each row (...)."""

    losses: Array  # before the scale
    label_weight: Array | None  # the class weight of its label
    log_prob: Array
    entropy: Array | None
    log_sum_exp: Array


def cross_entropy_answer(
    xp: Backend, question: CrossEntropyQuestion, options: SoftmaxOptions, known: Columns, valid: Array | None
) -> CrossEntropyAnswer:
    """The losses computed from the totals.

    Args:
        xp: the backend.
        question: the question.
        options: its options, with their arrays.
        known: the totals and the maxima.
        valid: whether an integer label is a class.
    """
    temperature, eps, top = options.temperature, options.label_smoothing, finite(xp, known["top"])
    lse = xp.log(known["total"])
    label_weight = None
    if valid is None:
        label_weight = known["label_mass"] if question.weighted else None
        nll = known["label_mass"] * lse - known["label_sum"]
        log_prob = -nll if "plain_sum" not in known else known["plain_sum"] - known["plain_mass"] * lse
    else:
        factor = xp.one_or_nan(valid, xp.dtype(lse))
        picked = xp.where(valid, known["picked"], 0.0)
        log_prob = factor * (over_temperature(picked - top, temperature) - lse)
        nll = -log_prob
        if question.weighted:
            label_weight = xp.where(valid, known["label_weight"], 0.0)
            # A masked class of weight 0 contributes nothing.
            free = xp.equal(label_weight, 0) & xp.equal(picked, MINUS_INFINITY)
            nll = label_weight * xp.where(free, 0.0, nll)
    if question.smoothed:
        mass = known["smooth_mass"] / known["smooth_left"] if question.weighted else 1.0
        smooth = mass * lse - known["smooth_sum"] / known["smooth_left"]
        nll = (1.0 - eps) * nll + eps * smooth
    log_sum_exp = lse + over_temperature(top, temperature)
    if options.z_loss != 0.0:
        nll = nll + options.z_loss * log_sum_exp * log_sum_exp
    entropy = lse - known["spread"] / known["total"] if question.statistics else None
    answer = CrossEntropyAnswer(nll, label_weight, log_prob, entropy, log_sum_exp)
    if options.counted is None:
        return answer
    return CrossEntropyAnswer(*[x if x is None else xp.where(options.counted, x, 0.0) for x in answer])


class DivergenceQuestion(NamedTuple):
    """The divergence of the softmax of the second head from that of the first."""

    options: DivergenceOptions  # without arrays: `rows` hold these
    prefix: str = ""

    @property
    def maxima(self) -> tuple[str, ...]:
        return () if self.options.divergence in divergences.OF_LOGITS else ("teacher_top", "student_top")

    @property
    def sums(self) -> tuple[str, ...]:
        return _SUMS_OF_LOGITS.get(self.options.divergence) or ("teacher", "student", *self._cross)

    @property
    def own(self) -> tuple[str, ...]:
        return ()

    @property
    def _cross(self) -> tuple[str, ...]:
        return ("cross",) if self.options.divergence in ("forward_kl", "reverse_kl", "alpha") else ()

    def local(self, slices: Slices) -> Columns:
        xp, options = slices.xp, with_arrays(self.options, slices.rows, prefix=self.prefix)
        teacher, student = (slices.seen(head, options.counted) for head in (0, 1))
        if options.divergence in divergences.OF_LOGITS:
            return divergences.SUMS_OF_LOGITS[options.divergence](xp, teacher, student)
        t, s = (below_maximum(xp, z, options.temperature) for z in (teacher, student))
        columns = {"teacher_top": largest(xp, teacher), "student_top": largest(xp, student)}
        columns |= {"teacher": xp.sum(t.exps, axis=-1), "student": xp.sum(s.exps, axis=-1)}
        if options.divergence == "alpha":
            mixed = options.parameter * t.z + (1.0 - options.parameter) * s.z
            columns["cross"] = xp.sum(xp.exp(mixed), axis=-1)
        elif self._cross:
            p, q = (t, s) if options.divergence == "forward_kl" else (s, t)
            columns["cross"] = xp.sum(divergences.relative_terms(xp, p.z, q.z), axis=-1)
        return columns

    def shifted(self, xp: Backend, own: Columns, top: Columns, rows: Mapping[str, Array]) -> Columns:
        options = with_arrays(self.options, rows, prefix=self.prefix)
        if options.divergence in divergences.OF_LOGITS:
            return {name: own[name] for name in self.sums}
        t, s = (step_down(xp, own[name], top[name], options.temperature) for name in self.maxima)
        sums = {"teacher": xp.exp(t) * own["teacher"], "student": xp.exp(s) * own["student"]}
        if options.divergence == "alpha":
            sums["cross"] = xp.exp(options.parameter * t + (1.0 - options.parameter) * s) * own["cross"]
        elif self._cross:
            (first, p, q) = ("teacher", t, s) if options.divergence == "forward_kl" else ("student", s, t)
            sums["cross"] = xp.exp(p) * (own["cross"] + (p - q) * own[first])
        return sums


# The names of the sums of the divergences of logits.
_SUMS_OF_LOGITS = {"mse_logits": ("squares", "present"), "cosine": ("teacher_squares", "student_squares", "products")}


class Terms(NamedTuple):
    """The sum over a slice of the terms of a divergence between two softmaxes with known totals: one column."""

    options: DivergenceOptions
    prefix: str = ""

    maxima = own = ()
    sums = ("terms",)

    def local(self, slices: Slices) -> Columns:
        xp, rows = slices.xp, slices.rows
        options = with_arrays(self.options, rows, prefix=self.prefix)
        logs: list[Array] = []
        for head, name in enumerate(("teacher", "student")):
            below = slices.seen(head, options.counted) - rows[f"{name}_top"][..., None]
            below = logits_over_temperature(xp, below, options.temperature)
            logs.append(below - rows[f"{name}_log"][..., None])
        terms = divergences.TERMS[options.divergence](xp, logs[0], logs[1], options.parameter)
        return {"terms": xp.sum(terms, axis=-1)}

    def shifted(self, xp: Backend, own: Columns, top: Columns, rows: Mapping[str, Array]) -> Columns:
        return own


def divergence_answer(xp: Backend, options: DivergenceOptions, known: Columns) -> Array:
    """The divergence of each row, before the scale; not for those of `divergence.TERMS`."""
    kind = options.divergence
    if kind in divergences.OF_LOGITS:
        losses = divergences.of_sums(xp, kind, known)
        return losses if kind == "cosine" else losses / (options.temperature * options.temperature)
    log_t, log_s = xp.log(known["teacher"]), xp.log(known["student"])
    if kind == "forward_kl":
        return known["cross"] / known["teacher"] + log_s - log_t
    if kind == "reverse_kl":
        return known["cross"] / known["student"] + log_t - log_s
    alpha = options.parameter
    mixed = known["cross"] * xp.exp(-alpha * log_t - (1.0 - alpha) * log_s)
    return (1.0 - mixed) / (alpha * (1.0 - alpha))
