/** What a stream of events leaves behind however it ends: nothing. */
import { describe, expect, test } from "bun:test";
import { ApiError } from "../../src/contract/errors.ts";
import { begin } from "../../src/http/call.ts";
import { Caller } from "../../src/http/keys.ts";
import { utf8 } from "../../src/http/sse.ts";
import { Streams } from "../../src/http/streams.ts";
import { Turns } from "../../src/http/turns.ts";
import { turns } from "./setup.ts";

type Texts = (left: AbortSignal) => AsyncGenerator<string>;

/** A stream over `source`, where there is room for one. */
function opened(source: Texts, signal?: AbortSignal, isCurrent = () => true, turn = new Turns()) {
  const limits = { streamsMax: 1, streamsPerKeyMax: 0, streamBytesMax: 0 };
  const streams = new Streams(limits, turn, isCurrent, Date.now, () => {});
  const request = new Request("http://test/v0/topics/q/work", signal ? { signal } : {});
  const caller = new Caller([], [], { requests: 0, bodyBytes: 0, streams: 0 });
  begin(request).caller = caller;
  const opening = {
    caller,
    heartbeatMs: 60_000,
    source,
    spell: utf8,
    ending: (code: string) => `the end: ${code}`,
  };
  const open = () => streams.open(request, opening);
  /** Streams that are open: of all, and of the caller. */
  const held = () => [streams.count, caller.usage.streams];
  return { response: open(), open, held };
}

async function* silent(left: AbortSignal): AsyncGenerator<string> {
  yield "first";
  await new Promise((resolve) => left.addEventListener("abort", resolve));
}

describe("a stream", () => {
  test("whose client has left before there was time for it reads nothing", async () => {
    const busy = new Turns();
    busy.take(new Request("http://test"));
    Bun.sleepSync(20);
    let asked = 0;
    async function* counted(): AsyncGenerator<string> {
      asked++;
      yield "first";
    }
    const leaving = new AbortController();
    const { held } = opened(counted, leaving.signal, undefined, busy);
    expect(held()).toEqual([1, 1]);
    leaving.abort();
    await turns();
    expect([asked, ...held()]).toEqual([0, 0, 0]);

    const { response } = opened(counted);
    expect(await response.text()).toContain("first");
    expect(asked).toBe(1);
  });

  test("whose key was taken away while it was being made is not opened", () => {
    expect(() => opened(silent, undefined, () => false)).toThrow(
      expect.objectContaining({ code: "unauthorized" }),
    );
  });

  test("keeps its place while it is open, and no other one is let in", () => {
    const { open, held } = opened(silent);
    expect(open).toThrow(ApiError);
    expect(held()).toEqual([1, 1]);
  });

  const failing: [string, Texts][] = [
    [
      "at once",
      // biome-ignore lint/correctness/useYield: it never comes to that.
      async function* () {
        throw new Error("gone");
      },
    ],
    [
      "behind its first text",
      async function* () {
        yield "first";
        throw new Error("gone");
      },
    ],
  ];

  test.each(failing)("whose source throws %s says so, ends and frees its place", async (_, source) => {
    const { response, open, held } = opened(source);
    expect(await response.text()).toEndWith("the end: internal");
    expect(held()).toEqual([0, 0]);
    expect(open().status).toBe(200);
  });

  test("that ends in order frees its place", async () => {
    const { response, held } = opened(async function* () {
      yield "first";
      yield "last";
    });
    expect(await response.text()).toBe("retry: 2000\n\nfirstlast");
    expect(held()).toEqual([0, 0]);
  });

  test("whose client leaves tells its source and frees its place, once", async () => {
    const leaving = new AbortController();
    let told = false;
    const { response, held } = opened(async function* (left) {
      try {
        yield* silent(left);
      } finally {
        told = left.aborted;
      }
    }, leaving.signal);
    const reader = response.body!.getReader();
    await reader.read();
    leaving.abort();
    await reader.cancel();
    await turns();

    expect(held()).toEqual([0, 0]);
    expect(told).toBe(true);
  });
});
