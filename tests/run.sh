#!/bin/sh
# Run the tests with the pytest of $PYTHON (default python3); if it has none, install one in a virtual environment here.
#   sh tests/run.sh [pytest's arguments]
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
# under CI the result is not to depend on what else is installed
if [ -z "${CI:-}" ] && "$python" -c 'import pytest' 2> /dev/null; then
    exec "$python" -m pytest "$@"
fi
venv=.venv/$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! [ -x "$venv/bin/pytest" ]; then
    "$python" -m venv --clear "$venv"
    # the pip that came with Python 3.6 takes packages that are not for it
    "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info >= (3, 7))' && "$venv/bin/pip" install -q 'pip==21.3.1'
    "$venv/bin/pip" install -q --upgrade pytest setuptools wheel      # the latter two: the packages are built as well
fi
exec "$venv/bin/python" -m pytest "$@"
