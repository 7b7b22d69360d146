"""Make docs/notebooks/*.ipynb from the scripts of the same names, without outputs."""

from __future__ import annotations

from pathlib import Path

import jupytext

SCRIPTS = sorted((Path(__file__).resolve().parent / "notebooks").glob("*.py"))
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def notebook(script: Path):
    """The notebook of a script; the same content for the same script."""
    made = jupytext.reads(script.read_text(encoding="utf-8"), fmt="py:percent")
    made.metadata = KERNEL
    for number, cell in enumerate(made.cells):
        cell["id"] = f"{script.stem}-{number}"
        cell.metadata = {}
    return made


def main() -> None:
    """Write every notebook beside its script."""
    for script in SCRIPTS:
        text = jupytext.writes(notebook(script), fmt="ipynb")
        script.with_suffix(".ipynb").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
