/**
 * A table of jobs in PostgreSQL as the loads use it: claimed with FOR UPDATE SKIP LOCKED, deleted when done.
 * The partial index was the fastest way to find waiting jobs among those tried.
 */
import { type ReservedSQL, SQL } from "bun";
import { click } from "./client.ts";
import {
  BATCH_JOBS,
  CLAIM_JOBS,
  type Finished,
  inBatches,
  type JobQueue,
  PRODUCERS,
  WORKERS,
} from "./jobs.ts";

export async function openTable(url: string): Promise<JobQueue> {
  const sql = new SQL(url, { max: WORKERS });
  await sql`CREATE TABLE jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    data jsonb NOT NULL,
    node text,
    deadline timestamptz,
    deliveries integer NOT NULL DEFAULT 0
  )`;
  await sql`CREATE INDEX waiting ON jobs (id) WHERE node IS NULL`;
  const connections = await Promise.all(Array.from({ length: WORKERS }, () => sql.reserve()));
  const producers = connections.slice(0, PRODUCERS);
  return {
    produce: (count) => inBatches(producers, count, insert),
    hire: async () => ({
      finish: (count) => finish(connections, count),
      [Symbol.asyncDispose]: async () => {},
    }),
    [Symbol.asyncDispose]: async () => {
      for (const connection of connections) connection.release();
      await sql.close();
    },
  };
}

async function insert(connection: ReservedSQL, first: number): Promise<void> {
  const batch = Array.from({ length: BATCH_JOBS }, (_, i) => JSON.stringify(click(first + i)));
  await connection`INSERT INTO jobs (data) SELECT unnest(${connection.array(batch, "TEXT")}::text[])::jsonb`;
}

async function finish(connections: ReservedSQL[], count: number): Promise<Finished> {
  const claimsMs: number[] = [];
  let waiting = count;
  const work = async (connection: ReservedSQL, i: number) => {
    let done = 0;
    while (waiting > 0) {
      const askedAt = performance.now();
      const jobs = await claim(connection, `worker-${i}`);
      claimsMs.push(performance.now() - askedAt);
      if (jobs.length === 0) continue;
      waiting -= jobs.length;
      const ids = `{${jobs.map(({ id }) => id).join()}}`;
      const { count: deleted } = await connection`DELETE FROM jobs WHERE id = ANY(${ids}::bigint[])`;
      if (deleted !== jobs.length) throw new Error(`${deleted} of ${ids} were deleted`);
      done += jobs.length;
    }
    return done;
  };
  return { claimsMs, jobsOfWorkers: await Promise.all(connections.map(work)) };
}

const claim = (connection: ReservedSQL, node: string): Promise<{ id: string; data: unknown }[]> =>
  connection`UPDATE jobs SET node = ${node}, deadline = now() + interval '30 s', deliveries = deliveries + 1
    WHERE id IN (
      SELECT id FROM jobs WHERE node IS NULL ORDER BY id FOR UPDATE SKIP LOCKED LIMIT ${CLAIM_JOBS}
    )
    RETURNING id, data`;
