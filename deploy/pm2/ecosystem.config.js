// The miner under pm2, after `make setup`: pm2 start deploy/pm2/ecosystem.config.js
// Its settings are miner.env at the repository's root; ENV_FILE=/path/to/miner.env names another.
const path = require("path");

const root = path.resolve(__dirname, "../..");
const settings = process.env.ENV_FILE ? ["--env-file", path.resolve(process.env.ENV_FILE)] : [];

module.exports = {
  apps: [
    {
      name: "roadwork-miner",
      cwd: root,
      script: path.join(root, ".venv/bin/roadwork-miner"),
      args: ["run", ...settings],
      interpreter: "none", // else pm2 gives it to node
      exec_mode: "fork",
      instances: 1, // several hotkeys are one process: WALLET_HOTKEYS
      // As the service's TimeoutStopSec: DRAIN_SECONDS (10), and at the worst 12 s besides. pm2's own is 1.6 s.
      kill_timeout: 60000,
      treekill: false, // the miner ends its own children; SIGINT is as good to it as SIGTERM
      autorestart: true,
      // The settings are wrong, which no restart mends; pm2 calls that "waiting restart", and waits for you. Not 0: that
      // is what it makes of a death by a signal.
      stop_exit_codes: [2],
      exp_backoff_restart_delay: 5000, // up to 15 s; too slow for what pm2 takes for a loop and gives up
      env: { MALLOC_ARENA_MAX: "2", PYTHONFAULTHANDLER: "1" },
      merge_logs: true,
      vizion: false, // no look into git at each start
    },
  ],
};
