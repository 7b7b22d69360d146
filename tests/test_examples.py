"""The scripts in examples/ run and print correct results."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from conftest import require_backend

EXAMPLES = Path(__file__).parents[1] / "examples"
TRAINING = {"jax_digits": "jax", "keras_digits": "tensorflow", "torch_digits": "torch"}


def run(example: str):
    return runpy.run_path(str(EXAMPLES / f"{example}.py"))["main"]()


def test_numpy_smoothed_labels_penalise_overconfidence():
    losses = run("numpy_labels")
    assert losses["sure, label_smoothing=0.0"] < losses["moderate, label_smoothing=0.0"]
    assert losses["sure, label_smoothing=0.1"] > losses["moderate, label_smoothing=0.1"]
    # The wrong classes hold eps (K - 1) / K of the target, each with a logit 20 below the right one's.
    assert losses["sure, label_smoothing=0.1"] == pytest.approx(0.1 * 2 / 3 * 20, abs=1e-6)


@pytest.mark.parametrize(("example", "backend"), TRAINING.items(), ids=TRAINING)
def test_training_lowers_the_loss(example, backend):
    require_backend(backend)
    pytest.importorskip("sklearn", reason="the examples train on scikit-learn's digits")
    losses = run(example)
    # The entropy of the smoothed labels, 0.5, is the least that any classifier reaches.
    assert 0.5 < losses[-1] < 0.75 < 1.5 < losses[0]


def test_jax_a_student_learns_from_its_teacher():
    require_backend("jax")
    pytest.importorskip("sklearn", reason="the examples train on scikit-learn's digits")
    losses = run("jax_distillation")
    assert losses[-1] < 0.1 * losses[0]


def test_transformers_a_student_learns_from_its_teacher():
    require_backend("torch")
    pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    losses = run("transformers_distillation")
    # With T = 2, a student of even predictions pays less than 0.9 * 4 * log(16) + 0.1 * log(16), 10.3, at first:
    # were the sums over accumulated batches not divided by their tokens, it would be 28 times as much or more.
    assert losses[0] < 10.3
    assert losses[-1] < 0.25 * losses[0]


@pytest.fixture(scope="module")
def translation():
    """The script of the translator, as a module's names."""
    pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    return runpy.run_path(str(EXAMPLES / "translation.py"))


@pytest.mark.parametrize(("framework", "amounts"), [("torch", ["0", "0.1"]), ("jax", ["0.1"])])
def test_translators_are_compared_with_and_without_smoothing(translation, framework, amounts, capsys):
    require_backend(framework)
    results = translation["main"](["--quick", "--framework", framework, "--smoothing", *amounts])
    assert [len(runs) for runs in results.values()] == [1] * len(amounts)
    for smoothing, (measured,) in results.items():
        assert measured["NLL"] < 1.5, "an even prediction of ten digits costs 2.3"
        assert measured["NLL scaled"] < measured["NLL"] + 0.01, smoothing
        assert 10 < measured["BLEU beam"] < 100
    assert len(amounts) == 1 or "Müller et al.: higher" in capsys.readouterr().out


def test_every_target_date_is_in_the_vocabulary(translation):
    corpus = translation["corpus"](500, 0)
    assert all(text in right for text, right in zip(translation["texts"](corpus.target), corpus.answers, strict=True))
    assert {len(right) for right in corpus.answers} == {1, 2, 4}
    assert 0 < translation["quality"](["1984-03-03"], [["1984-03-03", "2084-03-03"]])["BLEU"] > 99.9


def test_a_beam_search_finds_what_greedy_search_misses(translation):
    """After the likelier first word all second words have probability 0.1; after the other one, one has 0.99."""
    first, second, end = translation["WORDS"].index("1"), translation["WORDS"].index("2"), translation["EOS"]

    def decode(memory, source, prefix):
        p = np.full((*prefix.shape, translation["VOCABULARY"]), 1e-9)
        p[:, 0, first], p[:, 0, second] = 0.6, 0.4
        p[:, 1, 4:14] = np.where(prefix[:, 1, None] == first, 0.1, 1e-9)
        p[:, 1, second] = np.where(prefix[:, 1] == second, 0.99, p[:, 1, second])
        p[:, 2:, end] = 1.0
        return np.log(p)

    source = np.zeros((2, 3), int)
    translator = translation["Translator"](lambda source: source[..., None], decode, np.zeros((1, 3)))
    assert translation["search"](translator, source) == ["10", "10"]
    assert translation["search"](translator, source, beams=4) == ["22", "22"]


@pytest.mark.parametrize("example", ["transformers_linear_head", "trl_linear_head"])
def test_trainers_lower_a_loss_without_logits(example):
    require_backend("torch")
    for package in ("transformers", "accelerate", *(["trl", "datasets"] if example.startswith("trl") else [])):
        pytest.importorskip(package, reason=f"{package} is not installed")
    losses = run(example)
    # Before training, the loss of 16 or 13 tokens is log(16) or log(13); a sum not divided by its tokens exceeds 10.
    assert losses[0] < 3.5
    assert losses[-1] < 0.5 * losses[0]


def test_every_script_is_run():
    others = {"numpy_labels", "jax_distillation", "transformers_distillation", "transformers_linear_head"}
    others |= {"dask_calibration", "scale_cost", "sklearn_calibration", "translation", "trl_linear_head"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*others, *TRAINING}


def test_sklearn_classifiers_lose_less_once_calibrated():
    pytest.importorskip("sklearn.frozen", reason="scikit-learn 1.6 has it first")
    losses = run("sklearn_calibration")
    assert set(losses) == {"boosted trees", "forest", "support vectors", "text"}
    for name, (before, after) in losses.items():
        assert after < (before if name in ("forest", "text") else before + 0.01), name


@pytest.fixture(scope="module")
def scale():
    """The names of the script of the costs on many devices."""
    return runpy.run_path(str(EXAMPLES / "scale_cost.py"))


def test_spread_classes_send_five_floats_a_row_and_gathered_logits_a_slice(scale):
    job = scale["Job"](rows=10, classes=800, features=0, class_devices=8, row_devices=4, bytes=2)
    assert scale["spread_head"](job).sent == pytest.approx(2 * 7 / 8 * 10 * 5 * 4 + 2 * 3 / 4 * 2 * 4)
    assert scale["gathered_logits"](job).sent == pytest.approx(7 * 10 * 100 * 2 + 2 * 3 / 4 * 2 * 4)


def test_the_ways_differ_in_products_and_in_logits(scale):
    job = scale["Job"](rows=10, classes=800, features=3, class_devices=8, flops=1.0, logit=5.0, gathered_logit=2.0)
    product = 2 * 10 * 3 * 100
    head, logits, gathered = (scale[f"{way}"](job) for way in ("spread_head", "spread_logits", "gathered_logits"))
    assert head.compute == 4 * product + 10 * 100 * 5.0
    assert logits.compute == 3 * product + 10 * 100 * 5.0
    assert gathered.compute == 3 * product + 10 * 800 * 2.0
    assert [x.logits for x in (head, logits, gathered)] == [0.0, 10 * 100 * 2, 10 * 800 * 2]


def test_one_device_sends_nothing(scale):
    job = scale["Job"](class_devices=1, row_devices=1)
    for way in ("spread_head", "spread_logits", "gathered_logits", "weight_gradient"):
        assert scale[way](job).sent == scale[way](job).sending == 0.0


def test_the_time_of_a_collective_is_bytes_over_bandwidth_plus_steps(scale):
    assert scale["all_reduce"](100.0, 4, 10.0, 1.0).sending == 2 * 3 / 4 * 100 / 10 + 2 * 2
    assert scale["all_gather"](100.0, 4, 10.0, 1.0).sending == 3 * 100 / 10 + 2


def test_the_page_on_scale_shows_what_the_script_prints(scale, capsys):
    page = (EXAMPLES.parent / "docs" / "scale.md").read_text("utf-8")
    shown = re.findall(r"```sh\npython examples/scale_cost.py(.*)\n```\n\n((?:\|.*\n)+)", page)
    assert len(shown) == 2
    for arguments, table in shown:
        scale["main"](arguments.split())
        printed = capsys.readouterr().out.splitlines(keepends=True)
        assert table == "".join(line for line in printed if line.startswith("|"))


def test_the_times_per_logit_can_be_measured(scale):
    require_backend("torch")
    spread, gathered = scale["measured_logits"](4, 16, 1)
    assert min(spread, gathered) > 0
