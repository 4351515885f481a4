/** `curl -N` in a loop, with the last id that it printed, follows topics whatever happens to its connections. */
import { describe, setDefaultTimeout, test } from "bun:test";
import { eventIn } from "../support/eventstream.ts";
import { expectEverything, type Followed, placesIn, type Trouble, watchFrom } from "../support/following.ts";

setDefaultTimeout(60_000);

/** Before curl is started again. */
const PAUSE_MS = 100;
/** As that is soon, there is time for many cuts. */
const rounds = 5;
/** curl's exit code for a status of 400 or more, with `--fail`. */
const REFUSED = 22;

/** The path of the stream, asked again with the last id when it has gone. */
type Path = (last: string | undefined) => Promise<string>;

/** Follows until it is disposed. */
class Loop implements AsyncDisposable {
  readonly #options: readonly string[];
  readonly #followed: Followed;
  readonly #path: Path;
  readonly #ended: Promise<void>;
  #last: string | undefined;
  #curl: Bun.Subprocess | undefined;
  #ending = false;

  constructor(options: readonly string[], followed: Followed, path: Path) {
    this.#options = options;
    this.#followed = followed;
    this.#path = path;
    this.#ended = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending = true;
    this.#curl?.kill();
    await this.#ended;
  }

  async #run(): Promise<void> {
    let path = await this.#path(undefined);
    while (!this.#ending) {
      if ((await this.#follow(path)) === REFUSED) path = await this.#path(this.#last);
      await Bun.sleep(PAUSE_MS);
    }
  }

  /** Passes on what curl prints, as long as it runs. An event that breaks off is none. */
  async #follow(path: string): Promise<number> {
    const last = this.#last === undefined ? [] : ["-H", `Last-Event-ID: ${this.#last}`];
    const curl = Bun.spawn(
      ["curl", "-N", "-s", "--fail", ...this.#options, ...last, this.#followed.streams + path],
      {
        stdout: "pipe",
        stderr: "ignore",
      },
    );
    this.#curl = curl;
    const decoder = new TextDecoder();
    let printed = "";
    for await (const chunk of curl.stdout) {
      const blocks = (printed + decoder.decode(chunk, { stream: true })).split("\n\n");
      printed = blocks.pop()!;
      for (const block of blocks) {
        const event = eventIn(`${block}\n\n`);
        if (!event) continue;
        this.#last = event.id;
        this.#followed.told(event.event, event.data);
      }
    }
    return await curl.exited;
  }
}

const streamPath = ({ topics }: Followed) => `/v0/topics/${topics[0]}/stream`;

describe.concurrent.each<Trouble>(["cuts", "restarts"])("through %s, curl follows", (trouble) => {
  test.concurrent.each([
    ["", []],
    [" over HTTP/1.0", ["--http1.0"]],
    [" over HTTP/2", ["--http2-prior-knowledge"]],
    [" that takes compressed answers", ["--compressed"]],
  ])("a topic%s", (_, options) =>
    expectEverything(trouble, {
      topics: ["boats"],
      rounds,
      client: (followed) => new Loop(options, followed, async () => streamPath(followed)),
    }),
  );

  test.concurrent("a topic with a key", () =>
    expectEverything(trouble, {
      topics: ["boats"],
      rounds,
      env: { TOPICS_API_KEYS: "full,reader:read" },
      headers: { authorization: "Bearer full" },
      client: (followed) =>
        new Loop(["-H", "Authorization: Bearer reader"], followed, async () => streamPath(followed)),
    }));

  test.concurrent("a watch", () =>
    expectEverything(trouble, {
      topics: ["boats", "trams", "Zeppelins"],
      rounds,
      client: (followed) =>
        new Loop([], followed, (last) => watchFrom(followed.api, placesIn(last, followed.topics))),
    }));
});
