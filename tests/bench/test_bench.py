"""Benchmarks: their rows, results and tables, but not their speed."""

import functools
import json
import math
import time
import timeit

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs it")
pytest.importorskip("matplotlib", reason="the pictures need it")
from conftest import REQUIRED, require_backend
from typer.testing import CliRunner

from lsmooth._commands import app
from lsmooth.bench import memory
from lsmooth.bench.report import duration, markdown
from lsmooth.bench.rows import Plan, Row
from lsmooth.bench.run import COPY, Result, load, run_row, save
from lsmooth.bench.suites import SUITES, suite_rows
from lsmooth.bench.timing import Timing, measure, measure_self_timed

MACHINE = {"processor": "a processor", "cores": 2, "system": "Linux", "python": "3.11", "versions": {"numpy": "2"}}


def timing(median):
    return Timing(median, median, median)


def result(**changes):
    fields = {
        "suite": "loss",
        "work": "cross-entropy, loss and gradient",
        "backend": "torch",
        "size": {"rows": 2, "classes": 3},
        "seconds": {"lsmooth": timing(2.0), "a peer": timing(8.0), COPY: timing(1.0)},
        "peak_bytes": {"lsmooth": 50 * 2**20, "a peer": 100 * 2**20},
        "unit_bytes": 50 * 2**20,
        "bars": {"copies": 2.5, "a peer": 5.0, "memory": 1.0},
    }
    return Result(**(fields | changes))


def test_ratios_are_compared_with_bars_of_the_right_direction():
    measured = result()
    assert [measured.figure(bar) for bar in ("copies", "a peer", "memory", "seconds")] == [2.0, 4.0, 1.0, 2.0]
    assert [measured.reached(bar) for bar in ("copies", "a peer", "memory")] == [True, False, True]
    assert result(bars={"another peer": 2.0}).reached("another peer") is None


def test_the_table_shows_missed_bars_in_bold():
    table = markdown(MACHINE, [result()])
    assert "| torch | 2 x 3 | 2 s | 2 (≤ 2.5) | a peer | **4** (≥ 5) | 1 (≤ 1) | 2 |" in table


def test_the_table_of_a_stream_shows_the_compiled_programs():
    table = markdown(MACHINE, [result(compilations={"lsmooth": 50, "a peer": 7}), result()])
    assert "| compiled, lsmooth | compiled, peer |" in table
    assert "**4** (≥ 5) | 50 | 7 |" in table


def test_a_row_counts_what_its_calls_compile():
    def call():
        return 1.0

    call.compilations = 3
    measured = run_row(
        "streams", 0, Row("work", "jax", {}, {"lsmooth": lambda: call}, self_timed=True, runs=1), Plan(), False
    )
    assert measured.compilations == {"lsmooth": 3}


def test_peaks_of_small_calls_are_in_mebibytes():
    assert "| 50 MiB | 100 MiB |" in markdown(MACHINE, [result(unit_bytes=2**22 - 1)])
    assert "| **12.5** (≤ 1) | 25 |" in markdown(MACHINE, [result(unit_bytes=2**22)])


@pytest.mark.parametrize(("seconds", "text"), [(1.5, "1.5 s"), (2e-3, "2 ms"), (3.21e-6, "3.21 µs"), (4e-8, "40 ns")])
def test_durations_are_in_the_unit_that_reads_best(seconds, text):
    assert duration(seconds) == text


def test_calls_alternate():
    calls = []
    measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, kept=2)
    turns = [name for name, before in zip(calls, [None, *calls], strict=False) if name != before]
    assert turns[-4:] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(("longest", "count"), [(0.02, 2), (1.0, 4)])
def test_long_calls_are_measured_less_often(monkeypatch, longest, count):
    monkeypatch.setattr("lsmooth.bench.timing.LONG", 0.02)
    monkeypatch.setattr("lsmooth.bench.timing.LONGEST", longest)
    calls = []

    def long():
        calls.append("long")
        time.sleep(0.03 if len(calls) > 1 else 0.1)  # the first compiles

    seconds = measure({"long": long, "short": lambda: None})
    assert len(calls) == count
    assert 0.03 <= seconds["long"].low <= seconds["long"].median <= seconds["long"].high < 0.1
    assert seconds["short"].median < 0.01


def test_the_first_run_of_each_round_is_dropped(monkeypatch):
    now, last = [0.0], [None]

    def call(name):
        now[0] += 10.0 if last[0] != name else 1.0  # memory that the other gave back
        last[0] = name

    monkeypatch.setattr("lsmooth.bench.timing.LONG", 100.0)
    monkeypatch.setattr("timeit.Timer", functools.partial(timeit.Timer, timer=lambda: now[0]))
    seconds = measure({"a": lambda: call("a"), "b": lambda: call("b")}, rounds=2, kept=2)
    assert seconds == {"a": (1.0, 1.0, 1.0), "b": (1.0, 1.0, 1.0)}


def test_self_timed_calls_report_their_own_time():
    answers = iter([9.0, *np.arange(1.0, 10.0)])  # the first is dropped
    assert measure_self_timed({"lsmooth": lambda: next(answers)})["lsmooth"].median == 5.0


def test_results_of_other_suites_stay_in_the_file(tmp_path):
    path = tmp_path / "machine.json"
    save([result(), result(suite="linear")], MACHINE, path)
    save([result(seconds={"lsmooth": timing(7.0)})], MACHINE, path)
    machine, results = load(path)
    assert machine == MACHINE
    assert [(each.suite, each.seconds["lsmooth"].median) for each in results] == [("linear", 2.0), ("loss", 7.0)]
    assert results[0] == result(suite="linear")


@pytest.mark.skipif(not memory.can_measure(Plan()), reason="this system does not tell a process's peak memory")
def test_memory_is_that_of_one_call():
    require_backend("torch")
    plan = Plan(("torch",), quick=True)
    rows = list(suite_rows("loss", plan))
    index = next(i for i, row in enumerate(rows) if row.size == {"rows": 64, "classes": 1000})
    peak = memory.peak_bytes("loss", index, "F.cross_entropy", plan)
    assert 0 < peak < 2**28


def test_a_contender_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no such contender"):
        memory.peak_bytes("overhead", 0, "no such contender", Plan(("numpy",)))


def test_a_row_is_measured_beside_its_copy():
    row = Row("work", "numpy", {"rows": 1}, {"lsmooth": lambda: lambda: math.sqrt(2.0)}, copy=lambda: lambda: None)
    measured = run_row("loss", 0, row, Plan(), with_memory=False)
    assert set(measured.seconds) == {"lsmooth", COPY}
    assert measured.figure("copies") > 1.0


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_runs_its_small_rows(suite):
    """Call each row once, untimed: the functions exist and accept these arguments."""
    if REQUIRED and set(REQUIRED) != {"numpy", "jax", "tensorflow", "torch"}:
        pytest.skip("the suites compare across frameworks, which the environment of all of them has")
    ran = set()
    for row in suite_rows(suite, Plan(quick=True)):
        kind = (row.work, row.backend)
        if kind in ran or "compiled" in row.backend:
            continue
        ran.add(kind)
        assert "lsmooth" in row.contenders
        assert set(row.bars) <= {"copies", "memory", "seconds", *row.contenders}
        for name, setup in row.contenders.items():
            if "compiled" not in name:
                setup()()
    assert ran


def test_the_command_writes_results_table_and_pictures(tmp_path):
    done = CliRunner().invoke(
        app, ["bench", "overhead", "import", "--backend", "numpy", "--out", str(tmp_path), "--name", "here"]
    )
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} == {"here.json", "here.md"}  # no peer, no picture
    works = [row["work"] for row in json.loads((tmp_path / "here.json").read_text())["results"]]
    assert works[:2] == ["dispatch", "eager call, forward"]
    assert "## Dispatch" in (tmp_path / "here.md").read_text()


def test_the_report_can_be_rewritten_and_ends_with_the_notes(tmp_path):
    save([result(), result(suite="scaling", work="over rows, cross-entropy")], MACHINE, tmp_path / "here.json")
    (tmp_path / "here.notes.md").write_text("## Why\n\nThis.\n")
    arguments = ["bench", "--report-only", "--name", "here", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "here.md").read_text() == markdown(*load(tmp_path / "here.json"), "## Why\n\nThis.")
    assert (tmp_path / "here.md").read_text().endswith("\n\n## Why\n\nThis.\n")
    pictures = {"here-speed.png", "here-memory.png", "here-scaling.png"}
    assert {path.name for path in tmp_path.iterdir()} == pictures | {"here.json", "here.md", "here.notes.md"}
    save([result(seconds={"lsmooth": timing(2.0)}, peak_bytes={}, bars={})], MACHINE, tmp_path / "here.json")
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"here-scaling.png"}  # no stale picture
    done = CliRunner().invoke(app, [*arguments, "--name", "elsewhere"])
    assert done.exit_code == 2
    assert "elsewhere.json" in "".join(done.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["no-such"],
            "SUITE must be one of loss, distillation, linear, calibration, metrics, overhead, import, scaling, streams",
        ),
        (["loss", "--backend", "caffe"], "--backend caffe is not installed"),
        (["loss", "--backend", "numpy", "--device", "cuda"], "--device: there is no device 'cuda' here"),
    ],
)
def test_the_command_refuses_unknown_options(arguments, message):
    done = CliRunner().invoke(app, ["bench", *arguments])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
