#!/usr/bin/env bash
# Checks the types of the package langzoo, which is this checkout whatever its folder is
# called: mypy takes a package's name from its folder, so it sees it through a link.
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

mkdir -p build/mypy
ln -sfn "$PWD" build/mypy/langzoo
MYPYPATH=build/mypy .venv/bin/python -m mypy -p langzoo "$@"
