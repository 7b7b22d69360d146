"""Draw the pictures of plots.md into images/plots, by running the page's own code."""

import os
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent


def main() -> None:
    """Run every Python block of the page, in the folder that its pictures belong to."""
    page = (DOCS / "plots.md").read_text(encoding="utf-8")
    os.environ.setdefault("MPLBACKEND", "agg")
    os.chdir(DOCS / "images" / "plots")
    for code in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        exec(code, {"__name__": "__main__"})


if __name__ == "__main__":
    main()
