/**
 * Watch sessions for a test: making them, opening their streams, and saying in short what came.
 *
 * An event in short is `<topic> 1 2 3` for records, `<topic> at 3` for being caught up, `<topic> cap 1-3` for a
 * tombstone and `<topic> deleted`.
 */
import { EventStream, type StreamEvent } from "./eventstream.ts";
import { members, payloads } from "./rawjson.ts";
import type { Reply } from "./server.ts";
import { absentTopic, newTopic, type Sender, type Topic, until } from "./topics.ts";

/** Topics from their start, or each with its options. */
export type Watched = readonly Topic[] | Readonly<Record<string, object>>;

export interface Session {
  /** `/v0/watch/<wid>` */
  readonly path: string;
  /** As the answer has them: `from_seq`, `head_seq`, `earliest_seq`, `epoch`. */
  readonly topics: Readonly<Record<string, SessionTopic>>;
  /** Opens a stream, with the header `Last-Event-ID` if there is an id. */
  open(lastEventId?: string): Promise<EventStream>;
}

export interface SessionTopic {
  readonly from_seq: number;
  readonly head_seq: number;
  readonly earliest_seq: number;
  readonly epoch: number;
}

/** Makes a session. A string is the whole body. */
export async function newSession(
  server: Sender,
  watched: Watched | string,
  options: object = {},
): Promise<Session> {
  const topics = isList(watched) ? Object.fromEntries(watched.map(({ name }) => [name, {}])) : watched;
  const body = typeof topics === "string" ? topics : { topics, ...options };
  const reply = accepted(await server.send("POST", "/v0/watch", body));
  const path: string = reply.body.stream_url;
  return {
    path,
    topics: reply.body.topics,
    open: (id) => EventStream.open(server.url, path, id === undefined ? {} : { "last-event-id": id }),
  };
}

const isList = (watched: Watched | string): watched is readonly Topic[] => Array.isArray(watched);

/** The first stream of a new session. */
export const watch = async (server: Sender, watched: Watched | string, options?: object) =>
  (await newSession(server, watched, options)).open();

/** The first stream of a new session whose topics have no backlog, once it follows all of them. */
export async function watchLive(
  server: Sender,
  topics: readonly Topic[],
  options?: object,
): Promise<EventStream> {
  const stream = await watch(server, topics, options);
  await stream.events(topics.length);
  return stream;
}

/** Topics with `n` records, whose `data` is their seq. */
export async function fill(topic: Topic, n: number): Promise<void> {
  await topic.append(...Array.from({ length: n }, (_, i) => i + 1));
}

/** Appends one record for each node, null for none. */
export async function appendFrom(topic: Topic, ...nodes: (string | null)[]): Promise<void> {
  accepted(await topic.write({ records: nodes.map((node) => ({ data: node, node })) }));
}

/** A new topic whose name is this one. */
export async function topicNamed(server: Sender, name: string, config: object = {}): Promise<Topic> {
  const topic = absentTopic(server, name);
  accepted(await topic.put(config));
  return topic;
}

/** Deletes a topic and creates it again with these records. */
export async function recreate(topic: Topic, ...values: unknown[]): Promise<void> {
  accepted(await topic.drop());
  if (values.length > 0) await topic.append(...values);
  else accepted(await topic.put());
}

/** An event in short. */
export function told({ event, body }: StreamEvent): string {
  switch (event) {
    case "record":
      return [body.topic, ...seqsOf(body)].join(" ");
    case "caught-up":
      return `${body.topic} at ${body.head_seq}`;
    case "tombstone":
      return `${body.topic} ${body.reason} ${body.gap_from}-${body.gap_to}`;
    case "topic-deleted":
      return `${body.topic} deleted`;
    default:
      throw new Error(`the event ${event}: ${JSON.stringify(body)}`);
  }
}

/** The next `n` events in short. */
export const tell = async (stream: EventStream, n: number): Promise<string[]> =>
  (await stream.events(n)).map(told);

const seqsOf = (body: { records: { $seq: number }[] }) => body.records.map(({ $seq }) => $seq);

/** The next events, up to the first that fits. */
export async function eventsUntil(
  stream: EventStream,
  fits: (event: StreamEvent) => boolean,
): Promise<StreamEvent[]> {
  const events: StreamEvent[] = [];
  for (;;) {
    const event = await stream.event();
    events.push(event);
    if (fits(event)) return events;
  }
}

/** The next events, up to the one that has the topic caught up at this seq. */
export const eventsTo = (stream: EventStream, topic: Topic, head: number): Promise<StreamEvent[]> =>
  eventsUntil(
    stream,
    ({ event, body }) => event === "caught-up" && body.topic === topic.name && body.head_seq >= head,
  );

/** The records in these events, in order. */
export const recordsIn = (events: readonly StreamEvent[]) =>
  events.flatMap(({ event, body }) => (event === "record" ? body.records : []));

/** The text of one member (`data`, `meta`) of every record of an event. */
export const textsIn = ({ data }: StreamEvent, member: string) => payloads({ text: data } as Reply, member);

/** What an id says. */
export interface Cursor {
  readonly epochs: Readonly<Record<string, number>>;
  readonly seqs: Readonly<Record<string, number>>;
}

/** Reads an id that a stream has sent. Throws where it is not spelled as the contract has it. */
export function cursorIn({ id }: Pick<StreamEvent, "id">): Cursor {
  if (id === undefined || !/^[A-Za-z0-9_-]+$/.test(id)) throw new Error(`the id ${id}`);
  const text = Buffer.from(id, "base64url").toString();
  const { $epochs: epochs, ...seqs } = JSON.parse(text);
  if (text !== cursorText(epochs, seqs)) throw new Error(`the id ${text}`);
  return { epochs, seqs };
}

/** The text of an id: compact, `$epochs` first, names in the order of their bytes. */
export function cursorText(epochs: Record<string, number>, seqs: Record<string, number>): string {
  const sorted = (map: Record<string, number>) =>
    Object.keys(map)
      .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      .map((name) => `${JSON.stringify(name)}:${map[name]}`);
  return `{${[`"$epochs":{${sorted(epochs)}}`, ...sorted(seqs)].join(",")}}`;
}

/** An id as a client may build it. A string is the JSON text. */
export const idOf = (cursor: object | string): string =>
  Buffer.from(typeof cursor === "string" ? cursor : JSON.stringify(cursor)).toString("base64url");

/** The position of an id alone, without epochs. */
export const plainId = (event: StreamEvent): string => idOf(cursorIn(event).seqs);

/** Waits until so many streams are open, as the server counts them. */
export const openStreams = (server: Sender, n: number) =>
  until(
    async () => (await server.send("GET", "/v0/metrics", undefined, { accept: "application/json" })).body,
    ({ sse_connections }) => sse_connections === n,
  );

/** The names of the members of an object, in the order in which they are spelled. */
export const namesIn = (object: string): string[] => [...members(object).keys()];

function accepted(reply: Reply): Reply {
  if (reply.status >= 300) throw new Error(`refused with ${reply.status}: ${reply.text}`);
  return reply;
}

/** A topic with so many records. */
export async function filledTopic(server: Sender, n: number, config: object = {}): Promise<Topic> {
  const topic = await newTopic(server, config);
  await fill(topic, n);
  return topic;
}

export const epochOf = async (topic: Topic): Promise<number> => (await topic.state()).body.epoch;
