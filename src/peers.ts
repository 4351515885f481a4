/** What the settings say of feeds and peers, checked before anything is opened. */
import type { Config } from "./config.ts";
import type { FeedSettings } from "./engine/feeds/network.ts";

/** Throws, without telling the seed. */
export function feedSettings({ feedNodeSeed, feedNetworkId, feedStrict }: Config): FeedSettings {
  if (feedNodeSeed !== "" && !/^[0-9a-fA-F]{64}$/.test(feedNodeSeed)) {
    throw new Error("Cannot use FEED_NODE_SEED: it must be 64 hexadecimal digits");
  }
  return { nodeSeed: feedNodeSeed, networkId: feedNetworkId, strict: feedStrict };
}

export interface PeerSettings {
  readonly urls: readonly string[];
  /** Empty for none. */
  readonly token: string;
}

/** Whom to speak to, and what is shown then. Throws. */
export const peerSettings = (config: Config): PeerSettings => ({
  urls: peerUrls(config),
  token: peerToken(config),
});

/** Throws, without telling the token, for one that no header can hold. */
function peerToken({ feedPeerToken }: Config): string {
  if (/^[ -~]*$/.test(feedPeerToken)) return feedPeerToken;
  throw new Error("Cannot use FEED_PEER_TOKEN: it must be printable ASCII");
}

/** The base URLs of FEED_PEERS, each once, without a final slash. Throws for what is none. */
function peerUrls({ feedPeers }: Config): string[] {
  const urls = feedPeers.split(",").flatMap((entry) => entry.trim().replace(/\/+$/, "") || []);
  const wrong = urls.findIndex((url) => !isBase(url));
  // What is wrong with it may be that it holds a secret.
  if (wrong >= 0) throw new Error(`Cannot use FEED_PEERS: entry ${wrong + 1} is no http or https base URL`);
  return [...new Set(urls)];
}

/** Secrets do not belong into a URL, which is shown in logs and by the status. */
function isBase(text: string): boolean {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) return false;
  return [url.search, url.hash, url.username, url.password].every((part) => part === "");
}
