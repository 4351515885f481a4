/** How long a token holds, and what becomes of open streams when a key is taken away. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { configFrom } from "../../src/config.ts";
import { Keys } from "../../src/http/keys.ts";
import { Tokens } from "../../src/http/tokens.ts";
import { createLogger } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import { EventStream } from "../support/eventstream.ts";
import { send } from "../support/request.ts";
import { SocketClient } from "../support/socket.ts";
import { temporaryDirectory } from "../support/spawn.ts";

setDefaultTimeout(20_000);

describe("a token for a second", () => {
  test.each([0, 1, 500, 998, 999])("holds for all of it, issued %d ms behind a full second", async (ms) => {
    const issued = 1_800_000_000_000 + ms;
    let now = issued;
    const keys = new Keys([{ name: "test", text: "secret" }]);
    const tokens = new Tokens(keys, new Uint8Array(32), () => now);
    const caller = keys.holderOf(Buffer.from("secret"))!;
    const { token, expires_at } = await tokens.issue(caller, { topics: ["t"], ttl_ms: 1000 });
    const holds: boolean[] = [];
    for (const after of [0, 1, 500, 999, 1000, 1001]) {
      now = issued + after;
      holds.push((await tokens.holderOf(token)) !== undefined);
    }
    expect(expires_at).toBe(issued + 1000);
    expect(holds).toEqual([true, true, true, true, false, false]);
  });
});

describe("a key that is taken away", () => {
  /** A server whose keys the test can write anew. */
  async function withKeys(...keys: string[]) {
    await using parts = new AsyncDisposableStack();
    const dir = parts.use(await temporaryDirectory());
    const file = join(dir.path, "keys");
    await writeFile(file, keys.join("\n"));
    const config = configFrom({
      TOPICS_DATA_DIR: join(dir.path, "data"),
      TOPICS_PORT: "0",
      TOPICS_API_KEYS_FILE: file,
      RUST_LOG: "error",
    });
    const server = parts.use(
      await startServer(config, createLogger(config.logLevel), (reason) => {
        throw reason;
      }),
    );
    const url = `http://${server.address}`;
    const kept = parts.move();
    return {
      url,
      call: (key: string, method: string, path: string, body?: unknown) =>
        send(url, method, path, body, { authorization: `Bearer ${key}` }),
      async renew(...keys: string[]) {
        await writeFile(file, keys.join("\n"));
        server.reloadKeys();
      },
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  }

  /** Every kind of stream that a key can open, at the head of `t`. */
  async function streamsOf({ url, call }: Awaited<ReturnType<typeof withKeys>>, key: string) {
    const headers = { authorization: `Bearer ${key}` };
    const { token } = (
      await call(key, "POST", "/v0/tokens", { topics: ["t", "jobs"], scopes: ["read", "write"] })
    ).body;
    const { stream_url } = (await call(key, "POST", "/v0/watch", { topics: { t: {} } })).body;
    const following = await Promise.all([
      EventStream.open(url, "/v0/topics/t/stream", headers),
      EventStream.open(url, stream_url, headers),
      EventStream.open(url, `/v0/topics/t/stream?token=${token}`),
    ]);
    for (const stream of following) await stream.events(2);
    const working = await EventStream.open(url, "/v0/topics/jobs/work?node=n", headers);
    const socket = await SocketClient.open(url, headers);
    await socket.ask({ op: "subscribe", topic: "t" });
    await socket.take("caught_up");
    await socket.arrived();
    const close = async () => {
      for (const stream of [...following, working]) await stream.close();
      await socket.close();
    };
    return { following, working, socket, [Symbol.asyncDispose]: close };
  }

  test("ends all its streams, those of its tokens and its sockets, and no others", async () => {
    await using server = await withKeys("one", "two");
    await server.call("one", "POST", "/v0/topics/t", { records: [{ data: 1 }] });
    await server.call("one", "PUT", "/v0/topics/jobs", { type: "queue" });
    await using staying = await streamsOf(server, "one");
    await using ending = await streamsOf(server, "two");
    await server.renew("one");
    const last = await Promise.all([...ending.following, ending.working].map((stream) => stream.rest()));
    const { messages, ending: closed } = await ending.socket.ended();
    await server.call("one", "POST", "/v0/topics/t", { records: [{ data: 2 }] });
    const further = await Promise.all(staying.following.map((stream) => stream.events(2)));
    const record = await staying.socket.take("record");

    for (const rest of last) {
      expect(rest).toContain("event: error\n");
      expect(rest).toContain('"code":"unauthorized"');
    }
    expect(messages.map(({ body }) => body)).toEqual([
      { op: "error", code: "unauthorized", message: expect.any(String) },
    ]);
    expect(closed.code).toBe(1008);
    expect(further.map(([first]) => first!.body.to_seq)).toEqual([2, 2, 2]);
    expect(record.to_seq).toBe(2);
    expect(staying.working.ended).toBe(false);
  });

  test.each([
    ["fewer scopes", "two:write"],
    ["other names", "two:rw:other"],
    ["less of both", "two:write:other"],
  ])("or now has %s ends them, too", async (_, entry) => {
    await using server = await withKeys("one", "two:rw");
    await server.call("one", "POST", "/v0/topics/t", { records: [{ data: 1 }] });
    await server.call("one", "PUT", "/v0/topics/jobs", { type: "queue" });
    await using ending = await streamsOf(server, "two");
    await server.renew("one", entry);
    const last = await Promise.all([...ending.following, ending.working].map((stream) => stream.rest()));
    for (const rest of last) expect(rest).toContain('"code":"unauthorized"');
    expect((await ending.socket.ended()).ending.code).toBe(1008);
  });

  test("and is given in another spelling, with the same rights, ends nothing", async () => {
    await using server = await withKeys("one", "two:rw:t|jobs");
    await server.call("one", "POST", "/v0/topics/t", { records: [{ data: 1 }] });
    await server.call("one", "PUT", "/v0/topics/jobs", { type: "queue" });
    await using staying = await streamsOf(server, "two");
    await server.renew("two: write + READ : jobs | t ", "three", "one");
    await server.call("one", "POST", "/v0/topics/t", { records: [{ data: 2 }] });
    const further = await Promise.all(staying.following.map((stream) => stream.events(2)));
    expect(further.map(([first]) => first!.body.to_seq)).toEqual([2, 2, 2]);
    expect((await staying.socket.take("record")).to_seq).toBe(2);
  });

  test("and given back later does not bring its streams back to life", async () => {
    await using server = await withKeys("one", "two");
    await server.call("one", "POST", "/v0/topics/t", { records: [{ data: 1 }] });
    const stream = await EventStream.open(server.url, "/v0/topics/t/stream", { authorization: "Bearer two" });
    await stream.events(2);
    await server.renew("one");
    await server.renew("one", "two");
    expect(await stream.rest()).toContain('"code":"unauthorized"');
    const again = await EventStream.open(server.url, "/v0/topics/t/stream", { authorization: "Bearer two" });
    expect((await again.events(2)).map(({ event }) => event)).toEqual(["record", "caught-up"]);
    await again.close();
  });
});
