"""Scripts that run side by side, as the processes of a distributed program do."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def ended(commands, timeout=120.0):
    """The exit status, output and errors of each command; all are stopped at the time limit."""
    runs = [
        subprocess.Popen([sys.executable, *map(str, each)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for each in commands
    ]
    try:
        outputs = [run.communicate(timeout=timeout) for run in runs]
    finally:
        for run in runs:
            run.kill()
    return [(run.returncode, *output) for run, output in zip(runs, outputs, strict=True)]


def printed(*commands, timeout=240.0):
    """The JSON in the last lines of scripts."""
    found = ended(commands, timeout)
    assert not any(status for status, _, _ in found), found
    return [json.loads(out.splitlines()[-1]) for _, out, _ in found]


def group(script, size, path, *arguments):
    """The commands of the processes of a group, which meet at a file under ``path``."""
    return [(HERE / script, rank, size, path / f"meeting of {size}", *arguments) for rank in range(size)]
