/** Where the server may listen: on a public address only with keys, or with somebody's word for it. */
import { lookup } from "node:dns/promises";
import { isIP, isIPv6 } from "node:net";
import { type Config, settings } from "./config.ts";

const HOST_NAME = /^[A-Za-z0-9_.-]+$/;
const LOOPBACK = /^(?:(?:::ffff:)?127\.|::1$)/i;

/** Throws if nobody can listen there, or this server must not. `isOpen`: to everybody who reaches it, without a key. */
export function checkAddress({ host, port, allowInsecureNoAuth }: Config, isOpen: boolean): void {
  const behindColon = isIPv6(host) ? undefined : /:(.*)$/s.exec(host)?.[1];
  if (behindColon !== undefined) throw new Error(`Cannot listen on ${host}: "${behindColon}" is no port`);
  // What looks a name up and what listens there could take another text for different addresses.
  if (!isIP(host) && !HOST_NAME.test(host)) {
    throw new Error(`Cannot listen on ${host}: it is no address and no host name; 0.0.0.0 is every address`);
  }
  const { max } = settings.port;
  if (port > max) throw new Error(`Cannot listen on port ${port}: ports end at ${max}`);
  if (!isOpen || allowInsecureNoAuth) return;
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
