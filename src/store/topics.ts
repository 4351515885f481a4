/** Names, settings and storage slots of topics; and the slots of deleted ones until they can be used again. */
import type { Database, Statement } from "bun:sqlite";
import type { Durability, TopicType } from "../contract/topics.ts";
import { SLOT_MAX } from "./records.ts";

/** Names that no client can give belong to the server, and no list or sum shows them. */
export const isReserved = "name GLOB '[_]*'";

export interface TopicRow {
  readonly slot: number;
  readonly epoch: number;
  readonly name: string;
  /** JSON. Undefined if what is stored is damaged. */
  readonly config: string | undefined;
}

export interface TopicKind {
  readonly type: TopicType;
  readonly durability: Durability;
  readonly topics: number;
}

const columns = "slot, epoch, name, config, checksum";

export class Topics {
  readonly #get: Statement;
  readonly #getSlot: Statement;
  readonly #names: Statement;
  readonly #kinds: Statement;
  readonly #forgetKinds: Statement;
  readonly #countKinds: Statement;
  readonly #count: Statement;
  readonly #insert: Statement;
  readonly #configure: Statement;
  readonly #delete: Statement;
  readonly #all: Statement;
  readonly #ephemeral: Statement;
  readonly #raiseEpoch: Statement;
  readonly #setEpoch: Statement;
  readonly #nextEpoch: Statement;
  readonly #nextSlot: Statement;
  readonly #takeFree: Statement;
  readonly #free: Statement;
  readonly #drop: Statement;
  readonly #dropped: Statement;
  readonly #undrop: Statement;

  constructor(db: Database) {
    this.#get = db.prepare(`SELECT ${columns} FROM topics WHERE name = ?`);
    this.#getSlot = db.prepare(`SELECT ${columns} FROM topics WHERE slot = ?`);
    this.#names = db.prepare(
      `SELECT name FROM topics WHERE name > ?1 AND name >= ?2 AND name < ?3 AND NOT ${isReserved} ORDER BY name LIMIT ?4`,
    );
    this.#kinds = db.prepare("SELECT type, durability, topics FROM kinds");
    this.#forgetKinds = db.prepare("DELETE FROM kinds");
    this.#countKinds = db.prepare(`
      INSERT INTO kinds
      SELECT ifnull(config ->> 'type', 'log') AS type, ifnull(config ->> 'durability', 'disk') AS durability, count(*)
      FROM (SELECT iif(json_valid(config), config, '{}') AS config FROM topics WHERE NOT ${isReserved})
      GROUP BY type, durability
    `);
    this.#count = db.prepare(
      "INSERT INTO kinds VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET topics = topics + excluded.topics",
    );
    this.#insert = db.prepare(`INSERT INTO topics (${columns}) VALUES (?, ?, ?, ?, ?)`);
    this.#configure = db.prepare("UPDATE topics SET config = ?2, checksum = ?3 WHERE slot = ?1");
    this.#delete = db.prepare("DELETE FROM topics WHERE slot = ?");
    this.#all = db.prepare("SELECT slot FROM topics");
    this.#raiseEpoch = db.prepare("UPDATE last_given SET epoch = max(epoch, ?)");
    this.#ephemeral = db.prepare("SELECT slot FROM topics WHERE config ->> 'durability' = 'ephemeral'");
    this.#setEpoch = db.prepare("UPDATE topics SET epoch = ?2 WHERE slot = ?1");
    this.#nextEpoch = db.prepare("UPDATE last_given SET epoch = epoch + 1 RETURNING epoch");
    this.#nextSlot = db.prepare("UPDATE last_given SET slot = slot + 1 RETURNING slot");
    this.#takeFree = db.prepare(
      "DELETE FROM free_slots WHERE slot = (SELECT slot FROM free_slots LIMIT 1) RETURNING slot",
    );
    this.#free = db.prepare("INSERT INTO free_slots VALUES (?)");
    this.#drop = db.prepare("INSERT INTO dropped VALUES (?)");
    this.#dropped = db.prepare("SELECT slot FROM dropped");
    this.#undrop = db.prepare("DELETE FROM dropped WHERE slot = ?");
  }

  get(name: string): TopicRow | undefined {
    return toRow(this.#get.values(name));
  }

  inSlot(slot: number): TopicRow | undefined {
    return toRow(this.#getSlot.values(slot));
  }

  /** Names greater than `after` with `from <= name < to`, in byte order. */
  names(after: string, from: string, to: string, limit: number): string[] {
    return (this.#names.values(after, from, to, limit) as [string][]).map(([name]) => name);
  }

  /** Counts `change` more topics of a kind. */
  count({ type, durability }: Pick<TopicKind, "type" | "durability">, change: number): void {
    this.#count.run(type, durability, change);
  }

  /** Counts all topics by what their settings say. Takes long where there are many. */
  recount(): void {
    this.#forgetKinds.run();
    this.#countKinds.run();
  }

  /** How many topics there are of each kind. */
  kinds(): TopicKind[] {
    const rows = this.#kinds.values() as [TopicType, Durability, number][];
    return rows.map(([type, durability, topics]) => ({ type, durability, topics }));
  }

  /** Adds a topic under a new epoch. */
  insert(name: string, config: string): TopicRow {
    const epoch = one(this.#nextEpoch.values());
    const slot = one(this.#takeFree.values(), this.#nextSlot);
    if (slot > SLOT_MAX) throw new Error(`all ${SLOT_MAX} storage slots for topics are in use`);
    this.#insert.run(slot, epoch, name, config, checksum(name, config));
    return { slot, epoch, name, config };
  }

  configure(slot: number, name: string, config: string): void {
    this.#configure.run(slot, config, checksum(name, config));
  }

  /** Gives every `ephemeral` topic a new epoch: after a crash their seqs start over. */
  renewEphemeralEpochs(): void {
    for (const [slot] of this.#ephemeral.values() as [number][]) this.#renew(slot);
  }

  /** Gives every topic a new epoch above `least`, for data that may have lost some. */
  renewEpochs(least: number): void {
    this.#raiseEpoch.run(least);
    for (const [slot] of this.#all.values() as [number][]) this.#renew(slot);
  }

  #renew(slot: number): void {
    this.#setEpoch.run(slot, one(this.#nextEpoch.values()));
  }

  /** Takes the name away and keeps the slot until its rows are removed. */
  drop(slot: number): void {
    this.#delete.run(slot);
    this.#drop.run(slot);
  }

  dropped(): number[] {
    return (this.#dropped.values() as [number][]).map(([slot]) => slot);
  }

  /** The rows of a dropped slot are gone: it may be used again. */
  free(slot: number): void {
    this.#undrop.run(slot);
    this.#free.run(slot);
  }
}

function toRow(rows: unknown[]): TopicRow | undefined {
  const [row] = rows as [number, number, string, string, number][];
  if (row === undefined) return undefined;
  const [slot, epoch, name, config, sum] = row;
  return { slot, epoch, name, config: sum === checksum(name, config) ? config : undefined };
}

const checksum = (name: string, config: string): number => Bun.hash.xxHash32(name + config);

function one(rows: unknown[], otherwise?: Statement): number {
  const [row] = rows as [number][];
  return row ? row[0] : one(otherwise!.values());
}
