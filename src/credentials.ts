/** Secrets that lie in files: API keys, and the certificate for TLS. */
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import type { Config } from "./config.ts";
import type { KeySource } from "./http/keys.ts";

/** From a `#` at the start of a line or behind a space to the line's end. */
const COMMENT = /(?:^|[ \t])#.*$/gm;

/** The texts that hold API keys. Throws if the file is unreadable or holds none. */
export function keySources({ apiKeys, apiKeysFile }: Config): KeySource[] {
  const variable = { name: "TOPICS_API_KEYS", text: apiKeys };
  return apiKeysFile === "" ? [variable] : [variable, keyFile(apiKeysFile)];
}

/** The same of one file. */
export function keyFile(path: string): KeySource {
  const text = readSecret(path).replace(COMMENT, "");
  // An empty file must not open the server to everybody.
  if (!/[^\s,]/.test(text)) throw new Error(`Cannot use the keys in ${path}: it holds none`);
  return { name: path, text };
}

/** Certificate and key, both in PEM; undefined for plain HTTP. Throws if one is missing or unreadable. */
export function tlsFrom({ tlsCertFile, tlsKeyFile }: Config): { cert: string; key: string } | undefined {
  if (tlsCertFile === "" && tlsKeyFile === "") return undefined;
  if (tlsCertFile === "" || tlsKeyFile === "") {
    throw new Error("Cannot use TLS: TOPICS_TLS_CERT_FILE and TOPICS_TLS_KEY_FILE are needed together");
  }
  const tls = { cert: readSecret(tlsCertFile), key: readSecret(tlsKeyFile) };
  try {
    createSecureContext(tls);
  } catch (error) {
    const { message } = error as Error;
    throw new Error(`Cannot use the certificate in ${tlsCertFile} with the key in ${tlsKeyFile}: ${message}`);
  }
  return tls;
}

function readSecret(path: string): string {
  try {
    return readFileSync(path, "utf8").replace(/^\ufeff/, "");
  } catch (error) {
    throw new Error(`Cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
}
