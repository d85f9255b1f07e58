#!/usr/bin/env bash
# Stops the miner of one network and removes its program: make uninstall-service ENV=testnet. Settings, key, state and
# models stay. With the last network goes the rest.
#   PURGE    remove the settings, the keys and the state too, and with the last settings the models
#   DRY_RUN  print every step, take none
set -euo pipefail
# shellcheck source=deploy/systemd/common.sh
. "$(dirname "$0")/common.sh"

STATE=$DESTDIR/var/lib/roadwork-miner

# Point the command to another network's release, or remove it.
give_up_command() {
    if ! is_our_command || [ "$(readlink "$COMMAND")" != "$CURRENT/bin/roadwork-miner" ]; then return; fi
    if [ -n "$1" ]; then
        step ln -sfn "$1/bin/roadwork-miner" "$COMMAND"
    else
        step rm -f "$COMMAND"
    fi
}

# Print what an uninstalled service has left.
kept() {
    local path
    for path in "$ETC/$ENV.env" "$ETC/$ENV.hotkey" "$ETC/$ENV.hotkey-password" "$ETC/$ENV.hotkeys" "$UNITS/$UNIT.d" \
        "$DESTDIR/var/lib/private/roadwork-miner/$ENV" "$ROOT/models"; do
        [ ! -e "$path" ] || echo -n " $path"
    done
}

prepare
if [ -e "$UNITS/$TEMPLATE" ] || [ -n "${DRY_RUN:-}" ]; then
    step systemctl disable --now "$UNIT"
    step systemctl reset-failed "$UNIT" 2>/dev/null || true
fi
others=$(find "$ROOT" -maxdepth 1 -name 'current-*' ! -name "current-$ENV" 2>/dev/null | sort || true)
give_up_command "${others%%$'\n'*}"
step rm -f "$CURRENT" "$PREVIOUS"
if [ -n "${PURGE:-}" ]; then
    step rm -f "$ETC/$ENV.env" "$ETC/$ENV.hotkey" "$ETC/$ENV.hotkey-password"
    step rm -rf "$ETC/$ENV.hotkeys" # of several hotkeys
    step rm -rf "$UNITS/$UNIT.d"    # of `systemctl edit`
    step rm -rf "$DESTDIR/var/lib/private/roadwork-miner/$ENV" "$STATE/$ENV"
fi
if [ -n "$others" ]; then
    echo "# $ROOT and the unit stay, for ${others//$ROOT\/current-/}"
    prune
else
    step systemctl stop 'system-roadwork\x2dminer.slice' # of all instances
    step rm -rf "$UNITS/$TEMPLATE" "$UNITS/$TEMPLATE.d"
    prune
    settings=$(find "$ETC" -maxdepth 1 -name '*.env' ! -name "${PURGE:+$ENV.env}" 2>/dev/null || true)
    if [ -n "${PURGE:-}" ] && [ -z "$settings" ]; then
        step rm -rf "$ROOT"
        ! getent group "$READERS" >/dev/null || step groupdel "$READERS"
        step find "$ETC" "$DESTDIR/var/lib/private/roadwork-miner" "$STATE" -maxdepth 0 -empty -delete 2>/dev/null || true
    fi
    step find "$ROOT/models" "$ROOT" -maxdepth 0 -empty -delete 2>/dev/null || true
fi
step systemctl daemon-reload
if [ -z "${DRY_RUN:-}" ]; then
    left=$(kept)
    how=
    [ -n "${PURGE:-}" ] || how="; make uninstall-service ENV=$ENV PURGE=1 removes that too"
    echo "# $UNIT is gone${left:+; kept:$left$how}"
fi
