"""The examples of the READMEs are code that type checkers accept."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

READMES = (Path("README.md"), Path("producer/README.md"))
CHECKERS = {
    "mypy": ["--strict", "--python-version", "3.11", "--no-error-summary"],
    "pyright": ["--pythonversion", "3.11", "--pythonpath", sys.executable],
}


def examples() -> str:
    """All of them, each in a function of its own; one that awaits is asynchronous."""
    blocks = [block for readme in READMES for block in re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)]
    assert len(blocks) >= 3
    lines = ["from __future__ import annotations", ""]
    for number, block in enumerate(blocks):
        keyword = "async def" if re.search(r"\b(await|async)\b", block) else "def"
        lines += [f"{keyword} example_{number}() -> None:", *(f"    {line}" for line in block.splitlines()), ""]
    return "\n".join(lines)


@pytest.mark.parametrize("checker", CHECKERS)
def test_every_python_example_type_checks(checker: str, tmp_path: Path) -> None:
    file = tmp_path / "examples.py"
    file.write_text(examples())
    (tmp_path / "pyrightconfig.json").write_text(f'{{"typeCheckingMode": "strict", "extraPaths": ["{Path.cwd()}"]}}')
    command = [sys.executable, "-m", checker, *CHECKERS[checker], str(file)]
    if checker == "pyright":
        command += ["-p", str(tmp_path)]
        command.remove(str(file))
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pyright" in run.stderr or "nodeenv" in run.stderr:
        pytest.skip("pyright, which is a program for Node, is not on this machine")
    assert run.returncode == 0, run.stdout + run.stderr
