"""``lsmooth calibrate``: fit a calibrator to files of logits and report on it, without loading them into memory."""

from lsmooth.calibrate.data import Data, open_data
from lsmooth.calibrate.report import write_report
from lsmooth.calibrate.run import METHODS, Options, Results, calibrate

__all__ = ["METHODS", "Data", "Options", "Results", "calibrate", "open_data", "write_report"]
