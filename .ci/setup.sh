#!/usr/bin/env bash
# Set-up for a bare Debian machine with Python 3.11, root or not; safe to run twice. Used by the Makefile.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
fail() { printf '[setup] %s\n' "$*" >&2; exit 1; }

# What Blender's wheel and a headless browser link against.
LIBRARIES=(libgl1 libegl1 libice6 libsm6 libx11-6 libxext6 libxfixes3 libxi6 libxkbcommon0 libxrender1 libxxf86vm1 libgomp1)

install_packages() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing with apt: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  else
    fail "system packages are missing. Run this, then the same make command again:
    sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
  fi
}

find_python() {
  for candidate in "${PYTHON:-}" python3.11 python3; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "Python 3.11 was not found (Blender's wheel is built for it). On Debian 12: sudo apt-get install python3 python3-venv"
}

# With an NVIDIA driver the build for CUDA (gigabytes), else the CPU's. A torch that is there already stays.
install_torch() {
  if .venv/bin/python -c 'import torch' 2>/dev/null; then return; fi
  local cpu=(--extra-index-url https://download.pytorch.org/whl/cpu)
  if command -v nvidia-smi >/dev/null; then cpu=(); fi
  say "installing torch"
  .venv/bin/pip install -q --disable-pip-version-check --no-deps --retries 1 ${cpu[@]+"${cpu[@]}"} torch==2.13.0
  .venv/bin/pip install -q --disable-pip-version-check torch==2.13.0  # what it needs, which is of no certain build
}

stamp=.venv/.mv4d-lock
wanted=$(cat requirements.lock pyproject.toml | sha256sum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
  python=$(find_python)
  if [ ! -x .venv/bin/pip ]; then
    say "creating .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv 2>/dev/null || { rm -rf .venv; install_packages python3-venv; "$python" -m venv .venv; }
  fi
  say "installing the locked packages (about 2 GB with Blender; minutes on a slow line)"
  .venv/bin/pip install -q --disable-pip-version-check uv 2>&1 | grep -v '^WARNING' || true
  install_torch
  # The lock is whole but for torch, so nothing is left to resolve.
  .venv/bin/uv pip install -q --require-hashes --no-deps -r requirements.lock
  .venv/bin/uv pip install -q --no-deps -e .
  echo "$wanted" >"$stamp"
fi

blender=$(.venv/bin/python -c 'import importlib.util as u; print(u.find_spec("bpy").submodule_search_locations[0])')
if ldd "$blender/__init__.so" 2>/dev/null | grep -q 'not found'; then
  install_packages "${LIBRARIES[@]}"
fi

# What tests want beside, if it can be had: PROGRAM, what is skipped without it, PACKAGES.
for_tests() {
  if PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null; then return; fi
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install_packages "${@:3}"
  else
    say "no $1: $2 will be skipped (sudo apt-get install ${*:3})"
  fi
}

if [ "${1:-}" = --for-tests ]; then
  for_tests chromium "the tests of the contact sheet and the viewer" chromium fonts-dejavu-core
  for_tests slurmctld "the tests of jobs under SLURM" slurm-wlm munge
  # Its lock names Khronos' glTF validator, and what the viewer's program is bundled from.
  if command -v npm >/dev/null; then
    (cd fourd/viewer/page && [ -d node_modules/gltf-validator ] || npm ci --silent --no-audit --no-fund) ||
      say "npm could not install the glTF validator: its tests will be skipped"
  else
    say "no npm: the tests with Khronos' glTF validator will be skipped (sudo apt-get install npm)"
  fi
fi
say "ready"
