/**
 * A browser's own EventSource and WebSocket, in a page from another origin, follow topics whatever happens to their
 * connections. Needs Debian's package `chromium`.
 */
import { afterAll, beforeAll, describe, setDefaultTimeout, test } from "bun:test";
import { type Browser, type BrowserContext, chromium } from "playwright-core";
import {
  expectEverything,
  type Followed,
  type Places,
  type Story,
  type Trouble,
  watchFrom,
} from "../support/following.ts";
import { send } from "../support/request.ts";

setDefaultTimeout(60_000);

/** From one look at what a page was told to the next. */
const LOOK_MS = 200;
const KEY = "full";
const authorized = { authorization: `Bearer ${KEY}` };

/** What a page does, by its path. It says what it is told in `told`, events as pairs of name and data. */
const page = `<!doctype html>
<script type="module">
  const { streams, watches, topics, token } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  const told = (window.told = []);
  let last;
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  /**
   * \`again\` is called when the browser does not come back by itself: at a 404, and at half an answer's head. A watch
   * goes on behind what it has sent, so one that broke off before it gave an id must be made anew, too.
   */
  function listen(path, again, query = {}) {
    let hasId = again !== watch;
    const search = new URLSearchParams(token === undefined ? query : { ...query, token });
    const source = new EventSource(streams + path + "?" + search);
    for (const name of ["record", "caught-up", "tombstone", "topic-deleted", "error"]) {
      source.addEventListener(name, (event) => {
        if (event instanceof MessageEvent) {
          told.push([name, event.data]);
          last = event.lastEventId;
          hasId = true;
        } else if (source.readyState === EventSource.CLOSED || !hasId) {
          source.close();
          again();
        }
      });
    }
  }

  /** Where the last id says. */
  function placesNow() {
    if (last === undefined) return Object.fromEntries(topics.map((topic) => [topic, { from_seq: 0 }]));
    const { $epochs, ...seqs } = JSON.parse(atob(last.replaceAll("-", "+").replaceAll("_", "/")));
    const place = (topic) => [topic, { from_seq: seqs[topic], epoch: $epochs[topic] }];
    return Object.fromEntries(topics.map(place));
  }

  function stream() {
    const [[topic, place]] = Object.entries(placesNow());
    listen("/v0/topics/" + topic + "/stream", stream, place);
  }

  async function watch() {
    const body = JSON.stringify({ topics: placesNow() });
    for (;;) {
      try {
        const response = await fetch(watches, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body,
        });
        if (response.ok) return listen((await response.json()).stream_url, watch);
      } catch {}
      await pause(100);
    }
  }

  const places = {};
  function socket() {
    const link = new WebSocket(streams.replace("http", "ws") + "/v0/ws");
    for (const topic of topics) places[topic] ??= { from_seq: 0 };
    link.onopen = () => link.send(JSON.stringify({ op: "subscribe", topics: places }));
    link.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      told.push([frame.op, data]);
      if (frame.op === "record") places[frame.topic].from_seq = frame.to_seq;
      if (frame.op === "subscribed")
        for (const topic of topics) places[topic].epoch = frame.topics[topic].epoch;
    };
    link.onclose = () => pause(100).then(socket);
  }

  ({ stream, watch, socket })[location.pathname.slice(1)]();
</script>`;

let browser: Browser;
let visitor: BrowserContext;
beforeAll(async () => {
  browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--process-per-site"],
  });
  visitor = await browser.newContext();
});
afterAll(() => browser.close());

type Kind = "stream" | "watch" | "socket";

/**
 * Serves the pages, and makes watches for those that have no key. One server for all, as its origin must be
 * known before any other is started.
 */
const site = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname !== "/watches") return new Response(page, { headers: { "content-type": "text/html" } });
    const { topics } = (await request.json()) as { topics: Places };
    return Response.json({ stream_url: await watchFrom(searchParams.get("api")!, topics, authorized) });
  },
});
const origin = `http://127.0.0.1:${site.port}`;
afterAll(() => site.stop(true));

/** Opens a page of its own and passes on what it is told. */
async function visit(kind: Kind, followed: Followed, access: object): Promise<AsyncDisposable> {
  const { streams, api, topics, told } = followed;
  const settings = { streams, watches: `${api}/v0/watch`, topics, ...access };
  const visited = await visitor.newPage();
  visited.on("pageerror", ({ message }) => told("page", JSON.stringify({ message })));
  await visited.goto(`${origin}/${kind}#${encodeURIComponent(JSON.stringify(settings))}`);
  let ending = false;
  const looked = (async () => {
    while (!ending) {
      const events = (await visited.evaluate("told.splice(0)")) as [string, string][];
      for (const [event, data] of events) told(event, data);
      await Bun.sleep(LOOK_MS);
    }
  })();
  return {
    [Symbol.asyncDispose]: async () => {
      ending = true;
      await looked;
      await visited.close();
    },
  };
}

const topicsOf = (kind: Kind) => (kind === "stream" ? ["boats"] : ["boats", "trams", "Zeppelins"]);

const open = (kind: Kind): Story => ({
  topics: topicsOf(kind),
  env: { TOPICS_CORS_ORIGINS: origin },
  // The page comes back with a new WebSocket at once.
  rounds: kind === "socket" ? 5 : 1,
  client: (followed) => visit(kind, followed, {}),
});

/** The page has no key, only a token that reads these topics. */
const locked = (kind: Kind): Story => ({
  topics: topicsOf(kind),
  env: { TOPICS_CORS_ORIGINS: origin, TOPICS_API_KEYS: KEY },
  headers: authorized,
  client: async (followed) => {
    const request = { topics: followed.topics, ttl_ms: 120_000 };
    const { body } = await send(followed.api, "POST", "/v0/tokens", request, authorized);
    const watches = `${origin}/watches?api=${encodeURIComponent(followed.api)}`;
    return visit(kind, followed, { token: body.token, watches });
  },
});

describe.concurrent.each<Trouble>(["cuts", "restarts"])("through %s, a page follows", (trouble) => {
  test.concurrent.each([
    ["a topic", open("stream")],
    ["a watch", open("watch")],
    ["a WebSocket", open("socket")],
    ["a topic with a token", locked("stream")],
    ["a watch with a token", locked("watch")],
  ])("%s", (_, story) => expectEverything(trouble, story));
});
