"""The notebooks are those of their scripts, and run."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import pytest
from conftest import require_backend

DOCS = Path(__file__).parents[1] / "docs"
SCRIPTS = sorted((DOCS / "notebooks").glob("*.py"))
FRAMEWORKS = {"2": "torch", "3": "tensorflow", "4": "jax", "6": "torch"}


@pytest.fixture(scope="module")
def built():
    """The script that makes the notebooks, as a module's names."""
    pytest.importorskip("jupytext", reason="jupytext is not installed")
    return runpy.run_path(str(DOCS / "build_notebooks.py"))


def test_the_page_lists_six_notebooks():
    page = (DOCS / "notebooks.md").read_text(encoding="utf-8")
    assert [f"notebooks/{script.stem}.ipynb" in page for script in SCRIPTS] == [True] * 6


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_is_made_from_its_script(built, script):
    import jupytext

    text = script.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert text == jupytext.writes(built["notebook"](script), fmt="ipynb") + "\n", "run python docs/build_notebooks.py"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_runs(built, script, tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    for package in ("ipykernel", "sklearn", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if script.stem[0] in FRAMEWORKS:
        require_backend(FRAMEWORKS[script.stem[0]])
    nbclient.NotebookClient(
        built["notebook"](script), timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
