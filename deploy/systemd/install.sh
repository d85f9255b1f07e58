#!/usr/bin/env bash
# Installs or upgrades the miner of one network as a service: make install-service ENV=testnet. Done twice, it changes
# nothing the second time. Variables:
#   ENV              the network: the name of the unit's instance and of its env file
#   ENV_FILE         settings to begin with; default: env/ENV.env. One that is in place already is never overwritten
#   HOTKEY           the hotkey's file; copied to where only root can read it
#   HOTKEY_PASSWORD  a file with its password, if it has one
#   MODELS           folder of prepared models; default: what `make models` left in the home of who calls
#   RELEASE          go (back) to a release that is installed, in place of making one
#   PYTHON           the interpreter; not one below a home, which the service does not see
#   DRY_RUN          print every step, take none
#   DESTDIR          install below this folder in place of /, for those who try it
set -euo pipefail
# shellcheck source=deploy/systemd/common.sh
. "$(dirname "$0")/common.sh"

# What a release is made of decides its name, so that the same source is the same release.
release_name() {
    local version hash
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$REPOSITORY/pyproject.toml")
    hash=$(cd "$REPOSITORY" && find miner detectors deploy/systemd/"$TEMPLATE" deploy/systemd/back-off.conf \
        env/serve.txt pyproject.toml -type f ! -name '*.pyc' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-8)
    echo "$version-$hash"
}

choose_python() {
    local real
    real=$("${PYTHON:-/usr/bin/python3}" -c 'import os, sys; assert sys.version_info >= (3, 11); print(os.path.realpath(sys.executable))') ||
        fail "PYTHON=${PYTHON:-/usr/bin/python3}: Python 3.11 or newer is needed"
    case $real in
    /home/* | /root/* | /run/user/*) fail "PYTHON=$PYTHON is below a home ($real), which the service does not see" ;;
    esac
    "$real" -c 'import venv, ensurepip' || fail "$real can make no environment; on Debian and Ubuntu: apt-get install python3-venv"
    INTERPRETER=$real
}

# An environment can't be moved, so it is made in place; the mark says that it is whole.
make_release() {
    local folder=$ROOT/$RELEASE source
    if [ -e "$folder/.whole" ]; then
        echo "# $folder is there already"
        return
    fi
    choose_python
    source=$ROOT/source
    step install -d -m 755 "$ROOT"
    step rm -rf "$folder" "$source"
    step "$INTERPRETER" -m venv "$folder"
    step "$folder/bin/pip" --disable-pip-version-check -q install --require-hashes -r "$REPOSITORY/env/serve.txt"
    # A copy, so that building as root leaves nothing in the checkout.
    step install -d "$source"
    step cp -r "$REPOSITORY"/{pyproject.toml,README.md,LICENSE,miner,detectors} "$source"
    step "$folder/bin/pip" --disable-pip-version-check -q install --no-deps "$source"
    step rm -rf "$source"
    # The unit that goes with it: what is installed when a link points here, on the way back too.
    step install -D -m 644 -t "$folder/systemd" "$HERE/$TEMPLATE" "$HERE/back-off.conf"
    step chmod -R go+rX,go-w "$folder"
    step touch "$folder/.whole"
}

# What is missing is said before anything is done.
check_settings() {
    local settings=$ETC/$ENV.env
    GIVEN=${ENV_FILE:-$REPOSITORY/env/$ENV.env}
    if [ ! -e "$settings" ]; then
        [ -f "$GIVEN" ] || fail "ENV_FILE=$GIVEN: there is no such file"
        settings=$GIVEN
    fi
    for file in "${HOTKEY:-}" "${HOTKEY_PASSWORD:-}"; do
        [ -z "$file" ] || [ -f "$file" ] || fail "HOTKEY or HOTKEY_PASSWORD: there is no $file"
    done
    if [ -z "${HOTKEY:-}${DRY_RUN:-}" ] && [ ! -e "$ETC/$ENV.hotkey" ] &&
        ! grep -q '^SUBTENSOR_NETWORK=standalone' "$settings"; then
        fail "HOTKEY is empty: give the hotkey's file, such as HOTKEY=~/.bittensor/wallets/NAME/hotkeys/HOTKEY"
    fi
}

# A coldkey beside the hotkey that was given, in this wallet or another, is on the wrong machine.
warn_of_coldkeys() {
    local wallets coldkey
    [ -n "${HOTKEY:-}" ] || return 0
    wallets=$(realpath -m "$HOTKEY/../../..")
    for coldkey in "$wallets"/*/coldkey; do
        [ ! -e "$coldkey" ] || echo "warning: THE COLDKEY IS ON THIS MACHINE: $coldkey. It owns your funds and the miner never needs it; move it to a machine that serves nothing" >&2
    done
}

# An endpoint in the settings may hold a password, so that others may not read them, and neither could the miner, whose
# user is another at each start: it is in a group that can. (A credential is a copy made at the start: no reload.)
copy_settings() {
    getent group "$READERS" >/dev/null || step groupadd --system "$READERS"
    step install -d -m 755 "$ETC"
    if [ ! -e "$ETC/$ENV.env" ]; then
        step install -m 600 "$GIVEN" "$ETC/$ENV.env"
    elif [ -f "$GIVEN" ] && ! cmp -s "$GIVEN" "$ETC/$ENV.env"; then
        echo "# $ETC/$ENV.env stays as it is; $GIVEN differs"
    fi
    step chown "root:$READERS" "$ETC/$ENV.env"
    step chmod 640 "$ETC/$ENV.env"
    [ -z "${HOTKEY:-}" ] || put "$HOTKEY" 600 "$ETC/$ENV.hotkey"
    [ -z "${HOTKEY_PASSWORD:-}" ] || put "$HOTKEY_PASSWORD" 600 "$ETC/$ENV.hotkey-password"
}

# Install a file that the running service has read already; another one than before takes a restart.
put() {
    if ! cmp -s "$1" "$3"; then
        CHANGED="${CHANGED:+$CHANGED, }$(basename "$3")"
    fi
    step install -m "$2" "$1" "$3"
}

copy_models() {
    local home models
    home=$(getent passwd "${SUDO_USER:-$(id -un)}" | cut -d: -f6)
    models=${MODELS:-$home/.cache/roadwork-miner/models}
    step install -d -m 755 "$ROOT/models"
    if [ -d "$models" ]; then
        step cp -rn "$models/." "$ROOT/models"
        step chmod -R go+rX,go-w "$ROOT/models"
    fi
}

# The unit is one for all networks: that of the release that a link was last pointed to.
install_unit() {
    local from=$ROOT/$1/systemd
    if [ -z "${DRY_RUN:-}" ] && [ ! -d "$from" ]; then
        echo "# $1 was made before releases held their unit: the one that is installed stays"
        return
    fi
    step install -d -m 755 "$UNITS"
    put "$from/$TEMPLATE" 644 "$UNITS/$TEMPLATE"
    if [ "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 254 ]; then
        step install -d -m 755 "$UNITS/$TEMPLATE.d"
        put "$from/back-off.conf" 644 "$UNITS/$TEMPLATE.d/back-off.conf"
    fi
    step systemctl daemon-reload
}

# The one switch that an upgrade and a roll back are; a link is replaced in one step.
point_to() {
    install_unit "$1"
    step ln -sfn "$1" "$CURRENT.new"
    step mv -T "$CURRENT.new" "$CURRENT"
}

start() {
    step systemctl reset-failed "$UNIT" 2>/dev/null || true
    step systemctl enable "$UNIT"
    step systemctl restart "$UNIT" # returns when the miner has said READY=1, or failed
}

prepare
check_settings
warn_of_coldkeys
before=$(readlink "$CURRENT" || true)
if [ -n "${RELEASE:-}" ]; then
    [ -e "$ROOT/$RELEASE/.whole" ] || fail "RELEASE=$RELEASE is not installed; there is: $(cd "$ROOT" 2>/dev/null && echo *-*/)"
else
    RELEASE=$(release_name)
    make_release
fi
CHANGED=
copy_settings
copy_models
point_to "$RELEASE"
if [ "$before" = "$RELEASE" ] && [ -z "$CHANGED" ] && systemctl is-active -q "$UNIT"; then
    echo "# $UNIT runs $RELEASE already; after a change of settings: systemctl restart $UNIT"
    exit 0
fi
[ -z "$CHANGED" ] || [ "$before" != "$RELEASE" ] || echo "# changed: $CHANGED; $UNIT is restarted for that"
if ! start; then
    journalctl -u "$UNIT" -n 20 --no-pager -o cat >&2 || true
    if [ -n "$before" ] && [ "$before" != "$RELEASE" ]; then
        echo "error: $RELEASE does not get ready, for the reason above; going back to $before" >&2
        point_to "$before"
        start
    else
        echo "error: $UNIT does not get ready, for the reason above; mend it, then: systemctl restart $UNIT" >&2
    fi
    exit 1
fi
[ -n "${DRY_RUN:-}" ] || echo "# $UNIT is ready with $RELEASE${before:+; before: $before}"
