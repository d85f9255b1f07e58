# What install.sh and uninstall.sh share: where things are, and how a step is taken. Everything they touch is named here.
# shellcheck shell=bash disable=SC2034

DESTDIR=${DESTDIR:-}                      # another root than /, for those who try the scripts
ROOT=$DESTDIR/opt/roadwork-miner          # releases side by side, models, and a link current-ENV for each network
ETC=$DESTDIR/etc/roadwork-miner           # ENV.env, ENV.hotkey, ENV.hotkey-password
READERS=roadwork-settings                 # the group that may read the settings: the miners, while they run
UNITS=$DESTDIR/etc/systemd/system
COMMAND=$DESTDIR/usr/local/bin/roadwork-miner # a link to the command of a network's release
TEMPLATE=roadwork-miner@.service
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$HERE/../.." && pwd)

fail() {
    echo "error: $*" >&2
    exit 2
}

# What the machine lacks: as the miner's own exit codes are, another than for what the operator gave.
lack() {
    echo "error: $*" >&2
    exit 3
}

# Print a step; take it unless this is a dry run.
step() {
    echo "+ $*" || true # nobody may be there any more
    if [ -z "${DRY_RUN:-}" ]; then "$@"; fi
}

prepare() {
    # A user is named roadwork-miner-ENV, in 31 letters at most.
    [[ "${ENV:-}" =~ ^[a-z][a-z0-9]{0,15}$ ]] ||
        fail "ENV=${ENV:-}: a network is needed, such as ENV=testnet or ENV=mainnet$([ ! -f "${ENV:-}" ] || echo "; the settings file is ENV_FILE=$ENV")"
    if [ -z "${DRY_RUN:-}$DESTDIR" ]; then
        [ "$(id -u)" = 0 ] || fail "root is needed: sudo make …; DRY_RUN=1 shows the steps without"
        [ -d /run/systemd/system ] || lack "systemd does not run on this machine (WSL: systemd=true under [boot] in /etc/wsl.conf)"
    fi
    UNIT=roadwork-miner@$ENV.service
    CURRENT=$ROOT/current-$ENV
    PREVIOUS=$ROOT/previous-$ENV # the release to go back to
}

# Print the release that a link points to, if it is there.
release_of() {
    readlink "$1" || true
}

# Point a link to another release, in one step.
link() {
    step ln -sfn "$1" "$2.new"
    step mv -T "$2.new" "$2"
}

# Remove the releases that no network runs or goes back to, and halves of one.
prune() {
    local folder used
    used=$(find "$ROOT" -maxdepth 1 \( -name 'current-*' -o -name 'previous-*' \) -type l -printf '%l\n' 2>/dev/null || true)
    for folder in "$ROOT"/*/; do
        folder=${folder%/}
        if [ ! -L "$folder" ] && { [ -e "$folder/.whole" ] || [ -e "$folder/pyvenv.cfg" ]; }; then
            grep -qxF "$(basename "$folder")" <<<"$used" || step rm -rf "$folder"
        fi
    done
}

# Whether the command's link was made here; anything else of that name is the operator's.
is_our_command() {
    [ -L "$COMMAND" ] && [[ "$(readlink "$COMMAND")" == "$ROOT"/current-*/bin/roadwork-miner ]]
}
