/** An engine whose failures a test looks at, and short words for what tests do with an engine. */
import type { Appended, Diff, RecordInput, Tombstone } from "../../src/contract/records.ts";
import type { TopicConfigInput } from "../../src/contract/topics.ts";
import { Engine } from "../../src/engine/engine.ts";
import { Store } from "../../src/store/store.ts";

const checkpointer = new URL("../../src/store/checkpointer.ts", import.meta.url);

/** A store on a directory. Whatever it has to tell is a failure of the test. */
export function storeIn(dir: string): Store {
  const fail = (reason: unknown) => {
    throw reason;
  };
  return new Store({
    dir,
    acceptLoss: false,
    checkpointer,
    checkpoints: { delayed: fail, ended: fail },
    lost: fail,
  });
}

/** Unlike `OpenEngine` it goes on after failed transactions and keeps their errors. */
export class TestEngine implements Disposable {
  readonly store: Store;
  readonly engine: Engine;
  readonly failures: unknown[] = [];

  /** Without a store everything is kept in memory. */
  constructor(store = new Store(), totalBytesMax = 0) {
    this.store = store;
    this.engine = new Engine({
      store,
      limits: { topicsMax: 0, routersMax: 0, totalBytesMax, watchSessionsMax: 0, heartbeatMsMin: 1000 },
      feeds: { nodeSeed: "", networkId: "", strict: false },
      now: Date.now,
      failed: (error) => this.failures.push(error),
      unexpected: (error) => this.failures.push(error),
    });
  }

  [Symbol.dispose](): void {
    this.engine[Symbol.dispose]();
    this.store[Symbol.dispose]();
  }
}

/** `n` equal records; `data` is JSON. */
export const records = (n: number, tag: string | null = null, data = "1"): RecordInput[] =>
  Array.from({ length: n }, () => ({ data, tag }));

export async function append(
  engine: Engine,
  topic: string,
  records: RecordInput[],
  config: TopicConfigInput = {},
): Promise<Appended> {
  return (await engine.log.append(topic, { records, config }, null, false)).appended;
}

export interface PageRead {
  readonly epoch: number;
  readonly tombstone: Tombstone | null;
  readonly next: number;
  readonly seqs: number[];
  readonly tags: (string | undefined)[];
}

/** One page with tags, of 1000 records where `request` does not say otherwise. */
export async function diff(engine: Engine, topic: string, request: Diff = {}): Promise<PageRead> {
  const whole = { limit: 1000, include_tags: true, ...request };
  const { page, records } = await engine.log.diff(topic, whole, () => new AbortController().signal);
  const read = JSON.parse(`[${records}]`) as { $seq: number; $tag?: string }[];
  return {
    epoch: page.epoch,
    tombstone: page.tombstone,
    next: page.next_from_seq,
    seqs: read.map(({ $seq }) => $seq),
    tags: read.map(({ $tag }) => $tag),
  };
}

/** What SQLite throws when the disk is full. */
export const diskFull = () => Object.assign(new Error("database or disk is full"), { code: "SQLITE_FULL" });

/** What SQLite throws for a page that contradicts itself. */
export const malformed = () =>
  Object.assign(new Error("database disk image is malformed"), { code: "SQLITE_CORRUPT" });

/** Fails the next transaction that is `chosen` once its work is done, as a full disk does, and then no more. */
export function failTransaction(store: Store, chosen: () => boolean = () => true): void {
  store.transaction = (work) =>
    Store.prototype.transaction.call(store, () => {
      const result = work();
      if (!chosen()) return result;
      Reflect.deleteProperty(store, "transaction");
      throw diskFull();
    }) as ReturnType<typeof work>;
}

/** Lets everything run that is ready, for some turns of the event loop. */
export async function turns(n = 20): Promise<void> {
  for (let i = 0; i < n; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** The promise's outcome, or a failure if that takes long enough to be a wait. */
export async function promptly<T>(promise: Promise<T>, deadlineMs = 3000): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no answer in ${deadlineMs} ms`)), deadlineMs);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Holds back every sync of the store until the test ends it. */
export class HeldSyncs {
  readonly #held: PromiseWithResolvers<void>[] = [];

  constructor(store: Store) {
    store.sync = () => {
      const sync = Promise.withResolvers<void>();
      this.#held.push(sync);
      return sync.promise;
    };
  }

  get count(): number {
    return this.#held.length;
  }

  /** Ends the oldest one. */
  finish(): void {
    this.#held.shift()!.resolve();
  }

  /** Ends all of them as a failing device does. */
  fail(): void {
    for (const sync of this.#held.splice(0)) sync.reject(Object.assign(new Error("EIO"), { code: "EIO" }));
  }
}

/** An engine with one record in `synced` (class `fsync`) and in `plain` (class `disk`), and no sync from now on. */
export async function heldOpen() {
  const opened = new TestEngine();
  const { engine, store } = opened;
  await append(engine, "synced", records(1, "old"), { durability: "fsync" });
  await append(engine, "plain", records(1, "old"), { durability: "disk" });
  return Object.assign(opened, { syncs: new HeldSyncs(store) });
}
