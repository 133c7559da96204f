#!/usr/bin/env bash
# Binder starts from Python 3.10 for an environment.yml that asks for 3.12 in another of conda's spellings.
#
# What: repo2docker looks for the version with a pattern that begins with "python" and wants an equals sign next. What
# conda takes as just as exact, "python >=3.12,<3.13", "python 3.12.*" or "conda-forge::python=3.12", counts as no
# version: it starts from its frozen environment of Python 3.10, says so in one line of a log of hundreds, and lets
# conda change the Python beneath its own pinned JupyterLab, Notebook and JupyterHub afterwards.
# Seen with: jupyter-repo2docker 2026.4.0. No container engine is needed to see what it would build.
# Why it matters: the pins that make a Binder of last year start today are for 3.10, and which versions it gets instead
# is decided by the solver on the day. One who tests the file with conda sees nothing of it. (What the solver makes of
# it was not tried: that takes a container engine.)
# What to do: write "python=3.12" in that file, one version with one equals sign, also where a range is meant.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check jupyter-repo2docker==2026.4.0 2>/dev/null
mkdir repository
wrong=0
while IFS='|' read -r asked expected; do
    printf 'channels:\n  - conda-forge\ndependencies:\n  - "%s"\n' "$asked" > repository/environment.yml
    venv/bin/jupyter-repo2docker --no-build --debug --user-id 1000 --user-name jovyan repository > log 2>&1
    built=$(sed -n 's/^.*Building conda environment for python=//p' log)
    printf '%-28s starts from Python %s\n' "$asked" "$built"
    [ "$built" = "$expected" ] || wrong=1
done <<LIST
python=3.12|3.12
python==3.12|3.12
python=3.12.*|3.12
python 3.12.*|3.10
python >=3.12,<3.13|3.10
conda-forge::python=3.12|3.10
LIST
sed -n 's/^.*\(Python version unspecified.*future\.\).*/\1/p' log
exit $wrong
# Output seen:
# python=3.12                  starts from Python 3.12
# python==3.12                 starts from Python 3.12
# python=3.12.*                starts from Python 3.12
# python 3.12.*                starts from Python 3.10
# python >=3.12,<3.13          starts from Python 3.10
# conda-forge::python=3.12     starts from Python 3.10
# Python version unspecified, using current default Python version 3.10. This will change in the future.
