"""The experiments of "When Does Label Smoothing Help?", end to end, on real data."""

from lsmooth.study.config import BACKENDS, FULL, QUICK, Plan, Training
from lsmooth.study.data import DATASETS, Data, load_data
from lsmooth.study.report import write_report
from lsmooth.study.run import Results, run_study

__all__ = [
    "BACKENDS",
    "DATASETS",
    "FULL",
    "QUICK",
    "Data",
    "Plan",
    "Results",
    "Training",
    "load_data",
    "run_study",
    "write_report",
]
