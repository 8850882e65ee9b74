#!/usr/bin/env bash
# Runs benchmarks/, with what the `bench` extra measures against added to .venv.
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

if ! [ -e benchmarks/__main__.py ]; then
  echo "bench: there are no benchmarks yet" >&2
  exit 1
fi
.tools/uv pip install -q --python .venv/bin/python --constraints requirements.lock \
  --no-build-isolation --editable '.[bench]'
exec .venv/bin/python -m benchmarks "$@"
