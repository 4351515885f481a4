/** The WebSocket byte by byte: frames, control frames, violations, sizes, and clients that stop reading or vanish. */
import { describe, expect, test } from "bun:test";
import { attempt } from "../support/eventstream.ts";
import { startServer } from "../support/server.ts";
import { frame, opcodes, type RawFrame, RawWebSocket, SocketClient } from "../support/socket.ts";
import { newTopic, type Sender, sharedServer, type Topic, together, until } from "../support/topics.ts";

const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;
const PING = '{"op":"ping","request_id":1}';
const pong = { op: "pong", request_id: 1 };

const server = sharedServer();
const open = () => RawWebSocket.open(server.url);

const bytes = (...values: number[]) => Uint8Array.from(values);
const text = (payload: string | Uint8Array, options = {}) => frame(opcodes.text, payload, options);
const continuation = (payload: string | Uint8Array, options = {}) =>
  frame(opcodes.continuation, payload, options);

/** The server still answers on this socket. */
async function expectAlive(socket: RawWebSocket): Promise<void> {
  socket.write(text('{"op":"ping","request_id":"alive"}'));
  expect(await socket.body()).toEqual({ op: "pong", request_id: "alive" });
}

/** The connection has ended, with no more words than a Close with one of the codes. */
async function expectEnded(socket: RawWebSocket, ...codes: number[]): Promise<void> {
  const frames = await socket.rest();
  for (const { opcode, payload } of frames) {
    expect(opcode).toBe(opcodes.close);
    expect(codes).toContain(payload.readUInt16BE(0));
  }
  expect(frames.length).toBeLessThanOrEqual(1);
}

/** A ping whose text has so many bytes. */
function pingOf(length: number): Buffer {
  const head = '{"op":"ping","request_id":1,"pad":"';
  const message = Buffer.alloc(length, "x");
  message.write(head);
  message.write('"}', length - 2);
  return message;
}

describe("a message", () => {
  test("05.54 is answered by one whole text frame without mask", async () => {
    using socket = await open();
    socket.write(text(PING));
    const { fin, reserved, opcode, masked, payload } = await socket.next();
    expect({ fin, reserved, opcode, masked }).toEqual({ fin: true, reserved: 0, opcode: 1, masked: false });
    expect(JSON.parse(payload.toString())).toEqual(pong);
  });

  test.each([
    ["two", ['{"op":"ping",', '"request_id":1}']],
    ["one for each byte", [...PING]],
    ["some without any byte", ["", PING.slice(0, 5), "", PING.slice(5), ""]],
  ])("05.54 in fragments is one message: %s", async (_, parts) => {
    using socket = await open();
    parts.forEach((part, i) => {
      const fin = i === parts.length - 1;
      socket.write(i === 0 ? text(part, { fin }) : continuation(part, { fin }));
    });
    expect(await socket.body()).toEqual(pong);
    await expectAlive(socket);
  });

  test("05.54 in fragments may break in the middle of a character", async () => {
    using socket = await open();
    const message = Buffer.from('{"op":"ping","request_id":"é😀"}');
    const at = message.indexOf(Buffer.from("😀")) + 2;
    socket.write(text(message.subarray(0, at), { fin: false }));
    socket.write(continuation(message.subarray(at)));
    expect(await socket.body()).toEqual({ op: "pong", request_id: "é😀" });
  });

  test("05.54 in fragments lets control frames in between", async () => {
    using socket = await open();
    socket.write(text(PING.slice(0, 4), { fin: false }));
    socket.write(frame(opcodes.ping, "between"));
    expect(await socket.next()).toMatchObject({ opcode: opcodes.pong, payload: Buffer.from("between") });
    socket.write(frame(opcodes.pong, "ignored"));
    socket.write(continuation(PING.slice(4)));
    expect(await socket.body()).toEqual(pong);
  });

  test("05.54 may come in any pieces of TCP, and several in one", async () => {
    using socket = await open();
    const message = text(PING);
    for (const byte of message) {
      socket.write(bytes(byte));
      await Bun.sleep(0);
    }
    expect(await socket.body()).toEqual(pong);
    socket.write(Buffer.concat([message, message, message, message.subarray(0, 7)]));
    for (let n = 0; n < 3; n++) expect(await socket.body()).toEqual(pong);
    socket.write(message.subarray(7));
    expect(await socket.body()).toEqual(pong);
  });

  test("05.54 in binary is unsupported, also in fragments", async () => {
    using socket = await open();
    socket.write(frame(opcodes.binary, PING));
    socket.write(frame(opcodes.binary, bytes(0xff), { fin: false }));
    socket.write(continuation(bytes(0xfe)));
    for (let n = 0; n < 2; n++) {
      expect(await socket.body()).toStrictEqual({
        op: "error",
        code: "unsupported_message",
        message: expect.stringMatching(/./),
      });
    }
    await expectAlive(socket);
  });
});

describe("a control frame", () => {
  test.each([0, 1, 125])("05.54 a ping of %d bytes gets one pong with the same", async (length) => {
    using socket = await open();
    const payload = Buffer.from(Array.from({ length }, (_, i) => (i * 37) & 255));
    socket.write(frame(opcodes.ping, payload));
    const answer = await socket.next();
    expect(answer).toEqual({ fin: true, reserved: 0, opcode: opcodes.pong, masked: false, payload });
    await expectAlive(socket);
  });

  test("05 section 4.6 pings are answered in order, between the answers to commands", async () => {
    using socket = await open();
    for (let n = 0; n < 50; n++) {
      socket.write(frame(opcodes.ping, `${n}`));
      socket.say({ op: "ping", request_id: n });
    }
    const frames: RawFrame[] = [];
    while (frames.length < 100) frames.push(await socket.next());
    const expected = Array.from({ length: 50 }, (_, n) => n);
    const pongs = frames.filter(({ opcode }) => opcode === opcodes.pong);
    expect(pongs.map(({ payload }) => Number(payload.toString()))).toEqual(expected);
    const texts = frames.filter(({ opcode }) => opcode === opcodes.text);
    expect(texts.map(({ payload }) => JSON.parse(payload.toString()).request_id)).toEqual(expected);
  });

  test("05 section 4.6 a pong that nobody asked for is ignored", async () => {
    using socket = await open();
    socket.write(frame(opcodes.pong));
    socket.write(frame(opcodes.pong, "unasked"));
    await expectAlive(socket);
  });

  test.each([
    ["a code", bytes(0x03, 0xe8)],
    ["a code and a reason", Buffer.concat([bytes(0x03, 0xe8), Buffer.from("bye é")])],
    ["a code of an application", bytes(0x0f, 0xa0)],
    ["nothing", bytes()],
  ])(
    "05 section 4.6 a close with %s is answered by a close, then the connection ends",
    async (_, payload) => {
      using socket = await open();
      socket.write(frame(opcodes.close, payload));
      const frames = await socket.rest();
      expect(frames).toMatchObject([{ fin: true, reserved: 0, opcode: opcodes.close, masked: false }]);
      const said = frames[0]!.payload;
      if (said.length > 0 && payload.length > 0)
        expect(said.readUInt16BE(0)).toBe(Buffer.from(payload).readUInt16BE(0));
    },
  );

  test("05 section 4.6 commands before a close are answered, those behind it are not", async () => {
    using socket = await open();
    const command = Buffer.concat([text(PING), frame(opcodes.close, bytes(0x03, 0xe8)), text(PING)]);
    socket.write(command);
    const frames = await socket.rest();
    expect(frames.map(({ opcode }) => opcode)).toEqual([opcodes.text, opcodes.close]);
  });
});

describe("a violation", () => {
  const broken: [what: string, frames: Buffer[]][] = [
    ["a frame without mask", [text(PING, { masked: false })]],
    ["a ping without mask", [frame(opcodes.ping, "", { masked: false })]],
    ["the first reserved bit", [text(PING, { reserved: 4 })]],
    ["the second reserved bit", [text(PING, { reserved: 2 })]],
    ["the third reserved bit", [text(PING, { reserved: 1 })]],
    ["a reserved bit of a ping", [frame(opcodes.ping, "", { reserved: 4 })]],
    ["opcode 3", [frame(3, PING)]],
    ["opcode 7", [frame(7, PING)]],
    ["opcode 11", [frame(11)]],
    ["opcode 15", [frame(15)]],
    ["a continuation of nothing", [continuation(PING)]],
    ["a continuation behind the end", [text("{}", { fin: false }), continuation(""), continuation("")]],
    ["a text inside a text", [text('{"op":', { fin: false }), text('"ping"}')]],
    ["a binary inside a text", [text('{"op":', { fin: false }), frame(opcodes.binary, '"ping"}')]],
    ["a ping of 126 bytes", [frame(opcodes.ping, "x".repeat(126))]],
    ["a close of 126 bytes", [frame(opcodes.close, "x".repeat(126))]],
    ["a ping in fragments", [frame(opcodes.ping, "x", { fin: false })]],
    ["a close of one byte", [frame(opcodes.close, bytes(3))]],
  ];
  test.each(broken)("05 section 4.6 %s ends the connection", async (_, frames) => {
    using socket = await open();
    using bystander = await open();
    await expectAlive(socket);
    for (const bytes of frames) socket.write(bytes);
    // One message of two examples is complete, and wrong, before the violation.
    const rest = (await socket.rest()).filter(({ opcode }) => opcode !== opcodes.text);
    expect(rest.map(({ opcode, payload }) => [opcode, payload.readUInt16BE(0)])).toEqual(
      rest.length > 0 ? [[opcodes.close, 1002]] : [],
    );
    await expectAlive(bystander);
  });

  test.each([
    ["a byte that never occurs", bytes(0x22, 0xff, 0x22)],
    ["a character that is cut off", bytes(0x22, 0xc3, 0x22)],
    ["a character that is longer than it needs to be", bytes(0x22, 0xc0, 0xaf, 0x22)],
    ["half a surrogate pair", bytes(0x22, 0xed, 0xa0, 0x80, 0x22)],
    ["a character beyond the last", bytes(0x22, 0xf4, 0x90, 0x80, 0x80, 0x22)],
    ["a stray continuation byte", bytes(0x22, 0x80, 0x22)],
  ])("05 section 4.6 a text with %s ends the connection", async (_, id) => {
    const message = Buffer.concat([Buffer.from('{"op":"ping","request_id":'), id, Buffer.from("}")]);
    for (const fragments of [[message], [message.subarray(0, 27), message.subarray(27)]]) {
      using socket = await open();
      fragments.forEach((part, i) => {
        const fin = i === fragments.length - 1;
        socket.write(i === 0 ? text(part, { fin }) : continuation(part, { fin }));
      });
      await expectEnded(socket, 1007);
    }
  });

  test("05 section 4.6 in what is published leaves nothing of it", async () => {
    const topic = await newTopic(server);
    const head = `{"op":"publish","topic":"${topic.name}","records":[{"data":"`;
    using socket = await open();
    socket.write(text(Buffer.concat([Buffer.from(head), bytes(0xff), Buffer.from('"}]}')])));
    await expectEnded(socket, 1007);
    expect((await topic.state()).body.head_seq).toBe(0);
  });
});

describe("size", () => {
  test("05.60 a message of 16 MiB is accepted, whole and in fragments", async () => {
    using socket = await open();
    const message = pingOf(MESSAGE_BYTES_MAX);
    socket.write(text(message));
    expect(await socket.body(20_000)).toEqual(pong);
    const half = MESSAGE_BYTES_MAX / 2;
    socket.write(text(message.subarray(0, half), { fin: false }));
    socket.write(continuation(message.subarray(half)));
    expect(await socket.body(20_000)).toEqual(pong);
  }, 30_000);

  test.each<[string, () => Buffer[]]>([
    ["in one frame", () => [text(pingOf(MESSAGE_BYTES_MAX + 1))]],
    [
      "in fragments",
      () => {
        const message = pingOf(MESSAGE_BYTES_MAX + 1);
        return [text(message.subarray(0, -2), { fin: false }), continuation(message.subarray(-2))];
      },
    ],
    ["in binary", () => [frame(opcodes.binary, Buffer.alloc(MESSAGE_BYTES_MAX + 1))]],
  ])(
    "05.60 a larger message ends the connection: %s",
    async (_, frames) => {
      using socket = await open();
      using bystander = await open();
      for (const bytes of frames()) socket.write(bytes);
      await expectEnded(socket, 1009);
      await expectAlive(bystander);
    },
    30_000,
  );

  test.each([BigInt(MESSAGE_BYTES_MAX + 1), 1n << 32n, 1n << 62n])(
    "05.60 a header that promises %d bytes ends the connection with 1009",
    async (length) => {
      using socket = await open();
      socket.write(text("", { length }));
      const frames = await socket.rest();
      expect(frames.map(({ opcode, payload }) => [opcode, payload.readUInt16BE(0)])).toEqual([
        [opcodes.close, 1009],
      ]);
    },
  );

  test("05.60 a publish of 15 MiB is one batch, and comes back as it was sent", async () => {
    await using socket = await SocketClient.open(server.url);
    const topic = await newTopic(server);
    const data = Array.from({ length: 15 }, (_, i) => `${i}`.padEnd(1024 * 1024 - 2, "x"));
    const ack = await socket.ask({
      op: "publish",
      topic: topic.name,
      records: data.map((data) => ({ data })),
    });
    expect(ack).toMatchObject({ op: "ack", count: 15, first_seq: 1, last_seq: 15 });
    await socket.ask({ op: "subscribe", topic: topic.name, max_batch_bytes: 1 });
    for (const expected of data) {
      const { records } = await socket.take("record");
      // Compared by hand: a report of the difference would be megabytes long.
      expect([records.length, records[0].data === expected]).toEqual([1, true]);
    }
  }, 30_000);
});

describe("the end of a connection", () => {
  const env = { TOPICS_MAX_SSE_CONNECTIONS: "1" };

  /** Opens a socket as soon as there is room for it, which must be soon. */
  async function openSoon(server: Sender): Promise<RawWebSocket> {
    const found = await until(
      () => RawWebSocket.open(server.url).catch((error: Error) => error),
      (opened) => opened instanceof RawWebSocket,
      1000,
    );
    if (found instanceof Error) throw found;
    return found;
  }

  const ways: [way: string, end: (socket: RawWebSocket) => void][] = [
    ["a close", (socket) => socket.write(frame(opcodes.close, bytes(0x03, 0xe8)))],
    ["the end of what it sends", (socket) => socket.halfClose()],
    ["a reset", (socket) => socket.reset()],
    ["a violation", (socket) => socket.write(frame(3))],
    [
      "the end in the middle of a frame",
      (socket) => {
        socket.write(text(PING).subarray(0, 9));
        socket.halfClose();
      },
    ],
  ];
  test.each(ways)("01.44 05.44 by %s frees its place", async (_, end) => {
    await using server = await startServer(env);
    const topic = await newTopic(server);
    for (const prepare of [async () => {}, subscribed]) {
      using socket = await openSoon(server);
      await prepare(socket, topic);
      await expect(RawWebSocket.open(server.url)).rejects.toThrow("429");
      end(socket);
      using next = await openSoon(server);
      await expectAlive(next);
    }
    await until(
      () => attempt(server.url, `${topic.path}/stream`),
      ({ status }) => status === 200,
      1000,
    );
  });

  async function subscribed(socket: RawWebSocket, topic: Topic): Promise<void> {
    socket.say({ op: "subscribe", topic: topic.name, tail: true });
    expect((await socket.body()).op).toBe("subscribed");
    expect((await socket.body()).op).toBe("caught_up");
  }

  test("05 section 4.3 drops its subscriptions", async () => {
    const topic = await newTopic(server);
    for (const [, end] of ways) {
      using socket = await open();
      await subscribed(socket, topic);
      end(socket);
      await topic.append("unheard");
    }
    using bystander = await open();
    await expectAlive(bystander);
    expect((await topic.state()).body.head_seq).toBe(ways.length);
  });
});

describe("a client that does not read", () => {
  const BATCHES = 20;
  const PER_BATCH = 1000;
  const TOTAL = BATCHES * PER_BATCH;

  async function flood(topic: Topic): Promise<void> {
    for (let batch = 0; batch < BATCHES; batch++) {
      const first = batch * PER_BATCH + 1;
      await topic.append(...Array.from({ length: PER_BATCH }, (_, i) => `${first + i}`.padEnd(1000, "x")));
    }
  }

  /** The seqs of all records up to the last one, each with the payload that belongs to it. */
  async function received(next: () => Promise<{ op: string; records: { $seq: number; data: string }[] }>) {
    const seqs: number[] = [];
    while (seqs.at(-1) !== TOTAL) {
      const { op, records } = await next();
      if (op !== "record") continue;
      for (const { $seq, data } of records) seqs.push(Number.parseInt(data, 10) === $seq ? $seq : -1);
    }
    return seqs;
  }

  const all = Array.from({ length: TOTAL }, (_, i) => i + 1);

  test("05 section 4.6 gets everything in order later, and nobody else waits for it", async () => {
    const topic = await newTopic(server);
    using stalled = await open();
    await using reader = await SocketClient.open(server.url);
    stalled.say({ op: "subscribe", topic: topic.name });
    expect((await stalled.body()).op).toBe("subscribed");
    expect((await stalled.body()).op).toBe("caught_up");
    stalled.pause();
    await reader.ask({ op: "subscribe", topic: topic.name });
    await flood(topic);
    expect(Bun.deepEquals(await received(() => reader.take("record")), all)).toBe(true);
    stalled.resume();
    expect(Bun.deepEquals(await received(() => stalled.body()), all)).toBe(true);
    await expectTail(stalled);
  }, 30_000);

  async function expectTail(socket: RawWebSocket): Promise<void> {
    expect(await socket.body()).toMatchObject({ op: "caught_up", head_seq: TOTAL });
    await expectAlive(socket);
  }

  test("05 section 4.6 finds the answers to its commands in order, with the records they are about", async () => {
    const topic = await newTopic(server);
    using socket = await open();
    socket.say({ op: "subscribe", topic: topic.name, limit: 100 });
    expect((await socket.body()).op).toBe("subscribed");
    expect((await socket.body()).op).toBe("caught_up");
    socket.pause();
    for (let n = 0; n < BATCHES; n++) {
      const first = n * PER_BATCH + 1;
      const records = Array.from({ length: PER_BATCH }, (_, i) => ({
        data: `${first + i}`.padEnd(1000, "x"),
      }));
      socket.say({ op: "publish", request_id: n, topic: topic.name, records, return_seqs: false });
    }
    socket.say({ op: "ping", request_id: "last" });
    // All of the commands may have been executed by now, or some of them wait until their answers are read.
    await Promise.race([socket.written(), Bun.sleep(1000)]);
    const acks: { op: string; request_id: unknown; first_seq?: number }[] = [];
    socket.resume();
    const seqs = await received(async () => {
      const body = await socket.body(20_000);
      if (body.op === "ack" || body.op === "pong") acks.push(body);
      return body;
    });
    while (acks.at(-1)?.op !== "pong") {
      const body = await socket.body();
      if (body.op === "ack" || body.op === "pong") acks.push(body);
    }
    expect(Bun.deepEquals(seqs, all)).toBe(true);
    expect(acks.map(({ op, request_id, first_seq }) => [op, request_id, first_seq])).toEqual([
      ...Array.from({ length: BATCHES }, (_, n) => ["ack", n, n * PER_BATCH + 1]),
      ["pong", "last", undefined],
    ]);
  }, 30_000);

  test("05 section 4.6 gets a tombstone when retention has passed its place", async () => {
    const topic = await newTopic(server, { cap_records: 100 });
    using socket = await open();
    socket.say({ op: "subscribe", topic: topic.name });
    expect((await socket.body()).op).toBe("subscribed");
    expect((await socket.body()).op).toBe("caught_up");
    socket.pause();
    await flood(topic);
    socket.resume();
    let at = 0;
    let tombstones = 0;
    while (at < TOTAL) {
      const body = await socket.body();
      if (body.op === "tombstone") {
        expect(body).toMatchObject({ reason: "cap", gap_from: at + 1 });
        at = body.gap_to;
        tombstones++;
      }
      for (const { $seq } of body.records ?? []) {
        expect($seq).toBe(at + 1);
        at = $seq;
      }
    }
    expect(tombstones).toBeGreaterThan(0);
  }, 30_000);

  test("05 section 4.6 is told of the deletion of its topic behind what was sent", async () => {
    const topic = await newTopic(server);
    using socket = await open();
    socket.say({ op: "subscribe", topic: topic.name });
    expect((await socket.body()).op).toBe("subscribed");
    socket.pause();
    await flood(topic);
    await topic.drop();
    socket.resume();
    let next = 1;
    for (let body = await socket.body(); body.op !== "topic_deleted"; body = await socket.body()) {
      for (const { $seq } of body.records ?? []) expect($seq).toBe(next++);
    }
    await expectAlive(socket);
  }, 30_000);

  test("05 section 4.6 and does not stop sending is closed with 1008 in the end", async () => {
    using socket = await open();
    socket.pause();
    const request_id = "x".repeat(2000);
    const ping = text(JSON.stringify({ op: "ping", request_id }));
    const many = Buffer.concat(Array(1000).fill(ping));
    for (let n = 0; n < 50; n++) socket.write(many);
    await socket.written();
    // Somebody else is served.
    using bystander = await open();
    await expectAlive(bystander);
    socket.resume();
    const frames = await socket.rest(20_000);
    const last = frames.pop();
    if (last?.opcode === opcodes.close) expect(last.payload.readUInt16BE(0)).toBe(1008);
    expect(frames.length).toBeLessThan(30_000);
    expect(frames.every(({ opcode }) => opcode === opcodes.text)).toBe(true);
  }, 30_000);

  test("05 section 4.6 holds its place until it leaves", async () => {
    await using server = await startServer({ TOPICS_MAX_SSE_CONNECTIONS: "5" });
    const topic = await newTopic(server);
    const sockets = await together(5, () => RawWebSocket.open(server.url));
    for (const socket of sockets) {
      socket.say({ op: "subscribe", topic: topic.name });
      await socket.body();
      socket.pause();
    }
    await flood(topic);
    await expect(RawWebSocket.open(server.url)).rejects.toThrow("429");
    for (const socket of sockets) socket.reset();
    const metrics = () => server.send("GET", "/v0/metrics", undefined, { accept: "application/json" });
    await until(metrics, ({ body }) => body.sse_connections === 0, 2000);
    using socket = await RawWebSocket.open(server.url);
    await expectAlive(socket);
  }, 30_000);
});
