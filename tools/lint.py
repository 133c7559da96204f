"""Style and types (`run.py lint`): ruff's rules, ruff's format, and mypy, strict."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])


def main() -> int:
    """Run every command and return 1 if one of them found something."""
    results = [subprocess.run([sys.executable, "-m", *command], cwd=ROOT).returncode for command in COMMANDS]
    return int(any(results))


if __name__ == "__main__":
    sys.exit(main())
