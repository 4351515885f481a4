/**
 * Laws of signed events, over HTTP: any content that is JSON comes back equal from a post, and any that another node
 * has signed is taken in; either way the event that peers read recomputes from its members.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import {
  Author,
  canonical,
  encoded,
  item,
  messageEvent,
  messagesLane,
  Peer,
  type SignedEvent,
} from "../support/events.ts";
import { newFeed, paths } from "../support/feeds.ts";
import { members } from "../support/rawjson.ts";
import { sharedServer } from "../support/topics.ts";

setDefaultTimeout(30_000);

const seed = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7";
const network_id = "net";
const server = sharedServer({ FEED_NODE_SEED: seed, FEED_NETWORK_ID: network_id });
const local = new Author(seed);
const foreign = new Author();

/** Numbers that every node prints alike: no integers that doubles cannot count. */
const printable = (n: number) => !Number.isInteger(n) || Number.isSafeInteger(n) || Math.abs(n) >= 1e21;

const number = fc.oneof(
  fc.integer(),
  fc.maxSafeInteger(),
  fc.double({ noNaN: true, noDefaultInfinity: true }).filter(printable),
  fc.double({ min: -1, max: 1, noNaN: true }),
);

/** The same number in another spelling. */
const spelledNumber = fc
  .tuple(number, fc.nat(3))
  .map(([n, way]) => {
    const plain = JSON.stringify(n);
    if (/[e.]/.test(plain)) return way === 1 ? plain.replace("e", "E") : plain;
    return [plain, `${plain}.0`, `${plain}e0`, `${plain}.00E+0`][way]!;
  })
  // An integer literal stays one; a longer spelling means the same double.
  .filter((text) => printable(Number(text)));

/** The same text with some characters escaped that need not be. */
const spelledString = fc
  .tuple(fc.string({ unit: "binary", maxLength: 8 }), fc.boolean())
  .map(([text, escaped]) => {
    const plain = JSON.stringify(text);
    if (!escaped) return plain;
    return plain.replace(/[^\\"\w]/gu, (c) =>
      [...Array(c.length).keys()].map((i) => `\\u${c.charCodeAt(i).toString(16).padStart(4, "0")}`).join(""),
    );
  });

const key = fc.oneof(
  spelledString,
  fc.constantFrom('"9"', '"10"', '"a"', '"\\u0061"', '""', '"__proto__"', '"\\uff5e"', '"😀"', '"\\u007f"'),
);

/** JSON text in any spelling, with keys that come twice. */
const spelled = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 5 },
    fc.oneof(
      spelledNumber,
      spelledString,
      fc.constantFrom("true", "false", "null", "-0", "1e21", "[]", "{ }"),
    ),
    fc.array(tie("value"), { maxLength: 4 }).map((items) => `[ ${items.join(" ,\t")}\n]`),
    fc
      .array(fc.tuple(key, tie("value")), { maxLength: 5 })
      .map((pairs) => `{${pairs.map(([name, value]) => `${name} :\r${value}`).join(", ")}}`),
  ),
})).value;

const contents = fc.array(
  spelled.filter((text) => text !== "null"),
  { minLength: 1, maxLength: 10 },
);

describe("any content", () => {
  test("07.12 07.22 that is posted comes back equal, and its event recomputes", async () => {
    await fc.assert(
      fc.asyncProperty(contents, async (texts) => {
        const feed = newFeed(server);
        const ids: string[] = [];
        for (const content of texts) {
          const body = `{"feed_key":"${feed.key}","scope_hint":"${feed.scope}","content":${content}}`;
          const reply = await server.send("POST", paths.messages, body);
          expect([reply.status, reply.body]).toMatchObject([200, { ok: true }]);
          ids.push(reply.body.message_id);
        }
        const listed = await feed.list();
        const contentOf = new Map(listed.map(({ message_id, content }) => [message_id, canonical(content)]));
        expect(ids.map((id) => contentOf.get(id))).toEqual(texts.map((text) => canonical(JSON.parse(text))));
        expect(listed).toHaveLength(texts.length);

        const lane = await new Peer(server, network_id).pages(messagesLane(feed.scope, feed.key));
        const built = texts.map((text, n) => {
          const { created_at } = JSON.parse(lane.texts[n]!) as SignedEvent;
          const names = { network_id, feed_key: feed.key, scope: feed.scope };
          return encoded(messageEvent(local, { ...names, content: JSON.parse(text), created_at }));
        });
        expect(lane.ids).toEqual(ids);
        expect(lane.texts).toEqual(built);
      }),
      { numRuns: 60 },
    );
  });

  test("07.39 that another node signed is accepted in any spelling, and passed on as it was signed", async () => {
    await fc.assert(
      fc.asyncProperty(contents, async (texts) => {
        const feed = newFeed(server);
        const signed = texts.map((text, created_at) =>
          messageEvent(foreign, {
            network_id,
            feed_key: feed.key,
            scope: feed.scope,
            content: JSON.parse(text),
            created_at,
          }),
        );
        const items = signed.map((event, n) => {
          const plain = encoded(event);
          const payload = members(members(members(plain).get("payload")!).get("payload")!);
          const content = payload.get("local_content_cache")!;
          const sent = plain.replace(
            `"local_content_cache":${content}`,
            () => `"local_content_cache":${texts[n]}`,
          );
          return item(sent, feed.scope);
        });
        const { body } = await new Peer(server, network_id).push(...items);
        expect(body).toMatchObject({ accepted: texts.length, duplicates: 0, rejected: [] });
        const lane = await new Peer(server, network_id).pages(messagesLane(feed.scope, feed.key));
        expect(lane.texts).toEqual(signed.map(encoded));
        const listed = await feed.list();
        expect(listed.toReversed().map(({ content }) => canonical(content))).toEqual(
          signed.map(({ payload }) => canonical(payload.payload.local_content_cache)),
        );
      }),
      { numRuns: 60 },
    );
  });
});
