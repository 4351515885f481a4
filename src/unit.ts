/**
 * The systemd unit that `topics systemd` prints: no user to make, no directory to prepare, nothing it can touch but
 * its own data.
 *
 * https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html
 */

/** Above the 10 s that a stop may take, and below what an operator has patience for. */
const STOP_SECONDS = 30;
const WATCHDOG_SECONDS = 60;
const RESTART_SECONDS = 1;
const OPEN_FILES_MAX = 65_536;

/** `command`: the program by its absolute path, and what it is called with. */
export const systemdUnit = (command: readonly string[], description: string): string => `[Unit]
Description=${description}
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
ExecStart=${command.map(escaped).join(" ")}
Restart=on-failure
RestartSec=${RESTART_SECONDS}
TimeoutStartSec=infinity
TimeoutStopSec=${STOP_SECONDS}
WatchdogSec=${WATCHDOG_SECONDS}
LimitNOFILE=${OPEN_FILES_MAX}

Environment=TOPICS_HOST=127.0.0.1 TOPICS_PORT=4000
Environment=TOPICS_DATA_DIR=%S/topics
Environment=TOPICS_API_KEYS_FILE=%d/api-keys
LoadCredential=api-keys:/etc/topics/api-keys

DynamicUser=yes
StateDirectory=topics
StateDirectoryMode=0700
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`;

/** A word as `ExecStart` takes it: `%` and `$` mean something there, and so do spaces and quotes. */
const escaped = (word: string): string => {
  const plain = word.replace(/%/g, "%%").replace(/\$/g, "$$$$");
  return /[\s"'\\]/.test(plain) ? JSON.stringify(plain) : plain;
};
