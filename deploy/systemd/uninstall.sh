#!/usr/bin/env bash
# Stops the miner of one network and removes it: make uninstall-service ENV=testnet. With the last network goes the rest.
#   KEEP     keep the settings, the keys and the state
#   DRY_RUN  print every step, take none
set -euo pipefail
# shellcheck source=deploy/systemd/common.sh
. "$(dirname "$0")/common.sh"

prepare
if [ -e "$UNITS/$TEMPLATE" ] || [ -n "${DRY_RUN:-}" ]; then
    step systemctl disable --now "$UNIT"
    if [ -z "${KEEP:-}" ]; then
        step systemctl clean --what=state "$UNIT"
        step rm -rf "$UNITS/$UNIT.d" # of `systemctl edit`
    fi
    step systemctl reset-failed "$UNIT" 2>/dev/null || true
fi
step rm -f "$CURRENT"
if [ -z "${KEEP:-}" ]; then
    step rm -f "$ETC/$ENV.env" "$ETC/$ENV.hotkey" "$ETC/$ENV.hotkey-password"
    step rm -rf "$ETC/$ENV.hotkeys" # of several hotkeys
fi
others=$(find "$ROOT" -maxdepth 1 -name 'current-*' ! -name "current-$ENV" 2>/dev/null || true)
if [ -n "$others" ]; then
    echo "# $ROOT and the unit stay, for ${others//$ROOT\/current-/}"
else
    step systemctl stop 'system-roadwork\x2dminer.slice' # of all instances
    step rm -rf "$ROOT" "$UNITS/$TEMPLATE" "$UNITS/$TEMPLATE.d"
    if [ -z "${KEEP:-}" ]; then
        ! getent group "$READERS" >/dev/null || step groupdel "$READERS"
        step find "$ETC" /var/lib/private/roadwork-miner /var/lib/roadwork-miner -maxdepth 0 -empty -delete 2>/dev/null || true
    fi
fi
step systemctl daemon-reload
[ -n "${DRY_RUN:-}" ] || echo "# $UNIT is gone${KEEP:+; kept: $ETC and /var/lib/private/roadwork-miner/$ENV}"
