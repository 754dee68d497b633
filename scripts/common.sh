# shellcheck shell=bash
# What the scripts share: the distribution's packages and the checkout's virtual environment.
# Source it; it defines functions only.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$@"
    exit 1
}

# Run a command as root: directly, through sudo, or not at all with the reason.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root and sudo is not installed; as root, run: $*"
    fi
}

package_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Install those of the named Debian or Ubuntu packages that are missing.
ensure_packages() {
    local missing=() package
    command -v apt-get >/dev/null ||
        die "set-up knows Debian and Ubuntu only; install the equivalents of: $*"
    for package in "$@"; do
        package_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    { apt_get update && apt_get install "${missing[@]}"; } ||
        die "apt-get could not install: ${missing[*]}"
}

# apt-get without questions; waits for another apt-get. What it says is shown only when it fails.
apt_get() {
    local log status=0
    log=$(mktemp)
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -y -q \
        --no-install-recommends "$@" >"$log" 2>&1 </dev/null || status=$?
    [ "$status" -eq 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

# Name of the package that brings perf.
perf_package() {
    if grep -q '^ID=ubuntu$' /etc/os-release; then echo linux-tools-generic; else echo linux-perf; fi
}

# Print the first Python that is new enough and can make a virtual environment.
find_python() {
    local python
    for python in python3 python3.1{4,3,2,1} /usr/bin/python3; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
        then
            command -v "$python"
            return
        fi
    done
    return 1
}

# What an environment was made from: this folder (its scripts hold absolute paths) and its dependencies.
venv_stamp() {
    { echo "$ROOT"; cat "$ROOT/pyproject.toml"; } | sha256sum
}

# ensure_venv EXTRA...: make .venv with numatrace (editable) and these extras, unless it is up to
# date. Sets PYTHON to its interpreter.
ensure_venv() {
    local base extra missing=() stamp
    stamp=$(venv_stamp)
    PYTHON=$VENV/bin/python
    if ! [ -x "$PYTHON" ] || [ "$(cat "$VENV/.root" 2>/dev/null)" != "$ROOT" ]; then
        find_python >/dev/null || ensure_packages python3-venv
        base=$(find_python) || die "no Python 3.11 or newer with venv; apt-get install python3.11-venv"
        say "making .venv with $base"
        "$base" -m venv --clear "$VENV" || die "$base -m venv $VENV failed"
        echo "$ROOT" >"$VENV/.root"
    fi
    for extra in "$@"; do
        [ "$(cat "$VENV/.extra-$extra" 2>/dev/null)" = "$stamp" ] || missing+=("$extra")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing numatrace with the extras ${missing[*]} into .venv"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check \
        -e "${ROOT}[$(IFS=,; echo "${missing[*]}")]" || die "pip could not install them"
    for extra in "${missing[@]}"; do
        echo "$stamp" >"$VENV/.extra-$extra"
    done
}
