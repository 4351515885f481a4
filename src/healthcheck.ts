/** Asks the server at the configured address whether it is up. */
import { isIPv6 } from "node:net";
import { checkAddress } from "./address.ts";
import type { Config } from "./config.ts";

const TIMEOUT_MS = 5000;

/** Listening there means every address; asking is done at this one. */
const REACHED_AT: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };

/** Throws, saying why, if the server is not up. */
export async function checkHealth(config: Config): Promise<void> {
  checkAddress(config, false);
  if (config.port === 0) throw new Error("Cannot ask a server on port 0: say with --port which one it got");
  const host = REACHED_AT[config.host] ?? config.host;
  const scheme = config.tlsCertFile === "" ? "http" : "https";
  const url = `${scheme}://${isIPv6(host) ? `[${host}]` : host}:${config.port}/v0/health`;
  const status = await statusOf(url);
  // Who asks for a key is up.
  if (status !== 200 && !(config.probeAuth && status === 401)) throw new Error(`${url} answers ${status}`);
}

async function statusOf(url: string): Promise<number> {
  // The server is asked itself, whatever proxy there is for others.
  process.env.NO_PROXY = "*";
  try {
    const response = await fetch(url, {
      signal: AbortSignal.timeout(TIMEOUT_MS),
      // Whether it is up is asked, not who it is.
      tls: { rejectUnauthorized: false },
    });
    return response.status;
  } catch (error) {
    const { name, message } = error as Error;
    const why = name === "TimeoutError" ? `no answer within ${TIMEOUT_MS / 1000} s` : message;
    throw new Error(`Cannot reach ${url}: ${why}`, { cause: error });
  }
}
