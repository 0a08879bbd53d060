#!/usr/bin/env bash
# Make the virtual environment: setup.sh PYTHON FOLDER. Run by the Makefile; safe to run again.
set -euo pipefail
python=$1
venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "noiselaw needs Python 3.11 or newer; $python is $("$python" --version). Try: make PYTHON=python3.12 ..." >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt"

# torch first, so that nothing else pulls in another build of it: the CPU build where there is no NVIDIA GPU.
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    torch=$(grep '^torch==' constraints.txt)
    echo "installing $torch ..."
    if command -v nvidia-smi >/dev/null; then
        $pip "$torch"
    else
        $pip "$torch+cpu" 2>/dev/null || $pip --index-url https://download.pytorch.org/whl/cpu "$torch" || $pip "$torch"
    fi
fi
echo "installing noiselaw and its packages ..."
$pip --editable '.[dev,docs]'

# The report's tests look at the page in a real browser.
if ! command -v "${NOISELAW_CHROMIUM:-chromium}" >/dev/null; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "installing chromium for the report's browser tests ..."
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
    else
        echo "note: no chromium found; the report's browser tests will be skipped (set NOISELAW_CHROMIUM to its path)"
    fi
fi
