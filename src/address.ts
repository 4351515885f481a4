/** Where the server may listen: on a public address only with keys, or with somebody's word for it. */
import { lookup } from "node:dns/promises";
import { isIPv6 } from "node:net";
import type { Config } from "./config.ts";

const PORT_MAX = 65535;
const LOOPBACK = /^(?:(?:::ffff:)?127\.|::1$)/i;

/** Throws if nobody can listen there, or this server must not. */
export async function checkAddress(config: Config, hasKeys: boolean): Promise<void> {
  const { host, port, allowInsecureNoAuth } = config;
  const behindColon = isIPv6(host) ? undefined : /:(.*)$/s.exec(host)?.[1];
  if (behindColon !== undefined) throw new Error(`Cannot listen on ${host}: "${behindColon}" is no port`);
  if (port > PORT_MAX) throw new Error(`Cannot listen on port ${port}: ports end at ${PORT_MAX}`);
  if (hasKeys || allowInsecureNoAuth || (await isLoopback(host))) return;
  throw new Error(
    `Cannot listen on ${host} without keys: whoever reaches it could do everything. Set TOPICS_API_KEYS, or ` +
      "TOPICS_ALLOW_INSECURE_NO_AUTH=1 if something else guards it",
  );
}

/** Whether every address of that name belongs to this machine alone. */
export async function isLoopback(host: string): Promise<boolean> {
  try {
    const addresses = await lookup(host, { all: true });
    return addresses.length > 0 && addresses.every(({ address }) => LOOPBACK.test(address));
  } catch {
    return false;
  }
}
