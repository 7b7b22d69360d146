"""Each Python block in README.md and docs/ runs on its own, and prints what its comments say."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest
from conftest import REQUIRED

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^ *```python\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
IMPORT = re.compile(
    r"^(?:import|from) (jax|flax|optax|tensorflow|keras|torch|sklearn|matplotlib|ignite|evaluate|torchmetrics)\b",
    re.MULTILINE,
)


def blocks_of(page: Path) -> list:
    """The blocks of a page, with the line that each begins on."""
    text = page.read_text(encoding="utf-8")
    starts = [(match.group(1), text.count("\n", 0, match.start(1))) for match in BLOCK.finditer(text)]
    return [pytest.param(page, line, code, id=f"{page.relative_to(ROOT)}:{line + 1}") for code, line in starts]


def comments_after(lines: list[str], statement: ast.stmt) -> list[str]:
    """The comment at the end of a statement, or those on the lines that follow it."""
    tail = lines[statement.end_lineno - 1][statement.end_col_offset :].strip()
    if tail.startswith("#"):
        return [tail[1:].strip()]
    following = []
    for line in lines[statement.end_lineno :]:
        if not line.startswith("#"):
            break
        following.append(line[1:].removeprefix(" ").rstrip())
    return following


def check_block(code: str, filename: str = "block") -> None:
    """Run a block in a separate namespace; the output of a statement must match the comment after it."""
    names: dict = {"__name__": "__main__"}
    lines = code.split("\n")
    for statement in ast.parse(code, filename).body:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(ast.Module([statement], []), filename, "exec"), names)
        output = [line.rstrip() for line in printed.getvalue().rstrip("\n").split("\n")] if printed.getvalue() else []
        if output:
            expected = comments_after(lines, statement)
            assert expected[: len(output)] == output, f"line {statement.lineno} prints {output}, not {expected}"


@pytest.mark.parametrize(("page", "line", "code"), [block for page in PAGES for block in blocks_of(page)])
def test_every_code_block_runs_and_prints_its_output(page, line, code, tmp_path, monkeypatch):
    assert ">>>" not in code, "the prompts would be copied with the code: show output as comments"
    needed = {*IMPORT.findall(code), *(["matplotlib"] if "plots" in code else [])}
    for name in needed:
        if importlib.util.find_spec(name) is None:
            assert name not in REQUIRED, f"LSMOOTH_TEST_BACKENDS asks for {name}, which is not installed"
            pytest.skip(f"the block needs {name}, which is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    check_block("\n" * line + code, str(page))


@pytest.mark.parametrize(
    "code", ["print(1)  # 2\n", "print(1)\n", "print(1)\nprint(2)\n# 1\n", "for i in range(2):\n    print(i)\n# 0\n"]
)
def test_a_code_block_with_wrong_output_is_found(code):
    with pytest.raises(AssertionError, match="prints"):
        check_block(code)


def test_blocks_share_no_names():
    check_block("x = 1\nprint(x)  # 1\n")
    with pytest.raises(NameError):
        check_block("print(x)  # 1\n")
