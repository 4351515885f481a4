/** A few words of HTTP, and how topics are filled before a measurement. */

/** The most records that one write may hold. */
const BATCH_RECORDS = 10_000;
/** Writes under way at once while a store is filled with many topics. */
const FILL_WRITERS = 32;

export interface Reply {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: a measurement looks at whatever came back.
  readonly body: any;
}

export async function call(url: string, method: string, path: string, body?: unknown): Promise<Reply> {
  const response = await fetch(url + path, {
    method,
    ...(body === undefined
      ? {}
      : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  return { status: response.status, body: await response.json() };
}

/** A call that must succeed. */
export async function must(
  url: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<Reply["body"]> {
  const reply = await call(url, method, path, body);
  if (reply.status >= 300) {
    throw new Error(`${method} ${path} gave ${reply.status}: ${JSON.stringify(reply.body)}`);
  }
  return reply.body;
}

/** A payload like those of the loads; all have the same length. */
export const click = (seq: number) => ({ id: 100_000 + (seq % 900_000), kind: "click", v: 1 });

/** The bytes that a topic counts for one of them. */
export const CLICK_BYTES = JSON.stringify(click(0)).length;

/** Appends records 1 to `count`; `tagOf` may give some of them a tag. */
export async function fill(
  url: string,
  topic: string,
  count: number,
  tagOf: (seq: number) => string | undefined = () => undefined,
): Promise<void> {
  for (let first = 1; first <= count; first += BATCH_RECORDS) {
    const length = Math.min(BATCH_RECORDS, count - first + 1);
    const records = Array.from({ length }, (_, i) => ({ data: click(first + i), tag: tagOf(first + i) }));
    await must(url, "POST", `/v0/topics/${topic}?return_seqs=false`, { records });
  }
}

/** Creates `count` topics of one record each. */
export async function fillTopics(url: string, count: number): Promise<void> {
  let next = 0;
  const writer = async () => {
    while (next < count) {
      next += 1;
      await must(url, "POST", `/v0/topics/topic-${next}`, { records: [{ data: click(next) }] });
    }
  };
  await Promise.all(Array.from({ length: FILL_WRITERS }, writer));
}
