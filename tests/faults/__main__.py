"""Put each fault back in a copy of the repository and see its tests fail: `python -m tests.faults [words ...]`.

Exits with 1 when a fault passes unnoticed, or when the text to change is no longer there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.catalogue import FAULTS, Fault

ROOT = Path(__file__).parent.parent.parent


def main(words: list[str]) -> int:
    """Only faults whose name holds every word, if there are any."""
    chosen = [fault for fault in FAULTS if all(word in fault.name for word in words)]
    missed = 0
    for fault in chosen:
        verdict = try_fault(fault)
        missed += not verdict.startswith("caught")
        print(f"{verdict:10} {fault.name}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return int(missed > 0)


def try_fault(fault: Fault) -> str:
    """`caught (n)` by n tests, or why not."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "wm_home", "__pycache__"))
        file = copy / fault.file
        text = file.read_text(encoding="utf-8")
        for old, new in fault.change:
            if text.count(old) != 1:
                return f"STALE: '{old.strip()}' is {text.count(old)} times in {fault.file}"
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", *fault.tests]
        done = subprocess.run(
            command, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True
        )
    if done.returncode == 1:
        name = next(
            (line.split("::", 1)[1].split(" ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")), ""
        )
        return f"caught by {name}"
    return "MISSED" if done.returncode == 0 else f"BROKEN: {done.stdout.strip().splitlines()[-1:]}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
