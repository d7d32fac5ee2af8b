#!/bin/sh
# Make a virtual environment for $PYTHON (default python3), install pytest in it, run the tests there.
#   sh tests/run.sh [pytest's arguments]
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv/$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! [ -x "$venv/bin/pytest" ]; then
    "$python" -m venv --clear "$venv"
    # the pip that came with Python 3.6 takes packages that are not for it
    "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info >= (3, 7))' && "$venv/bin/pip" install -q 'pip==21.3.1'
    "$venv/bin/pip" install -q pytest
fi
exec "$venv/bin/python" -m pytest "$@"
