/** Who signs, and whether somebody has signed: Ed25519 (RFC 8032) over the text of an event's id. */
import { createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { LRUCache } from "lru-cache";

/** What stands before a seed in PKCS #8 (RFC 8410). */
const PKCS8_HEAD = Buffer.from("302e020100300506032b657004220420", "hex");
const AUTHORS_KEPT = 1000;

const HEX_32 = /^[0-9a-f]{64}$/;
const HEX_64 = /^[0-9a-f]{128}$/;

export const isId = (text: string): boolean => HEX_32.test(text);
export const isSignature = (text: string): boolean => HEX_64.test(text);

export class Identity {
  /** The public key, in lower-case hexadecimal. */
  readonly nodeId: string;
  readonly #key: KeyObject;

  /** `seed`: 32 bytes. */
  constructor(seed: Uint8Array) {
    this.#key = createPrivateKey({ key: Buffer.concat([PKCS8_HEAD, seed]), format: "der", type: "pkcs8" });
    const { x } = createPublicKey(this.#key).export({ format: "jwk" });
    this.nodeId = Buffer.from(x!, "base64url").toString("hex");
  }

  sign(eventId: string): string {
    return sign(null, Buffer.from(eventId), this.#key).toString("hex");
  }
}

const authors = new LRUCache<string, Promise<CryptoKey>>({ max: AUTHORS_KEPT });

/** Whether `nodeId` has signed the id. Computed on another thread. */
export async function isSignedBy(nodeId: string, eventId: string, signature: string): Promise<boolean> {
  const known = authors.get(nodeId);
  const key =
    known ?? crypto.subtle.importKey("raw", Buffer.from(nodeId, "hex"), "Ed25519", false, ["verify"]);
  if (!known) authors.set(nodeId, key);
  try {
    return await crypto.subtle.verify(
      "Ed25519",
      await key,
      Buffer.from(signature, "hex"),
      Buffer.from(eventId),
    );
  } catch {
    // Not every 32 bytes are a public key.
    return false;
  }
}
