/** Settings: command-line flags, then environment variables, then defaults. */
import { BODY_BYTES_DEFAULT, TOPICS_MAX_DEFAULT } from "./contract/limits.ts";

export interface Config {
  readonly host: string;
  readonly port: number;
  /** Where to write the address once it is known. */
  readonly portFile: string | undefined;
  readonly dataDir: string;
  readonly acceptLoss: boolean;
  readonly bodyBytesMax: number;
  readonly topicsMax: number;
  readonly totalBytesMax: number;
  readonly logLevel: string;
}

/** What the command line says; it wins over the environment. */
export interface Flags {
  readonly host?: string;
  readonly port?: number;
  readonly dataDir?: string;
  readonly acceptLoss?: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;

const HOST_DEFAULT = "127.0.0.1";
const PORT_DEFAULT = 4000;
const DATA_DIR_DEFAULT = "./topics-data";
const LOG_LEVELS = ["trace", "debug", "info", "warn", "error"];

export function configFrom(environment: Environment, flags: Flags = {}): Config {
  const address = addressFrom(environment);
  return {
    host: flags.host ?? address.host,
    port: flags.port ?? address.port,
    portFile: environment.TOPICS_PORT_FILE?.trim() || undefined,
    dataDir: flags.dataDir ?? (environment.TOPICS_DATA_DIR || DATA_DIR_DEFAULT),
    acceptLoss: flags.acceptLoss ?? false,
    bodyBytesMax: unsigned(environment.TOPICS_MAX_BODY_BYTES, BODY_BYTES_DEFAULT),
    topicsMax: unsigned(environment.TOPICS_MAX_TOPICS, TOPICS_MAX_DEFAULT),
    totalBytesMax: unsigned(environment.TOPICS_MAX_TOTAL_BYTES, 0),
    logLevel: LOG_LEVELS.includes(environment.RUST_LOG ?? "") ? environment.RUST_LOG! : "info",
  };
}

/** `TOPICS_HOST` with a colon is the whole address. */
function addressFrom({ TOPICS_HOST, TOPICS_PORT }: Environment): { host: string; port: number } {
  const host = TOPICS_HOST?.trim() || HOST_DEFAULT;
  const whole = /^(.*):(\d+)$/.exec(host);
  if (whole) return { host: whole[1]!.replace(/^\[(.*)\]$/, "$1"), port: Number(whole[2]) };
  return { host, port: unsigned(TOPICS_PORT, PORT_DEFAULT) };
}

/** A variable that is not an unsigned integer counts as unset. */
function unsigned(value: string | undefined, otherwise: number): number {
  const text = value?.trim() ?? "";
  return /^\d+$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : otherwise;
}
