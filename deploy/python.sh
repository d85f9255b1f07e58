#!/usr/bin/env bash
# Prints the Python that an environment is made from: the one that PYTHON names, else the first of this machine that is
# new enough and can make environments, else one that uv has. Downloads nothing. Another than `python3` is said.
#   --service  only those outside of any home, which the service does not see
set -euo pipefail

OLDEST=3.11
UV_PLACE=/opt/uv-python # where uv is told to put one that a service sees

fail() {
    echo "error: $*" >&2
    exit 2
}

# Print version and real path; nothing of what is no Python.
ask() {
    "$1" -c 'import os, sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}", os.path.realpath(sys.executable))' 2>/dev/null || true
}

# Print what is wrong with an interpreter, if anything is.
fault_of() {
    local version real
    read -r version real <<<"$(ask "$1")"
    if [ -z "$version" ]; then
        echo "is no Python"
    elif [ "$(printf '%s\n' "$OLDEST" "$version" | sort -V | head -n 1)" != "$OLDEST" ]; then
        echo "is Python $version"
    elif [ -n "$SERVICE" ] && [[ $real =~ ^/(home|root|run/user)/ ]]; then
        echo "is below a home ($real), which the service does not see"
    elif ! "$1" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "can make no environment; on Debian and Ubuntu: apt-get install python$version-venv"
    fi
}

# Print candidates, the best first, one a line.
candidates() {
    local name place places=("")
    [ -z "$SERVICE" ] || places=(/usr/bin/ /usr/local/bin/)
    for name in python3 python3.13 python3.12 python3.11; do
        for place in "${places[@]}"; do echo "$place$name"; done
    done
    of_uv
}

of_uv() {
    if [ -n "$SERVICE" ]; then
        find "$UV_PLACE" -maxdepth 3 -path '*/cpython-3.1[123].*/bin/python3' 2>/dev/null | sort -rV || true
    elif command -v uv >/dev/null; then
        UV_PYTHON_PREFERENCE=only-managed UV_PYTHON_DOWNLOADS=never uv python find --system ">=$OLDEST,<3.14" 2>/dev/null || true
    fi
}

SERVICE=${1:-}
if [ -n "${PYTHON:-}" ]; then
    fault=$(fault_of "$PYTHON")
    [ -z "$fault" ] || fail "PYTHON=$PYTHON: it $fault; Python $OLDEST or newer is needed"
    found=$PYTHON
else
    faults=
    mapfile -t list <<<"$(candidates)"
    for candidate in "${list[@]}"; do
        command -v "$candidate" >/dev/null || continue
        fault=$(fault_of "$candidate")
        if [ -z "$fault" ]; then
            found=$candidate
            break
        fi
        faults="${faults:+$faults, }$candidate $fault"
    done
    if [ -z "${found:-}" ]; then
        uv="uv python install 3.13"
        [ -z "$SERVICE" ] || uv="UV_PYTHON_INSTALL_DIR=$UV_PLACE uv python install 3.13"
fail "${faults:-there is no python3}; $OLDEST or newer is needed: \`$uv\` (uv: pip install uv), then the same again; or name another: PYTHON=…"
    fi
    [ -z "$faults" ] || echo "# $faults: $found is taken" >&2
fi
if [ -n "$SERVICE" ]; then
    read -r _ found <<<"$(ask "$found")"
fi
echo "$found"
