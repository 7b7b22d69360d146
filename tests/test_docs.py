"""The Python code in README.md and docs/ runs, page by page, and prints what the page says."""

from __future__ import annotations

import doctest
import importlib.util
import re
from pathlib import Path

import pytest
from conftest import REQUIRED

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
IMPORT = re.compile(
    r"^(?:>>> )?(?:import|from) (jax|flax|optax|tensorflow|keras|torch|sklearn|matplotlib)\b", re.MULTILINE
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    blocks = [(match.group(1), text.count("\n", 0, match.start(1))) for match in BLOCK.finditer(text)]
    for name in {name for code, _ in blocks for name in IMPORT.findall(code)}:
        if importlib.util.find_spec(name) is None:
            assert name not in REQUIRED, f"LSMOOTH_TEST_BACKENDS asks for {name}, which is not installed"
            pytest.skip(f"the page needs {name}, which is not installed")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for code, line in blocks:
        if ">>>" in code:
            test = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), line)
            runner = doctest.DocTestRunner(verbose=False)
            assert not runner.run(test, clear_globs=False).failed, "see the captured output"
            names.update(test.globs)
        else:
            exec(compile("\n" * line + code, str(page), "exec"), names)
