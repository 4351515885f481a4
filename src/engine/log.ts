/** What clients do with the records of a topic: append, read, delete. */
import { ApiError, invalid } from "../contract/errors.ts";
import {
  BATCH_RECORDS_MAX,
  DIFF_WAIT_MS_MAX,
  IDEMPOTENCY_KEY_BYTES_MAX,
  META_BYTES_MAX,
  META_KEYS_MAX,
  NODE_BYTES_MAX,
  RECORD_BYTES_MAX,
  SAFE_INTEGER_MAX,
  TAG_BYTES_MAX,
} from "../contract/limits.ts";
import type {
  Append,
  Appended,
  DeleteRecords,
  Diff,
  DiffPage,
  RecordInput,
  RecordsDeleted,
} from "../contract/records.ts";
import { recordBytes, type StoredRecord } from "../store/records.ts";
import type { TagRange } from "../store/tagdeletes.ts";
import type { Bell } from "./bell.ts";
import type { Counted, RecordsRemoved } from "./commands.ts";
import type { Commits } from "./commit.ts";
import { addByBlock, DELETE_AT_ONCE_MAX } from "./deletion.ts";
import { InTurn } from "./inturn.ts";
import { liveUpTo, type Tally, taggedRows } from "./live.ts";
import { Pace } from "./pace.ts";
import { type Run, sizeOf, type Window } from "./reader.ts";
import type { Reading } from "./reading.ts";
import { inFull, tagRange } from "./tags.ts";
import type { Topic } from "./topic.ts";
import type { Topics } from "./topics.ts";

/** What an append cost, in ms. Absent for a deduplicated one. */
export interface AppendCost {
  readonly wal_append_ms: number;
  readonly fsync_ms: number;
}

/** An answer to a diff. `records` is JSON, joined by commas; `waitedMs` is what the client asked to wait. */
export interface DiffAnswer {
  readonly records: string;
  readonly recordsScanned: number;
  readonly waitedMs: number;
  readonly page: Omit<DiffPage, "records">;
}

export class Log {
  readonly #topics: Topics;
  readonly #commits: Commits;
  readonly #reading: Reading;
  readonly #bell: Bell;
  readonly #now: () => number;
  /** Deletes by tag of one topic run one after another. */
  readonly #deletes = new InTurn();

  constructor(topics: Topics, commits: Commits, reading: Reading, bell: Bell, now: () => number) {
    this.#topics = topics;
    this.#reading = reading;
    this.#commits = commits;
    this.#bell = bell;
    this.#now = now;
  }

  /**
   * Appends all records or none. `headerKey` is used where the body names no idempotency key.
   *
   * Throws `invalid_request`, `batch_too_large`, `record_too_large`, `topic_not_found`, `topic_full`, `throttled`.
   */
  async append(
    topic: string,
    request: Append,
    headerKey: string | null,
    returnSeqs: boolean,
  ): Promise<{ appended: Appended; cost: AppendCost | undefined }> {
    if (request.records.length === 0) throw invalid("records: at least one is needed");
    if (request.records.length > BATCH_RECORDS_MAX) throw new ApiError("batch_too_large", {});
    const key = request.idempotency_key ?? headerKey;
    if (key !== null && Buffer.byteLength(key) > IDEMPOTENCY_KEY_BYTES_MAX) {
      throw invalid(`idempotency_key: longer than ${IDEMPOTENCY_KEY_BYTES_MAX} bytes`);
    }
    const records = newRecords(request.records, request.node ?? null);
    const config = request.config ?? {};
    const create = request.create ?? config.auto_create ?? true;
    const command = { kind: "append" as const, topic, records, key, create, config, now: this.#now() };
    const { outcome, appendMs, fsyncMs } = await this.#commits.submit(command);
    const { epoch, firstSeq, count, head, created, deduped } = outcome;
    const appended: Appended = {
      topic,
      epoch,
      first_seq: firstSeq,
      last_seq: firstSeq + count - 1,
      head_seq: head,
      count,
      created,
      deduped,
    };
    if (returnSeqs) appended.seqs = Array.from({ length: count }, (_, i) => firstSeq + i);
    return { appended, cost: deduped ? undefined : { wal_append_ms: appendMs, fsync_ms: fsyncMs } };
  }

  /**
   * Reads records after `from_seq`; with `wait_ms`, waits for some until `signal`, which is asked for only then.
   * Throws `topic_not_found`, `internal`.
   */
  async diff(name: string, request: Diff, signal: () => AbortSignal): Promise<DiffAnswer> {
    const { topic, run } = await this.#read(name, request);
    const waitMs = Math.min(request.wait_ms ?? 0, DIFF_WAIT_MS_MAX);
    if (waitMs === 0 || run.count > 0 || run.tombstone || run.next !== run.head) return answer(topic, run, 0);
    // The read may have let others run; what came in since must not be slept through.
    const missed = topic.deleted || topic.log.head > run.head;
    const start = performance.now();
    const woken = missed || (await this.#bell.wait(topic, waitMs, signal()));
    const waitedMs = performance.now() - start;
    if (!woken) return answer(topic, run, waitedMs);
    const again = await this.#read(name, { epoch: topic.epoch, ...request });
    return answer(again.topic, again.run, waitedMs);
  }

  /** Of whatever topic it reads first, it reads no other one without saying so. */
  async #read(name: string, request: Diff): Promise<{ topic: Topic; run: Run }> {
    let { epoch } = request;
    const { topic, run } = await this.#reading.read(name, (topic) => {
      epoch ??= topic.epoch;
      return windowOf({ ...request, epoch }, topic);
    });
    if (run.damaged !== undefined) throw new ApiError("internal", { topic: name, seq: run.damaged });
    await topic.unsynced;
    return { topic, run };
  }

  /** Deletes records by position, by tag, or both. Throws `invalid_request`, `topic_not_found`. */
  async delete(topic: string, request: DeleteRecords): Promise<RecordsDeleted> {
    const before = request.before_seq ?? null;
    const match = request.match ?? null;
    if (before === null && match === null) throw invalid("before_seq or match is needed");
    const removed =
      match === null
        ? await this.#deleteBefore(topic, before!)
        : await this.#deletes.run(topic, () =>
            this.#deleteTagged(topic, tagRange(inFull(match, "match")), before ?? SAFE_INTEGER_MAX),
          );
    const { deleted, earliest: earliest_seq, head: head_seq, count, bytes } = removed;
    return { topic, deleted, earliest_seq, head_seq, count, bytes };
  }

  async #deleteBefore(topic: string, before: number): Promise<RecordsRemoved> {
    const { outcome } = await this.#commits.submit({
      kind: "delete_before",
      topic,
      before,
      now: this.#now(),
    });
    return outcome;
  }

  /** A large delete is counted first, a slice at a time, so that its one command is short. */
  async #deleteTagged(name: string, range: TagRange, before: number): Promise<RecordsRemoved> {
    const topic = this.#topics.existing(name);
    const { epoch } = topic;
    const upTo = Math.min(before - 1, topic.log.head);
    const counted = await count(topic, range, upTo);
    const command = { kind: "delete_tagged" as const, topic: name, epoch, range, upTo, now: this.#now() };
    const { outcome } = await this.#commits.submit(counted ? { ...command, counted } : command);
    return outcome;
  }
}

/** What a delete covers; undefined if that is so little to look at that the command can do it itself. */
async function count(topic: Topic, range: TagRange, upTo: number): Promise<Counted | undefined> {
  const blocks = new Map<number, Tally>();
  const pace = new Pace(1);
  let scanned = 0;
  let start = performance.now();
  for (const rows of taggedRows(topic, range, upTo, () => pace.rows)) {
    scanned += rows.length;
    addByBlock(blocks, liveUpTo(topic, rows, upTo));
    if (scanned > DELETE_AT_ONCE_MAX) await Bun.sleep(pace.rest(performance.now() - start));
    start = performance.now();
  }
  return scanned > DELETE_AT_ONCE_MAX ? blocks : undefined;
}

function newRecords(inputs: readonly RecordInput[], batchNode: string | null): StoredRecord[] {
  return inputs.map((input, i) => {
    const tag = bounded(input.tag ?? null, TAG_BYTES_MAX, i, "tag");
    const node = bounded(input.node ?? batchNode, NODE_BYTES_MAX, i, "node");
    const meta = checkedMeta(input.meta ?? "null", i);
    const { data } = input;
    const bytes = recordBytes(data, meta);
    if (bytes > RECORD_BYTES_MAX) throw new ApiError("record_too_large", {});
    return { data, tag, node, meta, bytes };
  });
}

/** The JSON text of a string that is short enough. */
function bounded(value: string | null, bytesMax: number, record: number, field: string): string | null {
  if (value === null) return null;
  if (Buffer.byteLength(value) > bytesMax)
    throw invalid(`records[${record}].${field}: longer than ${bytesMax} bytes`);
  return JSON.stringify(value);
}

function checkedMeta(meta: string, record: number): string | null {
  if (meta === "null") return null;
  if (Buffer.byteLength(meta) > META_BYTES_MAX) {
    throw invalid(`records[${record}].meta: longer than ${META_BYTES_MAX} bytes`);
  }
  // Only a text of some length can hold too many keys.
  const keys =
    meta.startsWith("{") && meta.length > 4 * META_KEYS_MAX ? Object.keys(JSON.parse(meta)).length : 0;
  if (keys > META_KEYS_MAX) throw invalid(`records[${record}].meta: more than ${META_KEYS_MAX} keys`);
  return meta;
}

function windowOf(request: Diff, topic: Topic): Window {
  const { node } = request;
  const nodes = typeof node === "string" ? [node] : (node ?? []);
  return {
    fromSeq: request.from_seq ?? 0,
    ...sizeOf(request.limit ?? 0, request.max_batch_bytes ?? 0),
    view: { tags: request.include_tags ?? false, meta: request.include_meta ?? true, data: true },
    withoutNodes: new Set(topic.config.dedupe_node ? nodes.map((name) => JSON.stringify(name)) : []),
    epoch: request.epoch,
  };
}

const answer = (topic: Topic, run: Run, waitedMs: number): DiffAnswer => ({
  records: run.records,
  recordsScanned: run.scanned,
  waitedMs,
  page: {
    topic: topic.name,
    epoch: topic.epoch,
    next_from_seq: run.next,
    head_seq: run.head,
    earliest_seq: run.earliest,
    caught_up: run.next === run.head,
    tombstone: run.tombstone,
    lag: run.head - run.next,
  },
});
