/**
 * Group commit: the one way commands reach the store.
 *
 * Commands that arrive in one turn of the event loop, or while a commit runs, share the next transaction; a lone
 * one does not wait for company. A transaction is synchronous from its first command to its commit, so no reader
 * ever sees a change that is not committed. If it fails, all its commands fail and nothing has happened.
 */
import { ApiError } from "../contract/errors.ts";
import type { Durability } from "../contract/topics.ts";
import { isIoError, type Store } from "../store/store.ts";
import type { Catalog } from "./catalog.ts";
import type { Command, Outcome } from "./commands.ts";
import { type EngineLimits, Group } from "./group.ts";
import { apply } from "./machine.ts";

/** So many records, or commands, make a group full; the rest waits for the next one. */
const GROUP_RECORDS_MAX = 10_000;
const GROUP_COMMANDS_MAX = 256;

/** What a command led to, and what its commit cost, in ms. */
export interface Committed<C extends Command> {
  readonly outcome: Outcome<C>;
  /** Writing, without waiting for the device. 0 where nothing is stored on disk. */
  readonly appendMs: number;
  /** Waiting for the device. 0 unless the topic asks for that. */
  readonly fsyncMs: number;
}

interface Pending {
  readonly command: Command;
  readonly resolve: (committed: Committed<Command>) => void;
  readonly reject: (error: unknown) => void;
}

export interface CommitEvents {
  /** Within each transaction, after its commands. */
  readonly closing: (group: Group) => void;
  /** After each commit. */
  readonly committed: (group: Group) => void;
  /** A transaction failed. `broken`: the medium did, and nothing will be acknowledged any more. */
  readonly failed: (error: unknown, broken: boolean) => void;
}

interface Cost {
  readonly appliedMs: number;
  readonly commitMs: number;
  readonly sync: boolean;
}

export class Commits {
  readonly #store: Store;
  readonly #catalog: Catalog;
  readonly #limits: EngineLimits;
  readonly #events: CommitEvents;
  #queue: Pending[] = [];
  #scheduled = false;
  /** Set when the medium has failed: what was written last is unknown, so nothing is acknowledged any more. */
  #broken = false;

  constructor(store: Store, catalog: Catalog, limits: EngineLimits, events: CommitEvents) {
    this.#store = store;
    this.#catalog = catalog;
    this.#limits = limits;
    this.#events = events;
  }

  /** Resolves when the command is committed. Rejects with its `ApiError`, or `internal` if its group failed. */
  async submit<C extends Command>(command: C): Promise<Committed<C>> {
    const { promise, resolve, reject } = Promise.withResolvers<Committed<Command>>();
    // A topic that cannot be loaded fails here, and not for all that would share its group.
    this.#catalog.find(command.topic);
    this.#queue.push({ command, resolve, reject });
    this.#schedule();
    return promise as Promise<Committed<C>>;
  }

  /** Runs `work` in a transaction of its own, for upkeep that no reader can see. False if it failed. */
  upkeep(work: (group: Group) => void): boolean {
    return this.#transact(false, work) !== undefined;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    const waiting = this.#takeGroup();
    if (this.#queue.length > 0) this.#schedule();
    // Topics in memory keep working while the disk does not, so they have a transaction of their own.
    const inMemory = waiting.filter(({ command }) => this.#isEphemeral(command));
    const onDisk = inMemory.length === 0 ? waiting : waiting.filter((pending) => !inMemory.includes(pending));
    if (onDisk.length > 0) this.#commit(onDisk);
    if (inMemory.length > 0) this.#commit(inMemory);
  }

  #takeGroup(): Pending[] {
    let records = 0;
    let size = 0;
    for (const { command } of this.#queue) {
      records += command.kind === "append" ? command.records.length : 0;
      if (size > 0 && (records > GROUP_RECORDS_MAX || size === GROUP_COMMANDS_MAX)) break;
      size++;
    }
    if (size < this.#queue.length) return this.#queue.splice(0, size);
    const all = this.#queue;
    this.#queue = [];
    return all;
  }

  #commit(pending: readonly Pending[]): void {
    const sync = pending.some(({ command }) => this.#needsSync(command));
    const answers: ((cost: Cost) => void)[] = [];
    const done = this.#transact(sync, (group) => {
      for (const one of pending) answers.push(this.#apply(group, one));
      this.#events.closing(group);
    });
    if (done === undefined) {
      for (const { reject } of pending)
        reject(new ApiError("internal", {}, "the change could not be stored"));
      return;
    }
    this.#events.committed(done.group);
    for (const answer of answers) answer(done.cost);
  }

  /** Carries out one command; what is left to do is to answer it once the group is committed. */
  #apply(group: Group, { command, resolve, reject }: Pending): (cost: Cost) => void {
    try {
      const outcome = apply(group, command);
      const durability = this.#catalog.find(command.topic)?.config.durability;
      return (cost) => resolve({ outcome, ...charge(durability, cost) });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return () => reject(error);
    }
  }

  /** One transaction, in the store and in memory alike. Undefined if it failed and nothing has happened. */
  #transact(sync: boolean, work: (group: Group) => void): { group: Group; cost: Cost } | undefined {
    if (this.#broken) return undefined;
    const group = new Group(this.#catalog, this.#store, this.#limits);
    const start = performance.now();
    try {
      const { result: appliedMs, commitMs } = this.#store.transaction(sync, () => {
        work(group);
        group.save();
        return performance.now() - start;
      });
      group.done();
      return { group, cost: { appliedMs, commitMs, sync } };
    } catch (error) {
      group.undo();
      this.#broken = isIoError(error);
      this.#events.failed(error, this.#broken);
      return undefined;
    }
  }

  #isEphemeral(command: Command): boolean {
    if (command.kind === "put_topic" || command.kind === "delete_topic") return false;
    return this.#catalog.find(command.topic)?.config.durability === "ephemeral";
  }

  /** Settings are always synced; records where their topic asks for it. */
  #needsSync(command: Command): boolean {
    if (command.kind === "put_topic" || command.kind === "delete_topic") return true;
    const topic = this.#catalog.find(command.topic);
    return topic === undefined ? command.kind === "append" : topic.config.durability === "fsync";
  }
}

/** What one answer reports of its group's cost. */
function charge(durability: Durability | undefined, { appliedMs, commitMs, sync }: Cost) {
  if (durability === "ephemeral") return { appendMs: 0, fsyncMs: 0 };
  if (sync && durability === "fsync") return { appendMs: appliedMs, fsyncMs: commitMs };
  return { appendMs: appliedMs + commitMs, fsyncMs: 0 };
}
