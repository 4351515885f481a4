/**
 * Group commit: the one way commands reach the store.
 *
 * Commands that arrive in one turn of the event loop, or while a commit runs, share the next transaction; a lone
 * one does not wait for company. A transaction is synchronous from its first command to its commit, so no reader
 * ever sees a change that is not committed. If it fails, all its commands fail and nothing has happened.
 *
 * The event loop never waits for the device: a commit hands its pages to the operating system, and what has to be
 * on the device is answered when a sync that started later is done. One sync serves all commits before it. Until
 * then `Topic.unsynced` holds back whoever reads that topic, so nothing is shown that a power cut could take.
 */
import { ApiError, readOnly } from "../contract/errors.ts";
import { isFull, isIoError, type Store } from "../store/store.ts";
import type { Catalog } from "./catalog.ts";
import { type Command, type Outcome, topicOf } from "./commands.ts";
import { keepsLeases } from "./config.ts";
import { findEarliest } from "./deletion.ts";
import { type EngineLimits, Group } from "./group.ts";
import { apply } from "./machine.ts";
import type { RouterSet } from "./routerset.ts";
import type { Topic } from "./topic.ts";

/** So many records, bytes or commands make a group full; the rest waits for the next one. */
const GROUP_RECORDS_MAX = 10_000;
const GROUP_BYTES_MAX = 8 * 1024 * 1024;
const GROUP_COMMANDS_MAX = 256;

/** So many turns of the event loop a group may grow, as long as each brings more. */
const GATHER_TURNS_MAX = 8;

/** So many commands may wait for a transaction. */
const WAITING_MAX = 10_000;

/** What a command led to, and what its commit cost, in ms. */
export interface Committed<C extends Command> {
  readonly outcome: Outcome<C>;
  /** Writing, without waiting for the device. 0 where nothing is stored on disk. */
  readonly appendMs: number;
  /** Waiting for the device. 0 unless the topic asks for that. */
  readonly fsyncMs: number;
}

/** Since the start. */
export interface CommitFigures {
  /** Commands and transactions that changed what is on disk, and the record bytes they brought. */
  readonly entries: number;
  readonly batches: number;
  readonly bytes: number;
  /** Commands that wait for their transaction, and the most there ever were. */
  readonly waiting: number;
  readonly waitingPeak: number;
  /** Commands refused because too many waited. */
  readonly refused: number;
  /** Whether the medium has failed, so that nothing is written any more. */
  readonly broken: boolean;
}

interface Pending {
  readonly command: Command;
  /** Record bytes that it brings. */
  readonly bytes: number;
  readonly resolve: (committed: Committed<Command>) => void;
  readonly reject: (error: unknown) => void;
}

/** A command that is carried out, and waits for its commit or for the sync behind it. */
interface Answer {
  /** Settings that it changed, and topics whose records or leases it changed, that must be on the device first. */
  readonly toSync: Group["toSync"];
  /** Record bytes that it brings; undefined if it changes nothing. */
  readonly brings: number | undefined;
  readonly topic: Topic | undefined;
  /** Whether it tells of settings. */
  readonly isOfSettings: boolean;
  readonly give: (appendMs: number, fsyncMs: number) => void;
  readonly fail: (error: unknown) => void;
}

export interface CommitEvents {
  /** Within each transaction, after its commands. */
  readonly closing: (group: Group) => void;
  /** After each commit. */
  readonly committed: (group: Group) => void;
  /** After each commit that has changed what is on disk. */
  readonly stored?: () => void;
  /** After each transaction that failed. */
  readonly undone: (group: Group) => void;
  /** A transaction failed. `broken`: the medium did, and nothing will be acknowledged any more. */
  readonly failed: (error: unknown, broken: boolean) => void;
}

export class Commits {
  readonly #store: Store;
  readonly #catalog: Catalog;
  readonly #routers: RouterSet;
  readonly #limits: EngineLimits;
  readonly #events: CommitEvents;
  #queue: Pending[] = [];
  #scheduled = false;
  #closed = false;
  /** Set when the medium has failed: what was written last is unknown, so nothing is acknowledged any more. */
  #broken = false;
  /** The sync that the latest settings wait for, or waited for. */
  #settings: Promise<void> | undefined;
  #entries = 0;
  #batches = 0;
  #bytes = 0;
  #waitingPeak = 0;
  #refused = 0;

  constructor(
    store: Store,
    catalog: Catalog,
    routers: RouterSet,
    limits: EngineLimits,
    events: CommitEvents,
  ) {
    this.#store = store;
    this.#catalog = catalog;
    this.#routers = routers;
    this.#limits = limits;
    this.#events = events;
  }

  get figures(): CommitFigures {
    return {
      entries: this.#entries,
      batches: this.#batches,
      bytes: this.#bytes,
      waiting: this.#queue.length,
      waitingPeak: this.#waitingPeak,
      refused: this.#refused,
      broken: this.#broken,
    };
  }

  /**
   * Resolves when the command is committed. Rejects with its `ApiError`, with `internal` if its group failed, or with
   * `throttled` if too many are waiting.
   */
  async submit<C extends Command>(command: C): Promise<Committed<C>> {
    // Loads the topic. One that cannot be loaded fails here, and not for all that would share its group.
    const name = topicOf(command);
    const topic = name === undefined ? undefined : this.#catalog.find(name);
    if (topic?.damaged && command.kind !== "delete_topic") throw topic.damaged;
    if (topic?.isReserved && !writesReserved(command)) throw readOnly(topic.name);
    if (this.#closed) throw notStored();
    if (this.#queue.length >= WAITING_MAX) {
      this.#refused++;
      throw new ApiError("throttled", { limit: "max_commands_waiting", max: WAITING_MAX });
    }
    const { promise, resolve, reject } = Promise.withResolvers<Committed<Command>>();
    this.#queue.push({ command, bytes: recordBytesOf(command), resolve, reject });
    this.#waitingPeak = Math.max(this.#waitingPeak, this.#queue.length);
    this.#schedule();
    return promise as Promise<Committed<C>>;
  }

  /** Carries out what is waiting and takes nothing more. */
  close(): void {
    this.#closed = true;
    while (this.#queue.length > 0) this.#flush();
  }

  /** Carries out one command at once, for whoever closes up. */
  carryOut(command: Command): void {
    this.#commit([{ command, bytes: 0, resolve: () => {}, reject: () => {} }]);
  }

  /** Runs `work` in a transaction of its own, for upkeep that no reader can see. False if it failed. */
  upkeep(work: (group: Group) => void): boolean {
    return !("error" in this.#transact(work));
  }

  /** Brings what is committed of a topic to the device, for readers that ask for more than it does itself. */
  async harden(topic: Topic): Promise<void> {
    const { head } = topic.log;
    await this.#store.sync().catch((error) => this.#break(error));
    topic.syncedHead = Math.max(topic.syncedHead, head);
  }

  #break(error: unknown): never {
    this.#broken = true;
    this.#events.failed(error, true);
    throw notStored();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const known = this.#queue.length;
    setImmediate(() => this.#gather(known, GATHER_TURNS_MAX));
  }

  /** Flushes once a turn of the event loop has brought nothing new. */
  #gather(known: number, turns: number): void {
    if (turns > 0 && this.#queue.length > known) {
      const grown = this.#queue.length;
      setImmediate(() => this.#gather(grown, turns - 1));
      return;
    }
    this.#scheduled = false;
    this.#flush();
  }

  #flush(): void {
    const waiting = this.#takeGroup();
    if (this.#queue.length > 0) this.#schedule();
    // What is in memory keeps working while the disk does not, so it has a transaction of its own.
    const inMemory = waiting.filter(({ command }) => this.#isInMemory(command));
    const onDisk = inMemory.length === 0 ? waiting : waiting.filter((pending) => !inMemory.includes(pending));
    if (onDisk.length > 0) this.#commit(onDisk);
    if (inMemory.length > 0) this.#commit(inMemory);
  }

  #takeGroup(): Pending[] {
    let size = 0;
    let records = 0;
    let bytes = 0;
    for (const pending of this.#queue) {
      records += pending.command.kind === "append" ? pending.command.records.length : 0;
      bytes += pending.bytes;
      const isFull = records > GROUP_RECORDS_MAX || bytes > GROUP_BYTES_MAX || size === GROUP_COMMANDS_MAX;
      if (size > 0 && isFull) break;
      size++;
    }
    return this.#queue.splice(0, size);
  }

  #commit(pending: readonly Pending[]): void {
    const answers: Answer[] = [];
    const isStored = !this.#isInMemory(pending[0]!.command);
    const done = this.#transact((group) => {
      for (const one of pending) answers.push(this.#apply(group, one));
      for (const topic of group.touched) findEarliest(topic);
      this.#events.closing(group);
    });
    if ("error" in done) {
      // What fails by itself, such as a damaged page, must not take others along. A full disk fails for all on it.
      if (pending.length > 1 && !this.#broken && !(isStored && isFull(done.error)))
        for (const one of pending) this.#commit([one]);
      else for (const { reject } of pending) reject(notStored());
      return;
    }
    const { group, ms } = done;
    if (isStored) this.#count(answers);
    const synced = answers.some(needsSync) ? this.#sync(answers.filter(needsSync)) : undefined;
    if (answers.some(({ toSync }) => toSync.settings)) this.#settings = synced;
    this.#events.committed(group);
    const waiting = Map.groupBy(answers, (answer) => this.#waitOf(answer, synced));
    for (const answer of waiting.get(undefined) ?? []) answer.give(ms, 0);
    const start = performance.now();
    for (const [wait, those] of waiting) {
      wait?.then(
        () => {
          const fsyncMs = performance.now() - start;
          for (const answer of those) answer.give(ms, needsSync(answer) ? fsyncMs : 0);
        },
        (error) => {
          for (const answer of those) answer.fail(error);
        },
      );
    }
  }

  /** Whatever an answer tells is on the device by then, as far as settings and its topic ask for that. */
  #waitOf(answer: Answer, synced: Promise<void> | undefined): Promise<void> | undefined {
    const own = answer.topic?.unsynced ?? (needsSync(answer) ? synced : undefined);
    const settings = answer.isOfSettings ? this.#settings : undefined;
    if (own === undefined || settings === undefined || own === settings) return own ?? settings;
    return Promise.all([own, settings]).then(() => {});
  }

  /** Counts what a transaction on disk has changed. */
  #count(answers: readonly Answer[]): void {
    const brought = answers.flatMap(({ brings }) => brings ?? []);
    if (brought.length === 0) return;
    this.#events.stored?.();
    this.#batches++;
    this.#entries += brought.length;
    for (const bytes of brought) this.#bytes += bytes;
  }

  /** Carries out one command. */
  #apply(group: Group, { command, bytes, resolve, reject }: Pending): Answer {
    group.begin();
    try {
      const outcome = apply(group, command);
      const topic = this.#topicOf(command);
      const give = (appendMs: number, fsyncMs: number) =>
        resolve({ outcome, ...charge(topic, appendMs, fsyncMs) });
      const isKnown = outcome !== null && "deduped" in outcome && outcome.deduped;
      const brings = isKnown ? undefined : bytes;
      const { toSync } = group;
      const isOfSettings = toSync.settings || setsUp(command);
      return { toSync, brings, topic, isOfSettings, give, fail: reject };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return {
        toSync: group.toSync,
        brings: undefined,
        topic: this.#topicOf(command),
        isOfSettings: setsUp(command),
        give: () => reject(error),
        fail: reject,
      };
    }
  }

  /** Syncs what `answers` have changed, and holds back readers of their topics until then. */
  #sync(answers: readonly Answer[]): Promise<void> {
    const topics = new Set(
      answers.flatMap(({ toSync, topic }) =>
        toSync.settings && topic ? [...toSync.topics, topic] : toSync.topics,
      ),
    );
    const heads = Array.from(topics, (topic) => [topic, topic.log.head] as const);
    for (const [topic, head] of heads) if (topic.config.durability !== "fsync") topic.syncedHead = head;
    const synced = this.#store.sync().then(
      () => {
        for (const [topic, head] of heads) {
          topic.syncedHead = Math.max(topic.syncedHead, head);
          if (topic.unsynced === synced) topic.unsynced = undefined;
        }
      },
      (error) => this.#break(error),
    );
    // Those who wait get the failure; it is nobody's fault if there is none.
    synced.catch(() => {});
    for (const topic of topics) topic.unsynced = synced;
    return synced;
  }

  /** One transaction, in the store and in memory alike. With an error, nothing has happened. */
  #transact(work: (group: Group) => void): { group: Group; ms: number } | { error: unknown } {
    if (this.#broken) return { error: notStored() };
    const group = new Group(this.#catalog, this.#routers, this.#store, this.#limits);
    const start = performance.now();
    try {
      this.#store.transaction(() => {
        work(group);
        group.save();
      });
      group.done();
      return { group, ms: performance.now() - start };
    } catch (error) {
      group.undo();
      this.#broken = isIoError(error);
      this.#events.undone(group);
      this.#events.failed(error, this.#broken);
      return { error };
    }
  }

  /** The topic that the command is about, as it is now. It was loaded when the command was submitted. */
  #topicOf(command: Command): Topic | undefined {
    const name = topicOf(command);
    return name === undefined ? undefined : this.#catalog.loaded(name);
  }

  /** Whether the command changes nothing on disk. */
  #isInMemory(command: Command): boolean {
    if (setsUp(command)) return false;
    const topic = this.#topicOf(command);
    if (topic === undefined) return false;
    return topic.config.durability === "ephemeral" || (isOfLeases(command) && !keepsLeases(topic.config));
  }
}

/** Whether a command is about settings. */
const setsUp = ({ kind }: Command): boolean =>
  kind === "put_topic" || kind === "delete_topic" || kind === "put_router" || kind === "delete_router";

/** Whether a command may be about a topic that no client can change. */
const writesReserved = ({ kind }: Command): boolean => kind === "accept_events" || kind === "sweep";

/** Whether a command changes leases only. Jobs that are moved to dead letters are few. */
const isOfLeases = ({ kind }: Command): boolean =>
  kind === "claim" || kind === "nack" || kind === "extend" || kind === "release" || kind === "sweep";

const needsSync = ({ toSync }: Answer): boolean => toSync.settings || toSync.topics.length > 0;

const notStored = (): ApiError => new ApiError("internal", {}, "the change could not be stored");

function recordBytesOf(command: Command): number {
  let bytes = 0;
  if (command.kind === "accept_events") for (const { text } of command.events) bytes += text.length;
  if (command.kind !== "append") return bytes;
  for (const record of command.records) bytes += record.bytes;
  return bytes;
}

/** What an answer reports of its group's cost. */
function charge(topic: Topic | undefined, appendMs: number, fsyncMs: number) {
  const durability = topic?.config.durability;
  if (durability === "ephemeral") return { appendMs: 0, fsyncMs: 0 };
  return { appendMs, fsyncMs: durability === "fsync" ? fsyncMs : 0 };
}
