# shellcheck shell=bash
# What the scripts share: finding Python, the system packages that are missing, and the virtual environment.
# Sourced, never run. Needs nothing but bash and coreutils.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$ROOT/.venv"
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "scripts/$(basename "$0"): $*"
  exit 1
}

# need_package PACKAGE REASON: installs one system package where that is allowed, else says which command does.
need_package() {
  local package="$1" reason="$2" sudo=()
  if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
    if ! command -v sudo >/dev/null 2>&1 || ! sudo -n true 2>/dev/null; then
      fail "$reason. Please run: sudo apt-get update && sudo apt-get install -y $package"
    fi
  fi
  command -v apt-get >/dev/null 2>&1 || fail "$reason. Please install what Debian calls $package."
  say "$reason: installing $package …"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 </dev/null ||
    fail "apt-get update did not work; $package is missing."
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >&2 </dev/null ||
    fail "apt-get install $package did not work."
}

need_command() {
  command -v "$1" >/dev/null 2>&1 || need_package "$2" "$1 is missing"
}

# find_python: sets PYTHON to the first interpreter that is new enough.
find_python() {
  local candidate seen=""
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      PYTHON="$(command -v "$candidate")"
      return 0
    fi
    seen="${seen:-$("$candidate" --version 2>&1 || true)}"
  done
  [ -z "$seen" ] || fail "needs Python 3.11 or newer, and found only $seen."
  need_package python3 "python3 is missing"
  PYTHON="$(command -v python3)"
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "needs Python 3.11 or newer, and this system's package is $("$PYTHON" --version)."
}

can_make_venvs() { "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; }

# venv_works: the environment is whole, belongs to this path, and no installation into it was interrupted.
venv_works() {
  [ ! -e "$VENV/.installing" ] && [ -x "$VENV/bin/python" ] && "$VENV/bin/python" - "$VENV" <<'PYTHON' 2>/dev/null
import pathlib, sys
import pip._internal.cli.main
same = pathlib.Path(sys.prefix).resolve() == pathlib.Path(sys.argv[1]).resolve()
script = pathlib.Path(sys.prefix, "bin", "pip").read_text()[:1000]
sys.exit(not (same and sys.version_info >= (3, 11) and sys.argv[1] in script))
PYTHON
}

# Whatever decides what has to be installed: the requirements, where the checkout is, and which Python runs it.
venv_key() {
  { cat "$ROOT"/pyproject.toml "$ROOT"/*/pyproject.toml "$ROOT"/*/*/pyproject.toml 2>/dev/null || true
    printf '%s\n' "$ROOT" "$("$VENV/bin/python" --version)"; } | sha256sum | cut -d' ' -f1
}

# use_venv EXTRAS: makes .venv once, and installs into it only when a pyproject.toml has changed. '' means no extras.
use_venv() {
  local extras="$1"
  find_python
  (
    if command -v flock >/dev/null 2>&1; then flock 9; fi # two scripts at once wait for each other
    if ! venv_works; then
      can_make_venvs || need_package "$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" \
        "Python's venv module is missing"
      can_make_venvs || fail "$PYTHON cannot make virtual environments: its ensurepip module is missing."
      say "Making $VENV with $("$PYTHON" --version) …"
      rm -rf "$VENV"
      mkdir "$VENV"
      : >"$VENV/.installing"
      "$PYTHON" -m venv "$VENV" </dev/null
      rm "$VENV/.installing"
    fi
    key="$(venv_key)"
    # A stamp for the extras also stands for the plain installation.
    if [ "$(cat "$VENV/.stamp-${extras:-plain}" 2>/dev/null)" = "$key" ]; then exit 0; fi
    say "Installing sojourn${extras:+ with $extras} into .venv (a minute the first time) …"
    rm -f "$VENV"/.stamp-*
    : >"$VENV/.installing"
    "$VENV/bin/python" -m pip install --quiet -e "$ROOT${extras:+[$extras]}" </dev/null >&2
    printf '%s\n' "$key" | tee "$VENV/.stamp-plain" >"$VENV/.stamp-${extras:-plain}"
    rm "$VENV/.installing"
  ) 9<"$ROOT/pyproject.toml"
}
