/** Signed events: what is hashed and signed, checked against texts, digests, ids and signatures that another
 * program computed, and against a second implementation in `support/events.ts`. */
import { describe, expect, test } from "bun:test";
import {
  Author,
  canonical,
  capabilities,
  EVENT_BYTES_MAX,
  encoded,
  eventTexts,
  item,
  type Lane,
  messageEvent,
  messagesLane,
  Peer,
  peerStatus,
  recomputed,
  type SignedEvent,
  sizedMessage,
  subscriptionEvent,
  subscriptionsLane,
} from "../support/events.ts";
import { newFeed, paths, subscribe } from "../support/feeds.ts";
import { payloads } from "../support/rawjson.ts";
import { type Reply, startServer } from "../support/server.ts";
import { column, sharedServer } from "../support/topics.ts";

/** Seeds and public keys of the first two tests in RFC 8032, section 7.1. */
const first = {
  seed: "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
  id: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
};
const second = {
  seed: "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
  id: "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
};

const network_id = "vectors";
const author = new Author(first.seed);
const local = new Author(second.seed);
const server = sharedServer({ FEED_NODE_SEED: second.seed, FEED_NETWORK_ID: network_id });

const T = 1_700_000_000_000;

/** A fixed event: how a node sends it, and what was computed for it elsewhere. */
interface Vector {
  readonly event_id: string;
  readonly signature_hex: string;
  /** The digest of a message's content. */
  readonly digest?: string;
  /** The event as every node stores it, to the byte. */
  readonly text: string;
  /** Parts of the text that are sent in another spelling. */
  readonly spelled: (readonly [part: string, sent: string])[];
  /** The same event from `support/events.ts`. */
  readonly event: SignedEvent;
  readonly lane: Lane;
  readonly tag: string;
}

const joined = (...parts: string[]) => parts.join("");

function keysAndNumbers(): Vector {
  const event_id = "2e4513a29757054d991fe9bb2a6fb5dd16f7d6ecad63d4c1d96ea85ee85441a6";
  const digest = "sha256:787d4130016e42e8cc51dd225b5a632b6383ed2dd9e839f4ca5cd7c14d79bd8b";
  const signature_hex =
    "f29e78ccc79701973541c55aeac62af68367c9987758d962ec661cc0a6cb42ad495d699901819a974d019ddf86e76587ab616824f97b73b0ca48f0b396eb9a08";
  const content = joined(
    String.raw`{"":[],"\u0000":{},"\"\\/":"escaped","10":"ten","9":"nine","A":true,"__proto__":1,`,
    `"a":{"Z":false,"z":null},`,
    `"b":[1,0,0,1e+21,0.1,100,1e-7,0.000001,-1.5e-7,5e-324,1.7976931348623157e+308,`,
    `9007199254740991,-9007199254740991,0],`,
    `"\u007f":"DEL","é":"U+00E9","\u2028":"U+2028","\uff5e":"U+FF5E","\uffff":"U+FFFF","😀":"U+1F600"}`,
  );
  const sent = joined(
    `{ "b" : [1.0, -0, -0.0, 1e21, 0.10, 1E2, 1e-7, 0.000001, -1.50e-7, 5e-324, 1.7976931348623157e308,\n`,
    `  9007199254740991, -9007199254740991, 1e-400],\r\n\t`,
    String.raw`"9":"nine", "10":"ten", "\ud83d\ude00":"U+1F600", "\uff5e":"U+FF5E", "\uffff":"U+FFFF",`,
    String.raw`"\u00e9":"U+00E9", "\u007f":"DEL", "\u2028":"U+2028", "":[], "\u0000":{}, "A":true,`,
    String.raw`"a":"first", "\u0061":{"z":null,"Z":false}, "__proto__":1, "\"\\\/":"escaped" }`,
  );
  return {
    event_id,
    digest,
    signature_hex,
    text: joined(
      `{"event_id":"${event_id}","protocol_version":"0.1.0","event_kind":"TOPIC_MESSAGE_POSTED",`,
      `"task_id":null,"swarm_scope":"group:Crew-7","epoch":1,"author_node_id":"${first.id}",`,
      `"created_at":1700000000000,"payload":{"type":"TopicMessagePosted","payload":{"network_id":"vectors",`,
      `"feed_key":"vectors/keys","scope_hint":"GROUP : Crew-7","content_ref":{`,
      `"uri":"artifact://topic-message/${digest}","digest":"${digest}","size_bytes":309,`,
      `"mime":"application/json","created_at":1700000000000,"producer":"${first.id}"},`,
      `"local_content_cache":${content}}},"signature_hex":"${signature_hex}"}`,
    ),
    spelled: [[content, sent]],
    event: messageEvent(author, {
      network_id,
      feed_key: "vectors/keys",
      scope: "group:Crew-7",
      scope_hint: "GROUP : Crew-7",
      content: JSON.parse(sent),
      created_at: T,
    }),
    lane: messagesLane("group:Crew-7", "vectors/keys"),
    tag: "group:Crew-7/vectors/keys",
  };
}

function nestedEnvelope(): Vector {
  const event_id = "e86becdef8409aeefffb92d31bdbf7cd567596a829a4a400854b5f63e2be95d0";
  const digest = "sha256:8f3361552f9db642dc9d4de224cd10694660d6b00691b54ef97fda4161d53372";
  const signature_hex =
    "439788bfa2e6a2ef6e64f1e20cc70d6079ca528d07cb4ce8ce41bcce4bf337184bc277bad1118512fd75927460dce644d0027d5ee0419fa5a7fcc90fd5aabd09";
  const content = joined(
    String.raw`"\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f\u0010\u001b\u001f`,
    String.raw` \"/\\ `,
    '\u007f\u0080\u2028\u2029\ufeff😀é"',
  );
  const sentContent = joined(
    String.raw`"\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f\u0010\u001b\u001f`,
    String.raw` \"\/\\ \u007f\u0080\u2028\u2029\ufeff\ud83d\ude00\u00e9"`,
  );
  const card = joined(
    `{"limits":{"10":0,"9":1,"b":{"\uff5e":2,"😀":1}},"name":"café\u2028\u007f`,
    String.raw`\u0001","skills":["10","9"]}`,
  );
  const sentCard = joined(
    String.raw`{"skills":["10","9"], "limits":{"9":1.0,"10":-0,"b":{"\ud83d\ude00":1,"\uff5e":2}},`,
    String.raw` "name":"caf\u00e9\u2028\u007f\u0001"}`,
  );
  return {
    event_id,
    digest,
    signature_hex,
    text: joined(
      `{"event_id":"${event_id}","protocol_version":"0.1.0","event_kind":"TOPIC_MESSAGE_POSTED",`,
      `"task_id":null,"swarm_scope":"dm:a:b","epoch":1,"author_node_id":"${first.id}",`,
      `"created_at":1700000000001,"payload":{"type":"TopicMessagePosted","payload":{"network_id":"vectors",`,
      `"feed_key":"vectors/ü","scope_hint":"dm:b:a","content_ref":{`,
      `"uri":"artifact://topic-message/${digest}","digest":"${digest}","size_bytes":121,`,
      `"mime":"application/json","created_at":1700000000001,"producer":"${first.id}"},`,
      `"local_content_cache":${content},"reply_to_message_id":"parent-1",`,
      `"agent_envelope":{"protocol":"acme/1","transport_profile":"gossip",`,
      `"source_agent_id":"agent\\u0001 é","target_agent_id":"agent-2","source_node_id":"somewhere",`,
      `"target_node_id":"elsewhere","capability":"translate","source_agent_card":{"agent_id":"agent-1",`,
      `"node_id":"somewhere","card_hash":"none","issued_at":1690000000000,"card":${card},`,
      `"signature":"not checked"},"message_json":"{ \\"text\\" : \\"\u2028\\" , \\"n\\" : 1.0 }",`,
      `"extensions_json":"not even JSON","signature":"not checked either"}}},`,
      `"signature_hex":"${signature_hex}"}`,
    ),
    spelled: [
      [content, sentContent],
      [card, sentCard],
      ["1690000000000", " 1690000000000 "],
    ],
    event: messageEvent(author, {
      network_id,
      feed_key: "vectors/ü",
      scope: "dm:a:b",
      scope_hint: "dm:b:a",
      content: JSON.parse(sentContent),
      created_at: T + 1,
      reply_to_message_id: "parent-1",
      // In no particular order: the contract has its own.
      agent_envelope: {
        signature: "not checked either",
        extensions_json: "not even JSON",
        message_json: '{ "text" : "\u2028" , "n" : 1.0 }',
        source_agent_card: {
          signature: "not checked",
          card: JSON.parse(sentCard),
          issued_at: 1_690_000_000_000,
          card_hash: "none",
          node_id: "somewhere",
          agent_id: "agent-1",
        },
        capability: "translate",
        target_node_id: "elsewhere",
        source_node_id: "somewhere",
        target_agent_id: "agent-2",
        source_agent_id: "agent\u0001 é",
        transport_profile: "gossip",
        protocol: "acme/1",
      },
    }),
    lane: messagesLane("dm:a:b", "vectors/ü"),
    tag: "dm:a:b/vectors/ü",
  };
}

function subscribed(): Vector {
  const event_id = "945cbc024a3ee7dc3deb77a8363084e223ad8fa1f7be24762d7e9b99aabcbbe7";
  const signature_hex =
    "49c62200ad44fad921ccf3b62b49bbd77b5f4717ce089df5e5d88c77ff2aacba4ca3e8fc0a78a0a6d8b22d9239c88f366875929ca1bfc983c69c45f0f48f7708";
  return {
    event_id,
    signature_hex,
    text: joined(
      `{"event_id":"${event_id}","protocol_version":"0.1.0","event_kind":"FEED_SUBSCRIPTION_UPDATED",`,
      `"task_id":null,"swarm_scope":"network:main:net","epoch":1,"author_node_id":"${first.id}",`,
      `"created_at":1700000000002,"payload":{"type":"FeedSubscriptionUpdated","payload":{`,
      `"network_id":"vectors","subscriber_node_id":"agent-ü","feed_key":"vectors/ü",`,
      `"scope_hint":"network:main:net","gossip_kinds":["messages"],"provider_capabilities":{`,
      `"live_gossip":true,"history_backfill":true,"local_store":true},`,
      `"agent_envelope":{"protocol":"","message_json":""},"active":true}},`,
      `"signature_hex":"${signature_hex}"}`,
    ),
    spelled: [
      ["agent-ü", "agent-\\u00fc"],
      [":null,", ": null ,\n"],
    ],
    event: subscriptionEvent(author, {
      network_id,
      feed_key: "vectors/ü",
      scope: "network:main:net",
      subscriber_node_id: "agent-ü",
      active: true,
      created_at: T + 2,
      agent_envelope: { message_json: "", protocol: "" },
    }),
    lane: subscriptionsLane,
    tag: "subscriptions",
  };
}

function unsubscribed(): Vector {
  const event_id = "552cfcd8939660524a1d1b2a18468f1af284074b105fe622fe5900d69af9a5e3";
  const signature_hex =
    "d34a7072a0132ce84d4eddd26f639b455e1c1639885f5c84f82cf6c4cf0c5472faab4a645c95eaf5911f3e748b72933c8bb557df883650263f40c2360622960e";
  return {
    event_id,
    signature_hex,
    text: joined(
      `{"event_id":"${event_id}","protocol_version":"0.1.0","event_kind":"FEED_SUBSCRIPTION_UPDATED",`,
      `"task_id":null,"swarm_scope":"global","epoch":1,"author_node_id":"${first.id}",`,
      `"created_at":1700000000003,"payload":{"type":"FeedSubscriptionUpdated","payload":{`,
      `"network_id":"vectors","subscriber_node_id":"${first.id}","feed_key":"vectors/gone",`,
      `"scope_hint":"global","gossip_kinds":["messages"],"active":false}},`,
      `"signature_hex":"${signature_hex}"}`,
    ),
    spelled: [["vectors/gone", "\\u0076ectors\\/gone"]],
    event: subscriptionEvent(author, {
      network_id,
      feed_key: "vectors/gone",
      scope: "global",
      active: false,
      created_at: T + 3,
    }),
    lane: subscriptionsLane,
    tag: "subscriptions",
  };
}

const vectors = [keysAndNumbers(), nestedEnvelope(), subscribed(), unsubscribed()];

/** The vector as an item of a push, spelled as its author might. */
function sentItem({ spelled, text, event }: Vector): string {
  const sent = spelled.reduce((all, [part, other]) => all.replace(part, () => other), text);
  expect(sent).not.toBe(text);
  return item(sent, event.swarm_scope);
}

const textsOf = (replies: Reply[]) => replies.flatMap(eventTexts);

describe("known answers", () => {
  test("07 the tests' own events are what another program computed", () => {
    for (const vector of vectors) {
      expect(encoded(vector.event)).toBe(vector.text);
      expect(recomputed(author, vector.event)).toEqual({
        event_id: vector.event_id,
        signature_hex: vector.signature_hex,
      });
    }
    expect([author.id, local.id]).toEqual([first.id, second.id]);
  });

  test("07.22 fixed events are accepted, and read back from log and lanes byte for byte", async () => {
    const push = await new Peer(server, network_id).push(...vectors.map(sentItem));
    expect([push.status, push.body]).toMatchObject([200, { accepted: 4, duplicates: 0, rejected: [] }]);

    const log = await server.send("POST", "/v0/topics/_feeds/diff", { include_tags: true });
    expect(payloads(log, "data")).toEqual(vectors.map(({ text }) => text));
    expect(column(log, "$tag")).toEqual(vectors.map(({ tag }) => tag));

    const reader = new Peer(server, network_id);
    const lanes = [vectors[0]!.lane, vectors[1]!.lane, subscriptionsLane];
    const replies = [];
    for (const lane of lanes) replies.push(await reader.backfill(lane));
    expect(textsOf(replies)).toEqual(vectors.map(({ text }) => text));

    // The spelling is another one, the events are not.
    const again = await new Peer(server, network_id).push(
      ...vectors.map(({ text, event }) => item(text, event.swarm_scope)),
    );
    expect(again.body).toMatchObject({ accepted: 0, duplicates: 4, rejected: [] });

    const listed = await newFeed(server, "group:Crew-7", "vectors/keys").list();
    expect(listed).toMatchObject([
      {
        message_id: vectors[0]!.event_id,
        author_node_id: first.id,
        content_ref: { digest: vectors[0]!.digest, size_bytes: 309 },
        created_at: T,
      },
    ]);
    expect(canonical(listed[0]!.content)).toBe(
      canonical(vectors[0]!.event.payload.payload.local_content_cache),
    );
  });
});

describe("events of the instance", () => {
  test("07 node_id is the public key of the configured seed, the network the configured one", async () => {
    const { body } = await peerStatus(server);
    expect(body).toMatchObject({ node_id: second.id, network_id });
  });

  test("07 without a configured network it is the local one of the node", async () => {
    await using own = await startServer({ FEED_NODE_SEED: first.seed });
    const { body } = await peerStatus(own);
    expect(body).toMatchObject({ node_id: first.id, network_id: `local:${first.id}` });
  });

  test("07 without a configured seed every instance makes its own", async () => {
    await using one = await startServer();
    await using other = await startServer();
    const ids = [(await peerStatus(one)).body.node_id, (await peerStatus(other)).body.node_id];
    expect(ids).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/), expect.stringMatching(/^[0-9a-f]{64}$/)]);
    expect(ids[0]).not.toBe(ids[1]);
  });

  const minimal = { protocol: "acme/1" };
  const cardSent = '{"b":1.0,"10":[],"9":{"\\ud83d\\ude00":1,"\\uff5e":-0}}';
  const envelope = joined(
    `{"signature":" s ","unknown":{"a":1},"message":{"b":[1.0,"\\u00e9"],"10":1,"9":1e21},"protocol":" p ",`,
    `"extensions":[{"z":-0.0,"a":null}],"source_node_id":"n","capability":"c","target_node_id":"t",`,
    `"target_agent_id":"ta","source_agent_id":"sa","transport_profile":"tp",`,
    `"source_agent_card":{"card":${cardSent},"unknown":1,"signature":"cs","issued_at":0,"card_hash":"h","agent_id":"a"}}`,
  );
  const envelopeSigned = {
    protocol: " p ",
    transport_profile: "tp",
    source_agent_id: "sa",
    target_agent_id: "ta",
    source_node_id: "n",
    target_node_id: "t",
    capability: "c",
    source_agent_card: {
      agent_id: "a",
      card_hash: "h",
      issued_at: 0,
      card: JSON.parse(cardSent),
      signature: "cs",
    },
    message_json: '{"10":1,"9":1e+21,"b":[1,"é"]}',
    extensions_json: '[{"a":null,"z":0}]',
    signature: " s ",
  };

  test.each<[string, string, string, string, object]>([
    ["a text", "group:a", '"scope_hint":"group:a","content":"text"', '"text"', {}],
    ["numbers", "group:a", '"scope_hint":"group:a","content":[1.0,-0,1E3,0.10]', "[1,0,1000,0.1]", {}],
    [
      "a scope in another spelling",
      "group:A",
      '"scope_hint":"  GROUP : A ","content":0',
      "0",
      { scope_hint: "GROUP : A" },
    ],
    ["local with an id", "node:x", '"scope_hint":"local:x","content":{}', "{}", { scope_hint: "local:x" }],
    [
      "a content as deep as a body may hold",
      "group:a",
      `"scope_hint":"group:a","content":${"[".repeat(126)}${"]".repeat(126)}`,
      `${"[".repeat(126)}${"]".repeat(126)}`,
      {},
    ],
    ["a direct message", "dm:a:b", '"scope_hint":"dm:b:a","content":[]', "[]", { scope_hint: "dm:b:a" }],
    ["global", "global", '"scope_hint":"Global","content":false', "false", { scope_hint: "Global" }],
    [
      "keys twice and escapes",
      "group:a",
      '"scope_hint":"group:a","content":{"b":1,"a":"\\/\\u00e9\\u2028","\\u0062":2}',
      '{"a":"/é\u2028","b":2}',
      {},
    ],
    [
      "a reply",
      "group:a",
      '"scope_hint":"group:a","content":1,"reply_to_message_id":" parent "',
      "1",
      { reply_to_message_id: "parent" },
    ],
    [
      "optional strings that are null or blank",
      "group:a",
      '"scope_hint":"group:a","content":1,"reply_to_message_id":" ","network_id":null,"agent_envelope":null',
      "1",
      {},
    ],
    [
      "the least envelope",
      "group:a",
      `"scope_hint":"group:a","content":1,"agent_envelope":${JSON.stringify(minimal)}`,
      "1",
      { agent_envelope: { ...minimal, message_json: "" } },
    ],
    [
      "a full envelope with aliases",
      "group:a",
      `"scope_hint":"group:a","content":1,"agent_envelope":${envelope}`,
      "1",
      { agent_envelope: envelopeSigned },
    ],
    [
      "an envelope whose message and extensions are texts",
      "group:a",
      '"scope_hint":"group:a","content":1,"agent_envelope":{"protocol":"p","message":" 1.0 ","extensions":" x "}',
      "1",
      { agent_envelope: { protocol: "p", message_json: " 1.0 ", extensions_json: " x " } },
    ],
  ])("07.22 a post recomputes from backfill: %s", async (_, scope, members, content, parts) => {
    const { key: feed_key } = newFeed(server);
    const posted = await server.send("POST", paths.messages, `{"feed_key":" ${feed_key} ",${members}}`);
    expect(posted.status).toBe(200);

    const { texts } = await new Peer(server, network_id).pages(messagesLane(scope, feed_key));
    const { created_at } = JSON.parse(texts[0]!) as SignedEvent;
    const built = messageEvent(local, {
      network_id,
      feed_key,
      scope,
      content: JSON.parse(content),
      created_at,
      ...parts,
    });
    expect(texts).toEqual([encoded(built)]);
    expect(posted.body).toMatchObject({ event_id: built.event_id, message_id: built.event_id });
    expect(Math.abs(created_at - Date.now())).toBeLessThan(10_000);
  });

  test.each<[string, string, object]>([
    ["a subscription", '"active":true', { active: true }],
    ["the end of one", '"active":false', { active: false }],
    [
      "a named subscriber with an envelope",
      '"active":true,"subscriber_node_id":" agent-1 ","agent_envelope":{"message":[1.0],"protocol":"p"}',
      { active: true, subscriber_node_id: "agent-1", agent_envelope: { protocol: "p", message_json: "[1]" } },
    ],
  ])("07.22 it recomputes, too: %s", async (_, members, parts) => {
    const { key: feed_key } = newFeed(server);
    const body = `{"feed_key":"${feed_key}","scope_hint":"REGION:x",${members}}`;
    const posted = await server.send("POST", paths.subscriptions, body);
    expect(posted.status).toBe(200);

    const { texts, ids } = await new Peer(server, network_id).pages(subscriptionsLane);
    const found = texts[ids.indexOf(posted.body.event_id)]!;
    const { created_at } = JSON.parse(found) as SignedEvent;
    const built = subscriptionEvent(local, {
      network_id,
      feed_key,
      scope: "region:x",
      scope_hint: "REGION:x",
      active: true,
      created_at,
      ...parts,
    });
    expect(found).toBe(encoded(built));
  });

  test("07 only an active subscription carries capabilities", async () => {
    const { key: feed_key } = newFeed(server);
    for (const active of [true, false]) await subscribe(server, { feed_key, scope_hint: "group:a", active });
    const { texts } = await new Peer(server, network_id).pages(subscriptionsLane);
    const own = texts.map((text) => JSON.parse(text).payload.payload).filter((p) => p.feed_key === feed_key);
    expect(own.map(({ active, provider_capabilities }) => [active, provider_capabilities])).toEqual([
      [true, capabilities],
      [false, undefined],
    ]);
  });

  test("07 size counts the encoded event: as large as it may be, to the byte", async () => {
    const { key: feed_key } = newFeed(server);
    const largest = sizedMessage(local, { network_id, feed_key, scope: "group:a" }, EVENT_BYTES_MAX);
    expect(Buffer.byteLength(encoded(largest))).toBe(131_072);

    const content = largest.payload.payload.local_content_cache as string;
    const post = (content: string) =>
      server.send("POST", paths.messages, { feed_key, scope_hint: "group:a", content });
    expect((await post(content)).status).toBe(200);
    const refused = await post(`${content}x`);
    expect([refused.status, refused.body.error]).toEqual([400, "invalid event: event bytes > 128KB"]);
    const { texts } = await new Peer(server, network_id).pages(messagesLane("group:a", feed_key));
    expect(texts.map((text) => Buffer.byteLength(text))).toEqual([131_072]);
  });
});
