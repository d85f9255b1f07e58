#!/usr/bin/env bash
# Installs or upgrades the miner of one network as a service: make install-service ENV=testnet. Done twice, it changes
# nothing the second time. Variables:
#   ENV              the network: the name of the unit's instance and of its env file
#   ENV_FILE         settings to begin with; default: env/ENV.env. One that is in place already is never overwritten
#   HOTKEY           the hotkey's file; copied to where only root can read it
#   HOTKEY_PASSWORD  a file with its password, if it has one
#   MODELS           folder of prepared models; default: what `make models` left in the home of who calls
#   UPGRADE          the service has to be there already: make upgrade-service
#   ROLLBACK         go back to the release before, and change nothing else; once more: forward again
#   RELEASE          go to another release that is installed, in place of making one
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

installed() {
    find "$ROOT" -mindepth 2 -maxdepth 2 -name .whole -printf '%h\n' 2>/dev/null | xargs -r -n 1 basename | sort | paste -sd ' '
}

is_new() {
    [ ! -e "$ROOT/$RELEASE/.whole" ]
}

# An environment can't be moved, so it is made in place; the mark says that it is whole.
make_release() {
    local folder=$ROOT/$RELEASE source
    if ! is_new; then
        echo "# $folder is there already"
        return
    fi
    source=$ROOT/source
    HALF=("$folder" "$source")
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
    HALF=()
}

# An installation that ends half way (a full disk, ^C) gives back what it took: the miner that runs needs the room.
give_back() {
    if [ -n "${DRY_RUN:-}" ] || [ "${#HALF[@]}" = 0 ]; then return; fi
    rm -rf "${HALF[@]}"
    echo "error: ${HALF[0]} was not made whole, for the reason above, and is removed; what was installed is as it was" >&2
}

# What is missing is said before anything is done: here, and by preflight.py.
check_given() {
    SETTINGS=$ETC/$ENV.env
    GIVEN=${ENV_FILE:-$REPOSITORY/env/$ENV.env}
    if [ ! -e "$SETTINGS" ]; then
        [ -f "$GIVEN" ] || fail "ENV_FILE=$GIVEN: there is no such file"
        SETTINGS=$GIVEN
    fi
    if [ -z "${HOTKEY:-}${DRY_RUN:-}" ] && [ ! -e "$ETC/$ENV.hotkey" ] &&
        ! grep -q '^SUBTENSOR_NETWORK=standalone' "$SETTINGS"; then
        fail "HOTKEY is empty: give the hotkey's file, such as HOTKEY=~/.bittensor/wallets/NAME/hotkeys/HOTKEY"
    fi
}

systemd_version() {
    local version
    version=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    echo "${version:-0}"
}

check_machine() {
    local code=0 more=()
    INTERPRETER=$("$HERE/../python.sh" --service)
    [ -z "${HOTKEY:-}" ] || more+=(--hotkey "$HOTKEY")
    [ -z "${HOTKEY_PASSWORD:-}" ] || more+=(--hotkey-password "$HOTKEY_PASSWORD")
    [ -z "${MODELS:-}" ] || more+=(--models-given)
    ! is_new || more+=(--new-release)
    ! systemctl is-active -q "$UNIT" 2>/dev/null || more+=(--active)
    "$INTERPRETER" -I "$HERE/preflight.py" --env "$ENV" --settings "$SETTINGS" --root "$ROOT" --etc "$ETC" --units "$UNITS" \
        --readers "$READERS" --shipped "$REPOSITORY/detectors/configs" --models "$(models_given)" \
        --systemd "$(systemd_version)" "${more[@]}" || code=$?
    if [ "$code" = 0 ]; then return; fi
    # A dry run may be on another machine than the one that is meant.
    if [ "$code" != 3 ] || [ -z "${DRY_RUN:-}" ]; then exit "$code"; fi
    echo "# on this machine it would end here, with exit code $code" >&2
}

# The release itself judges the settings, before anything points to it.
check_settings() {
    local program=$ROOT/$RELEASE/bin/roadwork-miner
    echo "+ $program models list --env-file $SETTINGS"
    if [ -n "${DRY_RUN:-}" ] || [ ! -x "$program" ]; then return; fi
    env -i PATH=/usr/bin:/bin HOME=/nonexistent "$program" models list --env-file "$SETTINGS" >/dev/null ||
        fail "$SETTINGS: see above; $RELEASE lies ready in $ROOT, and nothing else was changed"
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
        place "$GIVEN" 600 "$ETC/$ENV.env"
    elif [ -f "$GIVEN" ] && ! cmp -s "$GIVEN" "$ETC/$ENV.env"; then
        echo "# $ETC/$ENV.env stays as it is; $GIVEN differs"
    fi
    step chown "root:$READERS" "$ETC/$ENV.env"
    step chmod 640 "$ETC/$ENV.env"
    [ -z "${HOTKEY:-}" ] || put "$HOTKEY" 600 "$ETC/$ENV.hotkey"
    [ -z "${HOTKEY_PASSWORD:-}" ] || put "$HOTKEY_PASSWORD" 600 "$ETC/$ENV.hotkey-password"
    local secret
    for secret in "$ETC/$ENV.hotkey" "$ETC/$ENV.hotkey-password" "$ETC/$ENV.hotkeys"; do # put there by hand, perhaps
        [ ! -e "$secret" ] || step chmod -R go= "$secret"
    done
}

# Install a file in one step: on a full disk the one that is there stays whole.
place() {
    echo "+ install -D -m $2 $1 $3"
    if [ -n "${DRY_RUN:-}" ]; then return; fi
    HALF=("$3.new")
    install -D -m "$2" "$1" "$3.new"
    mv -T "$3.new" "$3"
    HALF=()
}

# Install a file that the running service has read already; another one than before takes a restart.
put() {
    if ! cmp -s "$1" "$3"; then
        CHANGED="${CHANGED:+$CHANGED, }$(basename "$3")"
    fi
    place "$1" "$2" "$3"
}

models_given() {
    local home
    home=$(getent passwd "${SUDO_USER:-$(id -un)}" | cut -d: -f6)
    echo "${MODELS:-$home/.cache/roadwork-miner/models}"
}

# All of them are copied before the first takes its place: a new manifest beside an old graph would be refused at the
# next start.
copy_models() {
    local models file target
    local -a fresh=()
    models=$(models_given)
    step install -d -m 755 "$ROOT/models"
    if [ ! -d "$models" ]; then return; fi
    while IFS= read -r -d '' file; do
        target=$ROOT/models/$file
        # What is newer here was fetched or calibrated by --service. A manifest that calibrate has changed is newer there.
        if [ -e "$target" ] && { [ ! "$models/$file" -nt "$target" ] || cmp -s "$models/$file" "$target"; }; then continue; fi
        fresh+=("$target")
        HALF+=("$target.new")
        step install -D -m 644 "$models/$file" "$target.new"
    done < <(find -L "$models" -type f -printf '%P\0' | LC_ALL=C sort -z)
    for target in "${fresh[@]}"; do
        step mv -T "$target.new" "$target"
        CHANGED=${CHANGED:-models}
    done
    HALF=()
    step chmod -R go+rX,go-w "$ROOT/models"
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
    if [ "$(systemd_version)" -ge 254 ]; then
        step install -d -m 755 "$UNITS/$TEMPLATE.d"
        put "$from/back-off.conf" 644 "$UNITS/$TEMPLATE.d/back-off.conf"
    fi
    step systemctl daemon-reload
}

# The one switch that an upgrade and a roll back are.
point_to() {
    install_unit "$1"
    link "$1" "$CURRENT"
}

# `roadwork-miner` for everybody's path; with several networks the one that was there first.
link_command() {
    if is_our_command && [ -e "$COMMAND" ]; then return; fi
    if is_our_command || { [ ! -e "$COMMAND" ] && [ ! -L "$COMMAND" ]; }; then
        step install -d -m 755 "$(dirname "$COMMAND")"
        step ln -sfn "$CURRENT/bin/roadwork-miner" "$COMMAND"
    else
        echo "# $COMMAND is not this installer's and stays; the command is $CURRENT/bin/roadwork-miner"
    fi
}

start() {
    step systemctl reset-failed "$UNIT" 2>/dev/null || true
    step systemctl enable "$UNIT"
    step systemctl restart "$UNIT" # returns when the miner has said READY=1, or failed
}

prepare
for tool in getent groupadd install journalctl sha256sum; do
    command -v "$tool" >/dev/null || [ -n "${DRY_RUN:-}" ] || lack "$tool is missing on this machine"
done
before=$(release_of "$CURRENT")
if [ -n "${UPGRADE:-}${ROLLBACK:-}" ] && [ -z "$before" ] && [ -z "${DRY_RUN:-}" ]; then
    fail "ENV=$ENV: $UNIT is not installed: make install-service ENV=$ENV"
fi
CHANGED=
HALF=()
trap give_back EXIT
if [ -n "${ROLLBACK:-}" ]; then
    [ -z "${RELEASE:-}${HOTKEY:-}${HOTKEY_PASSWORD:-}${ENV_FILE:-}" ] ||
        fail "ROLLBACK=$ROLLBACK changes the release only: leave RELEASE, HOTKEY, HOTKEY_PASSWORD and ENV_FILE out"
    RELEASE=$(release_of "$PREVIOUS")
    [ -e "$ROOT/$RELEASE/.whole" ] || fail "ROLLBACK=$ROLLBACK: there is no release before ${before:-any} to go back to"
else
    check_given
    if [ -n "${RELEASE:-}" ]; then
        [ -e "$ROOT/$RELEASE/.whole" ] || fail "RELEASE=$RELEASE is not installed; there is: $(installed)"
    else
        RELEASE=$(release_name)
    fi
    check_machine
    warn_of_coldkeys
    make_release
    check_settings
    copy_settings
    copy_models
fi
# A lost connection does not end it from here on: who else would go back?
trap '' HUP PIPE
# Before the restart, so that an installer that is killed while it waits leaves a release to go back to.
older=$(release_of "$PREVIOUS")
point_to "$RELEASE"
if [ -n "$before" ] && [ "$before" != "$RELEASE" ]; then link "$before" "$PREVIOUS"; fi
link_command
if [ "$before" = "$RELEASE" ] && [ -z "$CHANGED" ] && systemctl is-active -q "$UNIT"; then
    echo "# $UNIT runs $RELEASE already; after a change of settings: systemctl restart $UNIT"
    exit 0
fi
[ -z "$CHANGED" ] || [ "$before" != "$RELEASE" ] || echo "# changed: $CHANGED; $UNIT is restarted for that"
if ! start; then
    journalctl -u "$UNIT" -n 20 --no-pager -o cat >&2 || true
    if [ -z "$before" ] || [ "$before" = "$RELEASE" ]; then
        echo "error: $UNIT does not get ready, for the reason above; mend it, then: systemctl restart $UNIT" >&2
        exit 1
    fi
    # By itself: every minute until somebody looks would cost rewards, and the release before was ready on this machine.
    echo "error: $RELEASE does not get ready, for the reason above; going back to $before" >&2 || true
    point_to "$before"
    if [ -n "$older" ]; then link "$older" "$PREVIOUS"; else step rm -f "$PREVIOUS"; fi
    start || echo "error: $before does not get ready any more either: journalctl -u $UNIT says why" >&2
    exit 1
fi
prune
# Started is not yet asked by validators: its own words may be "not ready (…)", such as no chain or no uid.
[ -n "${DRY_RUN:-}" ] ||
    echo "# $UNIT started with $RELEASE; $(systemctl show -P StatusText "$UNIT" 2>/dev/null || true)"
if [ -n "$before" ] && [ "$before" != "$RELEASE" ]; then
    echo "# before: $before; to go back: make upgrade-service ENV=$ENV ROLLBACK=1"
fi
