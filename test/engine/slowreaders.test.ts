/** What is held for clients that are slow to take it: how much that may be, who is cut, and that nothing is left. */
import { afterEach, describe, expect, jest, setDefaultTimeout, test } from "bun:test";
import { begin } from "../../src/http/call.ts";
import { Commands } from "../../src/http/commands.ts";
import { anybody, Caller } from "../../src/http/keys.ts";
import { Socket } from "../../src/http/socket.ts";
import { utf8 } from "../../src/http/sse.ts";
import { Streams } from "../../src/http/streams.ts";
import { Turns } from "../../src/http/turns.ts";
import { append, HeldSyncs, records, TestEngine, turns } from "./setup.ts";

setDefaultTimeout(10_000);

afterEach(() => {
  jest.useRealTimers();
});

const fail = (error: unknown) => {
  throw error;
};

/** Streams whose slow clients may hold so much together. */
const bounded = (streamBytesMax: number, isCurrent = () => true, now = Date.now) =>
  new Streams({ streamsMax: 0, streamsPerKeyMax: 0, streamBytesMax }, new Turns(), isCurrent, now, fail);

/** A slow client that is only counted. */
class Counted {
  cuts = 0;
  readonly #streams: Streams;

  constructor(streams: Streams) {
    this.#streams = streams;
  }

  hold(bytes: number): void {
    this.#streams.hold(this, bytes);
  }

  cut(): void {
    this.cuts++;
    this.hold(0);
  }
}

const CHUNK = 200_000;
const chunk = "x".repeat(CHUNK);

/** An endless stream of large chunks, of which its client takes what the test reads. */
function slowStream(streams: Streams) {
  const leaving = new AbortController();
  const request = new Request("http://test/v0/topics/q/work", { signal: leaving.signal });
  const caller = new Caller([], [], { requests: 0, bodyBytes: 0, streams: 0 });
  begin(request).caller = caller;
  let returns = 0;
  let items = 0;
  const source = () => ({
    next: () => {
      items++;
      return { value: chunk, done: false as const };
    },
    return: () => returns++,
  });
  const ending = (code: string) => `the end: ${code}`;
  const response = streams.open(request, { caller, heartbeatMs: 3_600_000, source, spell: utf8, ending });
  return {
    response,
    caller,
    leave: () => leaving.abort(),
    /** Chunks that were asked for, and how often the source was told that nobody wants more. */
    counts: () => ({ items, returns }),
  };
}

describe("what slow clients hold together", () => {
  test("beyond the limit costs the one that holds most, and nobody else", () => {
    const streams = bounded(100);
    const clients = [30, 45, 10, 20].map((bytes) => [new Counted(streams), bytes] as const);
    for (const [client, bytes] of clients) client.hold(bytes);
    expect(clients.map(([{ cuts }]) => cuts)).toEqual([0, 1, 0, 0]);
    expect(streams.heldBytes).toBe(60);
  });

  test("costs nobody while it is within the limit", () => {
    const streams = bounded(100);
    const clients = [60, 40].map((bytes) => [new Counted(streams), bytes] as const);
    for (const [client, bytes] of clients) client.hold(bytes);
    clients[0]![0].hold(59);
    expect(clients.map(([{ cuts }]) => cuts)).toEqual([0, 0]);
    expect(streams.heldBytes).toBe(99);
  });

  test("costs whoever has grown, not whoever came before or after", () => {
    const streams = bounded(100);
    const [growing, slow] = [new Counted(streams), new Counted(streams)];
    growing.hold(10);
    slow.hold(20);
    for (const bytes of [30, 50, 70, 90]) growing.hold(bytes);
    expect([growing.cuts, slow.cuts]).toEqual([1, 0]);
    expect(streams.heldBytes).toBe(20);
  });

  test("costs whoever holds some for long, not whoever has just come with more", () => {
    let now = 0;
    const streams = bounded(
      100,
      () => true,
      () => now,
    );
    const [stalled, large] = [new Counted(streams), new Counted(streams)];
    stalled.hold(30);
    now = 5000;
    large.hold(80);
    expect([stalled.cuts, large.cuts]).toEqual([1, 0]);
    expect(streams.heldBytes).toBe(80);
  });

  test("may be more than the limit of one that is alone, which would never get on otherwise", () => {
    const streams = bounded(100);
    const [alone, next] = [new Counted(streams), new Counted(streams)];
    alone.hold(500);
    expect([alone.cuts, streams.heldBytes]).toEqual([0, 500]);
    next.hold(10);
    expect([alone.cuts, next.cuts, streams.heldBytes]).toEqual([1, 0, 10]);
  });

  test("has no limit where none is set", () => {
    const streams = bounded(0);
    const client = new Counted(streams);
    client.hold(1e12);
    expect([client.cuts, streams.heldBytes]).toEqual([0, 1e12]);
  });

  test("is counted down to nothing, whatever they do", () => {
    const streams = bounded(100);
    const clients = Array.from({ length: 10 }, () => new Counted(streams));
    for (let i = 0; i < 500; i++) {
      clients[(i * 7) % 10]!.hold((i * 37) % 90);
      expect(streams.heldBytes).toBeLessThanOrEqual(100);
    }
    for (const client of clients) client.hold(0);
    expect(streams.heldBytes).toBe(0);
  });
});

describe("a stream", () => {
  test("whose client takes nothing holds what it was sent, and no more", async () => {
    const streams = bounded(0);
    const { counts } = slowStream(streams);
    await turns();
    expect(streams.heldBytes).toBe(CHUNK);
    expect(counts()).toEqual({ items: 1, returns: 0 });
  });

  test("goes on when its client has taken what was held", async () => {
    const streams = bounded(0);
    const { response, counts } = slowStream(streams);
    await turns();
    const reader = response.body!.getReader();
    let taken = 0;
    while (taken < CHUNK + 10) taken += (await reader.read()).value!.length;
    await turns();
    expect(counts().items).toBe(2);
    expect(streams.heldBytes).toBe(CHUNK);
    await reader.cancel();
    await turns();
    expect([streams.heldBytes, streams.count]).toEqual([0, 0]);
  });

  test("whose client has left holds nothing", async () => {
    const streams = bounded(0);
    const { leave, counts } = slowStream(streams);
    await turns();
    leave();
    await turns();
    expect([streams.heldBytes, streams.count]).toEqual([0, 0]);
    expect(counts()).toEqual({ items: 1, returns: 1 });
  });

  test("that is ended holds nothing, and says why", async () => {
    let isCurrent = true;
    const streams = bounded(0, () => isCurrent);
    const { response } = slowStream(streams);
    await turns();
    isCurrent = false;
    streams.review();
    expect([streams.heldBytes, streams.count]).toEqual([0, 0]);
    expect(await response.text()).toEndWith("xthe end: unauthorized");
  });

  test("that is cut as soon as it is held leaves nothing behind", async () => {
    jest.useFakeTimers();
    const streams = bounded(CHUNK);
    new Counted(streams).hold(1);
    const { response, caller, counts } = slowStream(streams);
    for (let i = 0; i < 50; i++) await Promise.resolve();
    expect([streams.heldBytes, streams.count, caller.usage.streams]).toEqual([1, 0, 0]);
    expect(counts()).toEqual({ items: 1, returns: 1 });
    expect(jest.getTimerCount()).toBe(0);
    await expect(response.text()).rejects.toThrow("slow");
  });

  test("beside others is cut alone, until what all hold is below the limit", async () => {
    const streams = bounded(3 * CHUNK);
    const opened = [];
    for (let i = 1; i <= 8; i++) {
      opened.push(slowStream(streams));
      await turns();
      expect(streams.heldBytes).toBe(Math.min(i, 3) * CHUNK);
      expect(streams.count).toBe(Math.min(i, 3));
    }
    for (const { leave } of opened) leave();
    await turns();
    expect([streams.heldBytes, streams.count]).toEqual([0, 0]);
    expect(opened.map(({ counts }) => counts().returns)).toEqual(Array(8).fill(1));
  });

  test("whose client takes nothing for 60 s ends behind what it was sent", async () => {
    jest.useFakeTimers();
    const streams = bounded(0);
    const { response } = slowStream(streams);
    for (let i = 0; i < 50; i++) await Promise.resolve();
    jest.advanceTimersByTime(59_999);
    const before = [streams.heldBytes, streams.count];
    jest.advanceTimersByTime(1);
    expect(before).toEqual([CHUNK, 1]);
    expect([streams.heldBytes, streams.count]).toEqual([0, 0]);
    jest.useRealTimers();
    expect(await response.text()).toBe(`retry: 2000\n\n${chunk}the end: slow_consumer`);
  });
});

describe("a socket", () => {
  /** The server's side of a socket whose client takes everything, or nothing. */
  class Peer {
    readonly sent: string[] = [];
    buffered = 0;
    takes = true;
    terminated = false;

    send(text: string): number {
      this.sent.push(text);
      if (!this.takes) this.buffered += text.length;
      return text.length;
    }

    cork(say: () => void): void {
      say();
    }

    getBufferedAmount(): number {
      return this.buffered;
    }

    terminate(): void {
      this.terminated = true;
    }

    close(): void {}
  }

  function opened(streams: Streams, open = new TestEngine()) {
    const { engine } = open;
    const { log, watch } = engine;
    const follower = watch.socket();
    const parts = { log, watch, follower, caller: anybody, unexpected: fail };
    const socket = new Socket(streams, follower, new Commands(parts), () => {});
    const peer = new Peer();
    const ws = peer as unknown as Bun.ServerWebSocket<unknown>;
    socket.open(ws);
    const say = (command: object): number => {
      const text = JSON.stringify(command);
      socket.message(ws, text);
      return text.length;
    };
    return Object.assign(open, { socket, peer, ws, say });
  }

  test.each([1, 2, 20])("holds %d messages until they are answered", async (n) => {
    const streams = bounded(0);
    using open = opened(streams);
    const { engine, store, peer, say } = open;
    await append(engine, "t", records(1), { durability: "fsync" });
    const syncs = new HeldSyncs(store);
    const publish = { op: "publish", topic: "t", records: [{ data: "x".repeat(10_000) }] };
    let said = 0;
    for (let i = 0; i < n; i++) said += say(publish);
    await turns();
    const held = streams.heldBytes;
    const answered = peer.sent.length;
    while (peer.sent.length < n) {
      while (syncs.count > 0) syncs.finish();
      await turns();
    }
    await turns();

    expect(held).toBeGreaterThanOrEqual(said);
    expect(answered).toBe(0);
    expect(streams.heldBytes).toBe(0);
  });

  test("that is sent too much to answer is cut, and then holds nothing", async () => {
    const streams = bounded(50_000);
    new Counted(streams).hold(1);
    using open = opened(streams);
    const { engine, store, peer, say } = open;
    await append(engine, "t", records(1), { durability: "fsync" });
    const syncs = new HeldSyncs(store);
    const publish = { op: "publish", topic: "t", records: [{ data: "x".repeat(10_000) }] };
    for (let i = 0; i < 4; i++) say(publish);
    await turns();
    const before = peer.terminated;
    for (let i = 0; i < 3; i++) say(publish);
    const after = peer.terminated;
    while (syncs.count > 0) syncs.finish();
    await turns();

    expect([before, after]).toEqual([false, true]);
    expect(peer.sent).toEqual([]);
    expect(streams.heldBytes).toBe(1);
  });

  test("whose client takes nothing holds what it was sent, until it takes it", async () => {
    const streams = bounded(0);
    using open = opened(streams);
    const { engine, socket, peer, ws, say } = open;
    await append(engine, "t", records(3, null, JSON.stringify("x".repeat(10_000))));
    peer.takes = false;
    say({ op: "subscribe", topic: "t" });
    while (peer.sent.length < 1) await turns();
    await turns();
    const held = streams.heldBytes;
    const sent = peer.sent.length;
    peer.buffered = 0;
    peer.takes = true;
    socket.drain(ws);
    while (peer.sent.length < 3) await turns();

    expect(held).toBeGreaterThan(0);
    expect(sent).toBe(1);
    expect(streams.heldBytes).toBe(0);
  });
});
