"""Build the package, check its files, and try the wheel in a clean environment.

Usage: python tests/check_package.py FOLDER, which gets the sdist and the wheel.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SMOKE = """
import importlib.metadata, sys
import numpy as np
import lsmooth
from lsmooth.calibration import MatrixScaling, TemperatureScaling

assert lsmooth.__version__ == importlib.metadata.version("lsmooth"), lsmooth.__version__
logits = np.array([[2.0, 0, 0], [0, 0, 3.0], [1.0, 0, 0], [0, 2.0, 0]])
labels = np.array([0, 2, 1, 1])
assert abs(lsmooth.losses.softmax_cross_entropy(labels[:2], logits[:2], label_smoothing=0.1) - 0.333901) < 1e-6
assert lsmooth.smoothing.smooth_labels(labels, 0.1, num_classes=3).shape == (4, 3)
assert lsmooth.distillation.distillation_loss(logits, logits) == 0
assert TemperatureScaling().fit(logits, labels).temperature_ > 0
assert 0 < lsmooth.metrics.brier_score(labels, logits, from_logits=True) < 2
by_matrix = MatrixScaling(off_diagonal=1.0)
for missing, extra in ((lambda: lsmooth.integrations.torch, "torch"), (lambda: by_matrix.fit(logits, labels), "")):
    try:
        missing()
    except ImportError as error:
        assert f"pip install 'lsmooth[{extra}" in str(error), error
    else:
        raise AssertionError("nothing is missing here")
assert not {"scipy", "torch", "jax", "tensorflow", "sklearn", "matplotlib"} & set(sys.modules)
"""


def main(folder: Path) -> None:
    """Build into the folder, and raise an error where a file or the wheel is not as it must be."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    check_wheel(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        check_sdist([name.partition("/")[2] for name in archive.getnames()])
    with tempfile.TemporaryDirectory() as home:
        venv.create(home, with_pip=True)
        scripts = Path(home) / ("Scripts" if sys.platform == "win32" else "bin")
        run(str(scripts / "python"), "-m", "pip", "install", "--quiet", str(wheel), cwd=home)
        run(str(scripts / "python"), "-c", SMOKE, cwd=home)
        command = subprocess.run([scripts / "lsmooth"], capture_output=True, text=True, cwd=home)
        assert command.returncode == 1, command
        assert "pip install 'lsmooth[cli]'" in command.stderr, command.stderr
    print(f"{wheel.name} and {sdist.name} are as they must be.")


def check_wheel(names: list[str]) -> None:
    """The wheel contains only the package, its data and its metadata."""
    others = [name for name in names if not name.startswith(("lsmooth/", "lsmooth-"))]
    unwanted = [name for name in names if {"tests", "results", "docs"} & set(name.split("/")) or name.endswith(".md")]
    assert not others, others
    assert not unwanted, unwanted
    for needed in (
        "lsmooth/py.typed",
        "lsmooth/templates/page.html",
        "lsmooth/templates/report.css",
        "lsmooth/backends/torch/__init__.py",
    ):
        assert needed in names, needed
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names), names


def check_sdist(names: list[str]) -> None:
    """The sdist contains everything needed to build, test and read lsmooth."""
    for needed in ("tests/conftest.py", "docs/index.md", "tox.ini", "LICENSE", "README.md", "CITATION.cff"):
        assert needed in names, needed
    unwanted = [name for name in names if "__pycache__" in name or name.startswith((".tox", ".venv"))]
    assert not unwanted, unwanted


def run(*command: str, cwd: str | None = None) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, cwd=cwd)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
