"""The study trains the planned networks, each student with the right teacher."""

import numpy as np
import pytest

from lsmooth.study import run
from lsmooth.study.config import Plan, Training
from lsmooth.study.data import Data
from lsmooth.study.objectives import smoothed_labels, teachers_logits

PLAN = Plan(
    alphas=(0.0, 0.1),
    seeds=(3, 5),
    training=Training(rounds=2),
    student=Training(hidden=(8,), rounds=1),
    student_alphas=(0.0, 0.2),
    temperatures=(2.0, 4.0),
    draws=2,
)


class Network:
    """Logits that only its own training makes."""

    def __init__(self, number, classes):
        self.matrix = np.random.default_rng(number).normal(size=(2, classes))

    def logits(self, inputs):
        return inputs.astype(np.float64) @ self.matrix

    features = logits

    def output_weight(self):
        return np.eye(self.matrix.shape[1])


class Recorder:
    """A framework that records training calls."""

    def __init__(self):
        self.calls = []

    def versions(self):
        return {}

    def train(self, inputs, targets, objective, setting, *, num_classes, seed, training, after_round):
        network = Network(len(self.calls), num_classes)
        self.calls.append((targets, objective, setting, seed, training, network))
        for _ in range(training.rounds):
            after_round(network)
        return network


@pytest.fixture
def studied(monkeypatch):
    recorder, rng = Recorder(), np.random.default_rng(0)
    monkeypatch.setattr(run, "load_trainer", lambda name: recorder)
    inputs = {part: rng.normal(size=(60, 2)) for part in ("train", "validation", "test")}
    labels = {part: np.arange(60) % 3 for part in inputs}
    progress = []
    results = run.run_study(Data("made up", inputs, labels, ("a", "b", "c")), PLAN, "torch", progress.append)
    assert len(progress) == run.total_rounds(PLAN)
    return results, recorder.calls


def test_a_network_is_trained_for_each_amount_of_smoothing_and_seed(studied):
    results, calls = studied
    teachers = calls[:4]
    assert [call[1:4] for call in teachers] == [(smoothed_labels, a, s) for a in (0.0, 0.1) for s in (3, 5)]
    assert all(targets is results.data.labels["train"] for targets, *_ in teachers)
    assert {training for *_, training, _ in teachers} == {PLAN.training}


def test_students_have_seeds_of_their_own(studied):
    _, calls = studied
    teachers, students = ({call[3] for call in part} for part in (calls[:4], calls[4:]))
    assert len(students) == len(PLAN.seeds)
    assert not teachers & students


def test_each_student_has_the_logits_of_its_own_seeds_teacher(studied):
    results, calls = studied
    x, labels = results.data.inputs, results.data.labels
    kinds = [(None, 0.0), (None, 0.2), (0.0, 2.0), (0.0, 4.0), (0.1, 1.0)]
    assert [(each.teacher, each.setting) for each in results.students] == kinds
    teachers = {(call[2], call[3]): call[-1] for call in calls[:4]}
    for students, pair in zip(results.students, zip(calls[4::2], calls[5::2], strict=True), strict=True):
        for index, (targets, objective, setting, _, training, network) in enumerate(pair):
            assert (setting, training) == (students.setting, PLAN.student)
            assert objective is (smoothed_labels if students.teacher is None else teachers_logits)
            gamma = students.setting
            if students.teacher is None:
                assert targets is labels["train"]
            else:
                z = teachers[students.teacher, PLAN.seeds[index]].logits(x["train"])
                np.testing.assert_array_equal(targets, z)
                p = np.exp(z / setting) / np.exp(z / setting).sum(-1, keepdims=True)
                gamma = 1.5 * (1 - p[np.arange(60), labels["train"]]).mean()
            assert students.gamma[index] == pytest.approx(gamma)
            z = network.logits(x["test"])
            assert students.error[index] == pytest.approx((z.argmax(-1) != labels["test"]).mean())
            likelihoods = (z - np.log(np.exp(z).sum(-1, keepdims=True)))[np.arange(60), labels["test"]]
            assert students.nll[index] == pytest.approx(-likelihoods.mean())
            held_out = network.logits(x["validation"]).argmax(-1) != labels["validation"]
            assert students.validation_error[index] == pytest.approx(held_out.mean())
