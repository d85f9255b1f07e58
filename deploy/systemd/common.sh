# What install.sh and uninstall.sh share: where things are, and how a step is taken. Everything they touch is named here.
# shellcheck shell=bash disable=SC2034

DESTDIR=${DESTDIR:-}                      # another root than /, for those who try the scripts
ROOT=$DESTDIR/opt/roadwork-miner          # releases side by side, models, and a link current-ENV for each network
ETC=$DESTDIR/etc/roadwork-miner           # ENV.env, ENV.hotkey, ENV.hotkey-password
READERS=roadwork-settings                 # the group that may read the settings: the miners, while they run
UNITS=$DESTDIR/etc/systemd/system
TEMPLATE=roadwork-miner@.service
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$HERE/../.." && pwd)

fail() {
    echo "error: $*" >&2
    exit 2
}

# Print a step; take it unless this is a dry run.
step() {
    echo "+ $*"
    if [ -z "${DRY_RUN:-}" ]; then "$@"; fi
}

prepare() {
    # A user is named roadwork-miner-ENV, in 31 letters at most.
    [[ "${ENV:-}" =~ ^[a-z][a-z0-9]{0,15}$ ]] || fail "ENV=${ENV:-}: a network is needed, such as ENV=testnet or ENV=mainnet"
    if [ -z "${DRY_RUN:-}$DESTDIR" ]; then
        [ "$(id -u)" = 0 ] || fail "root is needed: sudo make …; DRY_RUN=1 shows the steps without"
        [ -d /run/systemd/system ] || fail "systemd does not run on this machine"
    fi
    UNIT=roadwork-miner@$ENV.service
    CURRENT=$ROOT/current-$ENV
}
