#!/usr/bin/env bash
# Makes .venv from requirements/<run|dev>.txt. Called by the Makefile; run it again at will.
set -euo pipefail
kind=$1
cd "$(dirname "$0")/.."

python=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
  if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2> /dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  received=$("${PYTHON:-python3}" --version 2> /dev/null || true)
  echo "error: Python 3.11, 3.12 or 3.13 is needed; ${PYTHON:-python3} is ${received:-not there}. Try: make PYTHON=/path/to/python3.12 run" >&2
  exit 1
fi

mkdir -p .venv
exec 9> .venv/setup.lock
flock 9   # two makes at once: the second waits, then finds the work done
stamp=.venv/$kind.stamp
if [ "$stamp" -nt "requirements/$kind.txt" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt requirements/setup.sh ]; then exit 0; fi

if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
  # Debian keeps ensurepip, which venv needs, in a package of its own.
  if ! "$python" -c 'import ensurepip' 2> /dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    [ "$(id -u)" -eq 0 ] && sudo="" || sudo="sudo -n"
    echo "Installing $package, which Debian's Python needs to make a virtual environment …"
    if ! { $sudo apt-get update -qq && $sudo apt-get install -qq -y "$package"; } > /dev/null; then
      echo "error: this Python cannot make virtual environments. Run: sudo apt-get install $package" >&2
      exit 1
    fi
  fi
  "$python" -m venv .venv
fi

echo "Installing the locked requirements ($kind) into .venv: some minutes, once …"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "requirements/$kind.txt"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
touch "$stamp" .venv/run.stamp   # dev holds all of run
