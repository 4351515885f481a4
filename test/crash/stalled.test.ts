/** A stop while a client does not read its stream: it ends in time, and what the client was leased goes back. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { connect } from "node:net";
import { makeQueue } from "../support/queue.ts";
import { spawnServer } from "../support/spawn.ts";
import { absentTopic, timed, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

const JOBS = 12;

test("04 section 10 01 section 10 a reader that has stopped reading holds neither the stop nor its jobs", async () => {
  await using first = await spawnServer();
  const queue = await makeQueue(first, { leases_durable: true, lease_ms: 3_600_000 });
  // More than the buffers on the way can take.
  for (let n = 0; n < JOBS; n++) await queue.append("x".repeat(1_000_000));
  const socket = connect(Number(new URL(first.url).port), "127.0.0.1").pause();
  socket.on("error", () => {});
  await once(socket, "connect");
  socket.write(`GET ${queue.path}/work?node=stalled&max=${JOBS} HTTP/1.1\r\nHost: test\r\n\r\n`);
  await until(
    () => queue.counters(),
    ({ in_flight }) => in_flight > 0,
  );
  const { ms, answer: code } = await timed(() => first.stop());
  socket.destroy();
  await using second = await spawnServer({ dir: first.dir });
  const { body } = await absentTopic(second, queue.name).state();

  expect(code).toBe(0);
  // What is left after 10 s is dropped.
  expect(ms).toBeLessThan(12_000);
  expect(body).toMatchObject({ count: JOBS, queue: { ready: JOBS, in_flight: 0 } });
}, 30_000);
