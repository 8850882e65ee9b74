#!/usr/bin/env bash
# Runs benchmarks/ with what the `bench` extra measures against. That is put into
# .tools/bench and not into .venv, whose locked versions stay as they are.
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

BENCH=$PWD/.tools/bench

if ! [ -e benchmarks/__main__.py ]; then
  echo "bench: there are no benchmarks yet" >&2
  exit 1
fi

# PyPI's PyTorch for Linux brings gigabytes of CUDA. A build for CPUs alone is in
# PyTorch's own index, or in a folder of wheels that uv or pip is told of.
wheels=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
source=(--torch-backend cpu)
if compgen -G "$wheels/torch-*+cpu-*.whl" >/dev/null; then
  source=(--find-links "$wheels")
fi

# What the lock does not have, in versions that go with those it has.
locked=$(grep -o '^[^ ]*==[^ ]*' requirements.lock)
needed=$(.tools/uv pip compile -q --python .venv/bin/python --extra bench "${source[@]}" \
  --constraints requirements.lock --no-header --no-annotate setup.cfg |
  grep '==' | grep -vxF "$locked")
if [ "$needed" != "$(cat "$BENCH/.packages" 2>/dev/null)" ]; then
  rm -rf "$BENCH"
  # shellcheck disable=SC2086  # one word a package
  .tools/uv pip install -q --python .venv/bin/python --no-deps "${source[@]}" \
    --target "$BENCH" $needed
  printf '%s\n' "$needed" >"$BENCH/.packages"
fi
PYTHONPATH=$BENCH${PYTHONPATH:+:$PYTHONPATH} exec .venv/bin/python -m benchmarks "$@"
