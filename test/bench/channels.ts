/**
 * One subject in each system, on which a record goes from a publisher to everybody who listens: ours as
 * server-sent events and as WebSocket, Redis Pub/Sub, Redis Streams, and NATS. All of it is said over raw sockets.
 */
import type { Step } from "./audience.ts";
import { click } from "./client.ts";
import { Connection, post } from "./connection.ts";
import { command, openLine } from "./line.ts";

export type System = "sse" | "websocket" | "pubsub" | "streams" | "nats";

export const TOPIC = "events";
/** Connections on which sessions are made. */
const SESSION_MAKERS = 16;

export interface Channel extends Disposable {
  /** What each of `count` listeners says to hear what comes from now on. */
  subscriptions(count: number): Promise<Step[][]>;
  /** Resolves when the server has taken the record, where it tells. Rounds count from 1. */
  publish(round: number): Promise<void>;
  /** What a listener says when it has heard the record of a round, to hear the next one. */
  reply?(round: number): Buffer;
}

export async function openChannel(system: System, url: string): Promise<Channel> {
  switch (system) {
    case "sse":
    case "websocket":
      return openTopic(system, url);
    case "pubsub":
    case "streams":
      return openRedis(system, url);
    case "nats":
      return openNats(url);
  }
}

/** Makes `count` sessions of one request and gives what opens their streams; `until` has to come then. */
export async function openSessions(
  url: string,
  count: number,
  request: unknown,
  until: string,
): Promise<Step[][]> {
  const watch = post("/v0/watch", JSON.stringify(request));
  const steps: Step[][] = [];
  let left = count;
  const make = async () => {
    using connection = await Connection.open(url);
    while (left-- > 0) {
      const [, path] = /"stream_url":"([^"]+)"/.exec(await connection.send(watch))!;
      const say = `GET ${path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n`;
      steps.push([{ say, until }]);
    }
  };
  await Promise.all(Array.from({ length: Math.min(count, SESSION_MAKERS) }, make));
  return steps;
}

/** A record as our writes have it. */
export const recordBody = (number: number) => JSON.stringify({ records: [{ data: click(number) }] });

async function openTopic(system: "sse" | "websocket", url: string): Promise<Channel> {
  const writer = await Connection.open(url);
  return {
    subscriptions: async (count) => {
      if (system === "websocket") return alike(count, socketSteps({ topic: TOPIC, tail: true }));
      const request = { topics: { [TOPIC]: { tail: true } } };
      return openSessions(url, count, request, "event: caught-up");
    },
    publish: async (round) => {
      await writer.send(post(`/v0/topics/${TOPIC}`, recordBody(round)));
    },
    [Symbol.dispose]: () => writer[Symbol.dispose](),
  };
}

/** The handshake of a WebSocket, and a subscription. */
function socketSteps(subscribe: Record<string, unknown>): Step[] {
  const upgrade = [
    "GET /v0/ws HTTP/1.1",
    "Host: bench",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  ];
  return [
    { say: `${upgrade.join("\r\n")}\r\n\r\n`, until: "\r\n\r\n" },
    { say: frame(JSON.stringify({ op: "subscribe", ...subscribe })), until: '"caught_up"' },
  ];
}

/** A short text as a client's frame. Its masking key is zero, which changes no byte. */
function frame(text: string): Buffer {
  const payload = Buffer.from(text);
  if (payload.length > 125) throw new Error("A frame this long needs another head");
  return Buffer.concat([Buffer.from([0x81, 0x80 | payload.length, 0, 0, 0, 0]), payload]);
}

async function openRedis(system: "pubsub" | "streams", url: string): Promise<Channel> {
  const publisher = await openLine(url);
  const dispose = () => publisher.end();
  const record = (round: number) => JSON.stringify(click(round));
  const readBehind = (round: number) => command("XREAD", "BLOCK", "0", "STREAMS", TOPIC, `${round}-1`);
  if (system === "streams") {
    return {
      subscriptions: async (count) => alike(count, [{ say: readBehind(0), until: "" }]),
      publish: async (round) => {
        await publisher.ask(command("XADD", TOPIC, `${round}-1`, "data", record(round)));
      },
      reply: readBehind,
      [Symbol.dispose]: dispose,
    };
  }
  return {
    subscriptions: async (count) => alike(count, [{ say: command("SUBSCRIBE", TOPIC), until: ":1\r\n" }]),
    publish: async (round) => {
      await publisher.ask(command("PUBLISH", TOPIC, record(round)));
    },
    [Symbol.dispose]: dispose,
  };
}

async function openNats(url: string): Promise<Channel> {
  const publisher = await openLine(url);
  // The publisher asks for a sign of life behind each record: so it knows that the server has taken it.
  const greeting = 'CONNECT {"verbose":false,"pedantic":false}\r\n';
  await publisher.ask(Buffer.from(`${greeting}PING\r\n`), "PONG");
  return {
    subscriptions: async (count) =>
      alike(count, [{ say: `${greeting}SUB ${TOPIC} 1\r\nPING\r\n`, until: "PONG\r\n" }]),
    publish: async (round) => {
      const record = JSON.stringify(click(round));
      await publisher.ask(Buffer.from(`PUB ${TOPIC} ${record.length}\r\n${record}\r\nPING\r\n`), "PONG");
    },
    [Symbol.dispose]: () => publisher.end(),
  };
}

const alike = (count: number, steps: Step[]): Step[][] => Array.from({ length: count }, () => steps);
