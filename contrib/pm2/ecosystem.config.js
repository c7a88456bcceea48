// pm2 start contrib/pm2/ecosystem.config.js   (PM2_ESID=/path/to/esid where it is not in /opt/esid/bin; no name in ESID_: that
// would be an unknown setting)
// One app: esid supervises its own processes, so pm2 must neither kill the tree nor lose patience with a stop.
module.exports = {
  apps: [
    {
      name: "esid",
      script: process.env.PM2_ESID || "/opt/esid/bin/esid",
      args: "run",
      interpreter: "none",
      exec_mode: "fork",
      instances: 1,
      // SIGINT goes to the supervisor alone; it needs at most 75 s to stop (pm2's default is 1.6 s).
      treekill: false,
      kill_timeout: 90000,
      autorestart: true,
      // What no restart cures: usage, schema, already running, permission, settings.
      stop_exit_codes: [0, 2, 65, 66, 75, 77, 78],
      restart_delay: 5000,
      max_restarts: 5,
      min_uptime: 60000,
    },
  ],
};
