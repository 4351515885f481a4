/** Real input: every published GitHub webhook goes in and comes back byte for byte, also after kills and deletes. */
import { beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { payloads } from "../support/rawjson.ts";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, column, seqs } from "../support/topics.ts";
import { readWebhooks, type Webhook } from "../support/webhooks.ts";

setDefaultTimeout(30_000);

/** One record as text: what was sent, or what came back. */
interface Entry {
  readonly seq: number;
  readonly tag: string | undefined;
  readonly data: string | undefined;
  readonly meta: string | undefined;
}

const PAGE = 7;

/** The records that each topic must hold; a topic is named after its event. */
const expected = new Map<string, Entry[]>();

const facts = ({ event, repository }: Webhook) =>
  `{ "event": ${JSON.stringify(event)}, "repository": ${JSON.stringify(repository ?? null)}, "v": 1.0 }`;

beforeAll(async () => {
  for (const webhook of await readWebhooks()) {
    const entries = expected.get(webhook.event) ?? [];
    const { action: tag, payload: data } = webhook;
    entries.push({ seq: entries.length + 1, tag, data, meta: facts(webhook) });
    expected.set(webhook.event, entries);
  }
});

const record = ({ data, tag, meta }: Entry) =>
  `{"data":${data},"tag":${JSON.stringify(tag ?? null)},"meta":${meta}}`;

async function readAll(server: SpawnedServer, topic: string): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (let from = 0, caughtUp = false; !caughtUp; ) {
    const page = await absentTopic(server, topic).diff({ from_seq: from, limit: PAGE, include_tags: true });
    expect(page).toMatchObject({ status: 200, body: { tombstone: null } });
    const [tags, data, meta] = [column(page, "$tag"), payloads(page, "data"), payloads(page, "meta")];
    seqs(page).forEach((seq, i) => {
      entries.push({ seq, tag: tags[i] as string | undefined, data: data[i], meta: meta[i] });
    });
    ({ next_from_seq: from, caught_up: caughtUp } = page.body);
  }
  return entries;
}

const byteLength = (entries: Entry[]) =>
  entries.reduce((sum, { data, meta }) => sum + Buffer.byteLength(`${data}${meta}`), 0);

/** Every topic holds exactly the entries that pass, and counts them so. */
async function holds(server: SpawnedServer, passes: (entry: Entry) => boolean = () => true) {
  for (const [topic, sent] of expected) {
    const entries = sent.filter(passes);
    // Not `toEqual` on the texts: its report of a difference would be megabytes long.
    const differing = Bun.deepEquals(await readAll(server, topic), entries) ? [] : [topic];
    expect(differing).toEqual([]);
    const { body } = await absentTopic(server, topic).state();
    expect(body).toMatchObject({
      topic,
      head_seq: sent.length,
      count: entries.length,
      bytes: byteLength(entries),
    });
  }
}

test("the payloads are cut out of the file whole", () => {
  const entries = [...expected.values()].flat();
  expect(expected.size).toBeGreaterThan(50);
  expect(entries.length).toBeGreaterThan(300);
  expect(byteLength(entries)).toBeGreaterThan(2_000_000);
  for (const { data } of entries) expect(Object.keys(JSON.parse(data!)).length).toBeGreaterThan(1);
});

test("webhooks come back byte for byte, after kills, a restart and a delete", async () => {
  await using dir = await temporaryDirectory();
  const open = () => spawnServer({ dir: dir.path });

  await using first = await open();
  for (const [topic, entries] of expected) {
    const reply = await absentTopic(first, topic).write(`{"records":[${entries.map(record).join(",")}]}`);
    expect(reply).toMatchObject({ status: 201, body: { first_seq: 1, last_seq: entries.length } });
  }
  await holds(first);

  await first.stop("SIGKILL");
  await using second = await open();
  await holds(second);

  const removed = "created";
  for (const [topic, entries] of expected) {
    const reply = await absentTopic(second, topic).erase({ match: ["tag", "Eq", removed] });
    const deleted = entries.filter(({ tag }) => tag === removed).length;
    expect(reply).toMatchObject({ status: 200, body: { deleted } });
  }
  await holds(second, ({ tag }) => tag !== removed);

  await second.stop("SIGKILL");
  await using third = await open();
  await holds(third, ({ tag }) => tag !== removed);

  await third.stop("SIGTERM");
  await using fourth = await open();
  await holds(fourth, ({ tag }) => tag !== removed);
});
