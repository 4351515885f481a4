/** Settings: command-line flags, then environment variables, then defaults. */
import { isIPv6 } from "node:net";
import {
  BODY_BYTES_DEFAULT,
  HEARTBEAT_MS_MIN,
  ROUTERS_MAX_DEFAULT,
  SSE_CONNECTIONS_MAX_DEFAULT,
  SSE_CONNECTIONS_PER_KEY_MAX_DEFAULT,
  STREAM_BYTES_MAX_DEFAULT,
  SYNC_INTERVAL_MS_DEFAULT,
  SYNC_INTERVAL_MS_MIN,
  TOPICS_MAX_DEFAULT,
  WATCH_SESSIONS_MAX_DEFAULT,
} from "./contract/limits.ts";

/** A timer that is set for longer ends at once. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** With a scheme, or a host alone for every scheme. */
const ORIGIN = /^(?:[a-z][a-z0-9+.-]*:\/\/)?[^/?#\s]+$/;

const ON = /^(?:1|true)$/;
const OFF = /^(?:0|false)$/;

type Value = string | number | boolean;

/** One thing that can be set. `flag` is the command line's spelling, with its argument. */
export interface Setting<T extends Value = Value> {
  readonly flag?: string;
  readonly variable?: string;
  readonly otherwise: T;
  /** What it may be, where that is not plain. */
  readonly range?: string;
  readonly max?: number;
  readonly what: string;
  /** Never shown. */
  readonly secret?: boolean;
  /** The value that a variable's text stands for; undefined if it stands for none, and the default holds. */
  readonly parse: (text: string) => T | undefined;
}

type Options<T extends Value> = Omit<Setting<T>, "parse">;

const text = (options: Options<string>): Setting<string> => ({
  ...options,
  parse: (text) => text.trim() || undefined,
});

const unsigned = <O extends Options<number>>(options: O) => ({
  range: "0 …",
  ...options,
  parse: (text: string): number | undefined => {
    const number = Number(text);
    return /^\s*\d+\s*$/.test(text) && Number.isSafeInteger(number) ? number : undefined;
  },
});

/** Less than the least counts as that. */
function interval(text: string): number | undefined {
  const number = Number(text);
  if (!/^\s*\d+\s*$/.test(text) || number > TIMER_MS_MAX) return undefined;
  return Math.max(number, SYNC_INTERVAL_MS_MIN);
}

/** What is out of its range counts as the end of it. */
function heartbeat(text: string): number | undefined {
  return /^\s*\d+\s*$/.test(text) ? Math.min(Math.max(Number(text), 1), HEARTBEAT_MS_MIN) : undefined;
}

const boolean = (options: Options<boolean>): Setting<boolean> => ({
  range: "`1` or `true`",
  ...options,
  parse: (text) => (ON.test(text) ? true : OFF.test(text) ? false : undefined),
});

const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "off"];

/** `level`, or a list of `level` and `target=level`: what is said of the target `topics`, else of all. */
function logLevel(text: string): string | undefined {
  const parts = text.toLowerCase().split(",");
  const levels = (prefix: string) =>
    parts
      .map((part) => part.trim())
      .flatMap((part) => (part.startsWith(prefix) ? part.slice(prefix.length) : []));
  const isLevel = (level: string) => LOG_LEVELS.includes(level);
  return levels("topics=").findLast(isLevel) ?? levels("").findLast(isLevel);
}

/** Every setting there is, in the order in which people are told of them. */
export const settings = {
  host: text({
    flag: "--host <host>",
    variable: "TOPICS_HOST",
    otherwise: "127.0.0.1",
    what: "address to listen on; in the variable also `host:port`",
  }),
  port: unsigned({
    flag: "--port <port>",
    variable: "TOPICS_PORT",
    otherwise: 4000,
    range: "0 … 65535",
    max: 65535,
    what: "port to listen on; `0` takes any free one",
  }),
  dataDir: text({
    flag: "--data-dir <path>",
    variable: "TOPICS_DATA_DIR",
    otherwise: "./topics-data",
    what: "where the data is kept; one server per directory",
  }),
  acceptLoss: boolean({
    flag: "--accept-loss",
    otherwise: false,
    range: "",
    what: "open damaged data with what is left of it",
  }),
  portFile: text({
    variable: "TOPICS_PORT_FILE",
    otherwise: "",
    what: "the real `host:port` is written here once the server listens",
  }),
  apiKeys: text({
    variable: "TOPICS_API_KEYS",
    otherwise: "",
    secret: true,
    what: "who may do what; without keys everybody may do everything",
  }),
  apiKeysFile: text({
    variable: "TOPICS_API_KEYS_FILE",
    otherwise: "",
    what: "a file with more keys, read again on SIGHUP",
  }),
  allowInsecureNoAuth: boolean({
    variable: "TOPICS_ALLOW_INSECURE_NO_AUTH",
    otherwise: false,
    what: "listen on a public address without keys",
  }),
  probeAuth: boolean({
    variable: "TOPICS_PROBE_AUTH",
    otherwise: false,
    what: "health and readiness need a key, too",
  }),
  tlsCertFile: text({
    variable: "TOPICS_TLS_CERT_FILE",
    otherwise: "",
    what: "certificate chain in PEM; with the key, the server speaks TLS only",
  }),
  tlsKeyFile: text({ variable: "TOPICS_TLS_KEY_FILE", otherwise: "", what: "its private key in PEM" }),
  corsOrigins: text({
    variable: "TOPICS_CORS_ORIGINS",
    otherwise: "",
    range: "origins with commas, or `*`",
    what: "web pages that may use the server",
  }),
  bodyBytesMax: unsigned({
    variable: "TOPICS_MAX_BODY_BYTES",
    otherwise: BODY_BYTES_DEFAULT,
    what: "bytes of a request body, inflated; more get `413`",
  }),
  bodyMemoryMax: unsigned({
    variable: "TOPICS_MAX_BODY_MEMORY_BYTES",
    otherwise: 4 * BODY_BYTES_DEFAULT,
    what: "bytes of memory for all bodies at a time; more get `429`; `0` is no limit",
  }),
  requestsPerKeyMax: unsigned({
    variable: "TOPICS_MAX_INFLIGHT_PER_KEY",
    otherwise: 1000,
    what: "requests of one key at a time; more get `429`; `0` is no limit",
  }),
  topicsMax: unsigned({
    variable: "TOPICS_MAX_TOPICS",
    otherwise: TOPICS_MAX_DEFAULT,
    what: "topics; more get `429`; `0` is no limit",
  }),
  routersMax: unsigned({
    variable: "TOPICS_MAX_ROUTERS",
    otherwise: ROUTERS_MAX_DEFAULT,
    what: "routers; more get `429`; `0` is no limit",
  }),
  streamsMax: unsigned({
    variable: "TOPICS_MAX_SSE_CONNECTIONS",
    otherwise: SSE_CONNECTIONS_MAX_DEFAULT,
    what: "open streams; more get `429`; `0` is no limit",
  }),
  streamsPerKeyMax: unsigned({
    variable: "TOPICS_MAX_SSE_CONNECTIONS_PER_KEY",
    otherwise: SSE_CONNECTIONS_PER_KEY_MAX_DEFAULT,
    what: "open streams of one key; more get `429`; `0` is no limit",
  }),
  watchSessionsMax: unsigned({
    variable: "TOPICS_MAX_WATCH_SESSIONS",
    otherwise: WATCH_SESSIONS_MAX_DEFAULT,
    what: "watch sessions, open or idle; more get `429`; `0` is no limit",
  }),
  streamBytesMax: unsigned({
    variable: "TOPICS_MAX_STREAM_BYTES",
    otherwise: STREAM_BYTES_MAX_DEFAULT,
    what: "bytes held for slow readers; beyond it those that hold most for longest are cut; `0` is no limit",
  }),
  heartbeatMsMin: {
    ...unsigned({
      variable: "TOPICS_TEST_MIN_HEARTBEAT_MS",
      otherwise: HEARTBEAT_MS_MIN,
      range: `1 … ${HEARTBEAT_MS_MIN}`,
      what: "the shortest `heartbeat_ms` of a watch, for tests",
    }),
    parse: heartbeat,
  },
  totalBytesMax: unsigned({
    variable: "TOPICS_MAX_TOTAL_BYTES",
    otherwise: 0,
    what: "bytes of all records; more get `429`; `0` is no limit",
  }),
  feedNetworkId: text({
    variable: "FEED_NETWORK_ID",
    otherwise: "",
    what: "network of feeds; instances that exchange them share it; unset is `local:` and this instance's id",
  }),
  feedNodeSeed: text({
    variable: "FEED_NODE_SEED",
    otherwise: "",
    range: "64 hexadecimal digits",
    secret: true,
    what: "what this instance's key is made of; unset, one is made and kept with the data",
  }),
  feedPeers: text({
    variable: "FEED_PEERS",
    otherwise: "",
    range: "base URLs with commas",
    what: "instances to exchange feeds with",
  }),
  feedPeerToken: text({
    variable: "FEED_PEER_TOKEN",
    otherwise: "",
    secret: true,
    what: "what peers show each other; without it only this machine's are let in",
  }),
  feedSyncIntervalMs: {
    ...unsigned({
      variable: "FEED_SYNC_INTERVAL_MS",
      otherwise: SYNC_INTERVAL_MS_DEFAULT,
      range: `${SYNC_INTERVAL_MS_MIN} …`,
      what: "how often peers are asked for what they have, in ms",
    }),
    parse: interval,
  },
  feedStrict: boolean({
    variable: "FEED_STRICT",
    otherwise: false,
    what: "feeds keep to what a reference node takes",
  }),
  feedPublic: boolean({
    variable: "FEED_PUBLIC",
    otherwise: false,
    what: "feeds need no key, also where keys are in use",
  }),
  logLevel: {
    ...text({ variable: "RUST_LOG", otherwise: "info", what: "what is logged" }),
    range: LOG_LEVELS.map((level) => `\`${level}\``).join(", "),
    parse: logLevel,
  },
} as const satisfies Record<string, Setting<string> | Setting<number> | Setting<boolean>>;

type Settings = typeof settings;

export type Name = keyof Settings;

/** The value of every setting. An empty text is unset. */
export type Config = { readonly [N in Name]: Settings[N] extends Setting<infer T> ? T : never };

/** What the command line says; it wins over the environment. */
export type Flags = Partial<Config>;

export type Environment = Readonly<Record<string, string | undefined>>;

/** A setting's value and what has decided it. */
export interface Effective {
  readonly value: Value;
  readonly from: "flag" | "variable" | "default";
  /** What the variable says, if that means nothing. */
  readonly ignored?: string;
}

/** What holds for every setting, and why. */
export function effective(environment: Environment, flags: Flags = {}): Record<Name, Effective> {
  const found = Object.entries(settings).map(([name, setting]: [string, Setting]) => {
    const flag = flags[name as Name];
    const told = setting.variable === undefined ? undefined : environment[setting.variable];
    const value = told === undefined ? undefined : setting.parse(told);
    if (flag !== undefined) return [name, { value: flag, from: "flag" }];
    if (value !== undefined) return [name, { value, from: "variable" }];
    const otherwise = { value: setting.otherwise, from: "default" };
    return [name, told?.trim() ? { ...otherwise, ignored: told } : otherwise];
  });
  return wholeAddress(Object.fromEntries(found) as Record<Name, Effective>);
}

export function configFrom(environment: Environment, flags: Flags = {}): Config {
  const values = Object.entries(effective(environment, flags)).map(([name, { value }]) => [name, value]);
  return Object.fromEntries(values) as Config;
}

/** What a server keeps of its settings once it runs. */
export function withoutSecrets(config: Config): Config {
  const values = Object.entries(config).map(([name, value]) => {
    const { secret }: Setting = settings[name as Name];
    return [name, secret ? "" : value];
  });
  return Object.fromEntries(values) as Config;
}

/** A host with a port decides both. */
function wholeAddress(found: Record<Name, Effective>): Record<Name, Effective> {
  const { value, from } = found.host;
  const host = String(value).replace(/^\[(.*)\]$/, "$1");
  if (isIPv6(host) || !host.includes(":")) return { ...found, host: { value: host, from } };
  const [, name, port] = /^(.*):(\d+)$/.exec(host) ?? [];
  if (name === undefined) return found;
  return {
    ...found,
    host: { value: name.replace(/^\[(.*)\]$/, "$1"), from },
    port: found.port.from === "flag" ? found.port : { value: Number(port), from },
  };
}

/** Origins of web pages, as browsers spell them. Throws for what is none. */
export function originsIn({ corsOrigins }: Config): string[] {
  const origins = corsOrigins
    .split(",")
    .flatMap((entry) => entry.trim().toLowerCase().replace(/\/$/, "") || []);
  const wrong = origins.find((origin) => !ORIGIN.test(origin));
  if (wrong === undefined) return origins;
  throw new Error(`Cannot use TOPICS_CORS_ORIGINS: "${wrong}" is no origin such as https://app.example`);
}
