"""Losses over classes that are spread over the members of a group, each of which holds a slice of the logits.

Each member computes the columns of its slice that `questions` name. The members exchange the maxima, and then the
sums relative to them, from which the losses of the rows follow. The gradient of a slice needs no further exchange.
Questions that are asked together share the exchanges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lsmooth.backends.formulas import divergence as divergences
from lsmooth.backends.formulas.linear import Call, Kernels, linear_rows, stacked_columns
from lsmooth.backends.formulas.questions import (
    KNOWN_DIVERGENCE,
    KNOWN_SOFTMAX,
    Columns,
    CrossEntropyAnswer,
    CrossEntropyQuestion,
    DivergenceQuestion,
    Question,
    Slices,
    Terms,
    cross_entropy_answer,
    divergence_answer,
    finite,
)
from lsmooth.backends.options import DivergenceOptions, Options, SoftmaxOptions, are_known

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend
    from lsmooth.backends.members import Members


class Asked(NamedTuple):
    """A call whose classes are spread over members."""

    xp: Backend
    members: Members
    call: Call  # labels are those of all classes
    num_classes: int | None = None  # the classes from there on are padding
    forms: tuple[Any, ...] = ()  # transforms of the logits of each head, with a method `applied`
    block_size: int | None = None
    signature: str = ""

    @property
    def size(self) -> Any:
        """The number of classes of the member's slice."""
        head = self.call.heads[-1]
        return self.xp.length(head.hidden, -1) if head.weight is None else self.xp.length(head.weight, 0)

    def of_slice(self) -> Call:
        """The call with labels and the end of the classes relative to the first class of the slice."""
        rows, start = dict(self.call.rows), self.members.start(self.size)
        labels = rows.get("labels")
        if labels is not None and "int" in self.xp.dtype(labels):
            # Padding is in no slice.
            here = labels if self.num_classes is None else self.xp.where(labels < self.num_classes, labels, -1)
            rows["labels"] = self.xp.where(here < 0, here, here - _number(self.xp, start, labels))
        if self.num_classes is not None:
            ones = self.xp.ones_like(self.call.heads[-1].hidden[..., 0], "int32")
            rows["limit"] = ones * (self.num_classes - start)
        return self.call._replace(rows=rows)

    def columns(self, questions: Sequence[Question]) -> list[Columns]:
        """The columns of the member's slice, for each question."""
        block = PartsOfBlock(self.xp, tuple(questions), self.forms)
        stacked = linear_rows(self.xp, block, self.of_slice(), self.block_size)
        each = iter(range(*block.COLUMNS))
        return [{name: stacked[..., next(each)] for name in names_of(question)} for question in questions]

    def known(self, questions: Sequence[Question]) -> tuple[list[Columns], list[Columns]]:
        """For each question, the totals and maxima over all members, and the member's own columns."""
        xp, members = self.xp, self.members
        own, tops, right = [], [], False
        for _ in range(2):
            own = self.columns(questions)
            maxima = [xp.stop_gradient(x[name]) for q, x in zip(questions, own, strict=True) for name in q.maxima]
            if not maxima:
                right = True
                break
            stacked, right = members.agree(stacked_columns(xp, maxima), self.size, self.signature)
            tops = [stacked[..., i] for i in range(len(maxima))]
            if right:
                break
        if not right:
            raise RuntimeError("The members of class_shards changed the sizes of their slices during a call.")
        each = iter(tops)
        top = [{name: next(each) for name in q.maxima} for q in questions]
        sums = [q.shifted(xp, x, y, self.call.rows) for q, x, y in zip(questions, own, top, strict=True)]
        flat = [x[name] for q, x in zip(questions, sums, strict=True) for name in q.sums]
        totals = members.sum(stacked_columns(xp, flat))
        each = iter([totals[..., i] for i in range(len(flat))])
        found = []
        for q, x, y in zip(questions, own, top, strict=True):
            # Only one member has the label, and the others send -inf: the maximum is the value, and its sum.
            y = {name: members.sum(x[name], total=z) if name in OF_ONE else z for name, z in y.items()}
            found.append({**y, **{name: next(each) for name in q.sums}})
        return found, own


# Columns that only one member knows; the others send -inf.
OF_ONE = ("picked", "label_weight")


def names_of(question: Question) -> tuple[str, ...]:
    """The names of the columns of a question, in order."""
    return (*question.maxima, *question.sums, *question.own)


class PartsOfBlock(NamedTuple):
    """The columns of some questions, as a `lsmooth.backends.formulas.linear.BlockLoss`."""

    xp: Backend
    questions: tuple[Question, ...]
    forms: tuple[Any, ...] = ()
    scale: float | None = None
    total: bool = False
    frozen_heads: tuple[int, ...] = ()

    COPIES = 6  # of the logits of a block that the formulas make

    @property
    def COLUMNS(self) -> tuple[int]:  # noqa: N802  # a constant of the other block losses
        """The number of columns of a row."""
        return (sum([len(names_of(q)) for q in self.questions]),)

    def __call__(
        self,
        logits: tuple[Array, ...],
        rows: Mapping[str, Array],
        shared: Mapping[str, Array],
        final_kernels: Kernels | None = None,
    ) -> Array:
        """The columns, (rows, columns)."""
        if self.forms:
            logits = tuple([form.applied(self.xp, z) for form, z in zip(self.forms, logits, strict=True)])
        slices = Slices(self.xp, logits, rows, shared)
        return self.stacked([self.xp.columns_of_slice(question, slices) for question in self.questions])

    def stacked(self, found: Sequence[Columns]) -> Array:
        """The columns of every question as one array."""
        each = zip(self.questions, found, strict=True)
        return stacked_columns(self.xp, [columns[name] for question, columns in each for name in names_of(question)])


def _check_known(options: Options, known: Sequence[str]) -> None:
    if not are_known(options, known):
        raise NotImplementedError(f"An option of this call cannot be computed from slices of the classes: {options}.")


def cross_entropy(
    asked: Asked, question: CrossEntropyQuestion, options: SoftmaxOptions
) -> tuple[CrossEntropyAnswer, list[Array]]:
    """The losses of the rows; with statistics, also predicted classes and the most probable classes of distributions.

    ``options`` include their arrays.
    """
    _check_known(options, KNOWN_SOFTMAX)
    found, own = asked.known([question])
    answer = cross_entropy_answer(asked.xp, question, options, found[0], _valid(asked))
    return answer, _predicted(asked, question, own[0], found[0], options.counted) if question.statistics else []


def divergence_and_losses(
    asked: Asked,
    question: DivergenceQuestion,
    options: DivergenceOptions,
    hard: CrossEntropyQuestion | None = None,
    hard_options: SoftmaxOptions | None = None,
) -> tuple[Array, CrossEntropyAnswer | None]:
    """The divergences of the rows, and their cross-entropies, by the same two exchanges."""
    xp = asked.xp
    _check_known(options, KNOWN_DIVERGENCE)
    questions = [question] if hard is None else [question, hard]
    found, _ = asked.known(questions)
    answer = None
    if hard is not None and hard_options is not None:
        _check_known(hard_options, KNOWN_SOFTMAX)
        answer = cross_entropy_answer(xp, hard, hard_options, found[1], _valid(asked))
    if options.divergence not in divergences.TERMS:
        losses = divergence_answer(xp, options, found[0])
    else:
        losses = _sum_of_terms(asked, question, found[0])
    return losses if options.counted is None else xp.where(options.counted, losses, 0.0), answer


def _sum_of_terms(asked: Asked, question: DivergenceQuestion, known: Columns) -> Array:
    """The divergences whose terms need both softmaxes, by a third exchange."""
    xp, members = asked.xp, asked.members
    more = {}
    for name in ("teacher", "student"):
        more[f"{name}_top"] = finite(xp, known[f"{name}_top"])
        more[f"{name}_log"] = members.shared(xp.log(known[name]))
    call = asked.call._replace(rows={**asked.call.rows, **more})
    found, _ = asked._replace(call=call).known([Terms(question.options, question.prefix)])
    return found[0]["terms"]


def _valid(asked: Asked) -> Array | None:
    """Whether each integer label is a class; None for distributions."""
    labels = asked.call.rows["labels"]  # of all classes
    if "int" not in asked.xp.dtype(labels):
        return None
    end = asked.members.total(asked.size) if asked.num_classes is None else asked.num_classes
    return (labels >= 0) & (labels < _number(asked.xp, end, labels))


def _number(xp: Backend, number: Any, like: Array) -> Any:
    """A number of classes in the dtype of ``like``, if it is an array."""
    return xp.cast(number, xp.dtype(like)) if xp.is_array(number) else number


def _predicted(
    asked: Asked, question: CrossEntropyQuestion, own: Columns, known: Columns, counted: Array | None
) -> list[Array]:
    """The first class with the largest number, by a third exchange."""
    xp, members = asked.xp, asked.members
    name = "top" if question.options.logit_softcap is None else "largest"
    names = [(name, "place"), ("label_largest", "label_place")][: len(question.own)]
    start, last = members.start(asked.size), members.total(asked.size)
    candidates = []
    for largest_name, place_name in names:
        place = xp.cast(own[place_name], "int64")
        first, end = _number(xp, start, place), _number(xp, last, place)
        candidates.append(xp.where(xp.equal(own[largest_name], known[largest_name]), -place - first, -end))
    found = -members.max(stacked_columns(xp, candidates))
    classes = [found[..., i] for i in range(len(names))]
    return classes if counted is None else [xp.where(counted, x, -1) for x in classes]
