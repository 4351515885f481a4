/**
 * Where a stream stands in its topics, and the id that tells its client so.
 *
 * An id is base64url of a JSON object: the seq of every topic by name, and under `$epochs`, which no topic can be
 * called, the instances of the topics that the seqs belong to.
 */
import { decoder } from "../contract/decode.ts";
import { ApiError } from "../contract/errors.ts";
import { MapOf, Position, RawJson } from "../contract/schema.ts";

/** Behind record `seq` of an instance. */
export interface Place {
  readonly epoch: number;
  readonly seq: number;
}

export type Places = ReadonlyMap<string, Place>;

/** Comes before every instance, so that whoever returns from there is told that records were lost. */
export const NO_EPOCH = 0;

/** Newer instances have higher epochs. */
export const isBefore = (a: Place, b: Place): boolean =>
  a.epoch === b.epoch ? a.seq < b.seq : a.epoch < b.epoch;

/** The id of a stream, kept up to date piece by piece. */
export class StreamId {
  readonly #index: ReadonlyMap<string, number>;
  readonly #names: readonly string[];
  readonly #epochs: string[];
  readonly #seqs: string[];
  /** As it was told last, if nothing has moved since. */
  #text: string | undefined;

  constructor(places: Places) {
    const names = [...places.keys()].sort();
    this.#names = names.map((name) => JSON.stringify(name));
    this.#index = new Map(names.map((name, i) => [name, i]));
    this.#epochs = names.map((name, i) => `${this.#names[i]}:${places.get(name)!.epoch}`);
    this.#seqs = names.map((name, i) => `${this.#names[i]}:${places.get(name)!.seq}`);
  }

  move(topic: string, { epoch, seq }: Place): void {
    const i = this.#index.get(topic)!;
    const seqs = `${this.#names[i]}:${seq}`;
    const epochs = `${this.#names[i]}:${epoch}`;
    if (this.#seqs[i] === seqs && this.#epochs[i] === epochs) return;
    this.#seqs[i] = seqs;
    this.#epochs[i] = epochs;
    this.#text = undefined;
  }

  toString(): string {
    this.#text ??= Buffer.from(
      `{"$epochs":{${this.#epochs.join(",")}}${this.#seqs.map((seq) => `,${seq}`).join("")}}`,
    ).toString("base64url");
    return this.#text;
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const decodeMembers = decoder(MapOf(RawJson));
const decodeEpochs = decoder(MapOf(Position));
const decodeSeq = decoder(Position);

/** The places that an id tells, without an epoch where it names none. Undefined if it cannot be understood. */
export function decodeId(id: string): ReadonlyMap<string, { epoch?: number; seq: number }> | undefined {
  if (!/^[A-Za-z0-9_-]+$/.test(id)) return undefined;
  try {
    const members = decodeMembers(utf8.decode(Buffer.from(id, "base64url")));
    const epochs = decodeEpochs(members.get("$epochs") ?? "{}");
    const places = [...members].filter(([name]) => !name.startsWith("$"));
    return new Map(
      places.map(([name, text]) => {
        const epoch = epochs.get(name);
        const seq = decodeSeq(text);
        return [name, epoch === undefined ? { seq } : { epoch, seq }];
      }),
    );
  } catch (error) {
    if (error instanceof ApiError || error instanceof TypeError) return undefined;
    throw error;
  }
}
