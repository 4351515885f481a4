/** Two event source clients from npm follow topics, whatever happens to their connections. */
import { describe, setDefaultTimeout, test } from "bun:test";
import { EventSource } from "eventsource";
import { createEventSource } from "eventsource-client";
import { expectEverything, type Followed, placesIn, type Trouble, watchFrom } from "../support/following.ts";

setDefaultTimeout(60_000);

const EVENTS = ["record", "caught-up", "tombstone", "topic-deleted", "error"];

/** A connection of a client. */
interface Source {
  close(): void;
}

/** Opens the stream of a path with a client of its own. `gone` is called where there is no such stream any more. */
type Opened = (
  url: string,
  told: (id: string, event: string, data: string) => void,
  gone: () => void,
) => Source;

const eventSource: Opened = (url, told, gone) => {
  const source = new EventSource(url);
  for (const name of EVENTS) {
    source.addEventListener(name, (event) => {
      // The server's `error` events have data, the client's own have none.
      if (event.data !== undefined) told(event.lastEventId, name, event.data);
      else if (source.readyState === source.CLOSED) gone();
    });
  }
  return source;
};

const eventSourceClient: Opened = (url, told, gone) =>
  createEventSource({
    url,
    onMessage: ({ id, event, data }) => told(id!, event!, data),
    // The client takes any answer for a stream.
    fetch: async (input, init) => {
      const response = await fetch(input, init as RequestInit);
      if (response.status === 404) gone();
      return response as never;
    },
  });

/** Follows one topic by the stream that needs no watch. */
function followStream(open: Opened, { streams, topics, told }: Followed): AsyncDisposable {
  const source = open(
    `${streams}/v0/topics/${topics[0]}/stream`,
    (_, event, data) => told(event, data),
    () => told("404", "{}"),
  );
  return { [Symbol.asyncDispose]: async () => source.close() };
}

/** Follows all topics by a watch, and makes a new one where the old one has gone. */
async function followWatch(open: Opened, { streams, api, topics, told }: Followed): Promise<AsyncDisposable> {
  let last: string | undefined;
  let source: Source | undefined;
  const watch = async () => {
    source?.close();
    source = open(
      streams + (await watchFrom(api, placesIn(last, topics))),
      (id, event, data) => {
        last = id;
        told(event, data);
      },
      () => void watch(),
    );
  };
  await watch();
  return { [Symbol.asyncDispose]: async () => source?.close() };
}

describe.concurrent.each([
  ["eventsource", eventSource],
  ["eventsource-client", eventSourceClient],
] as const)("%s", (_, open) => {
  test.concurrent.each<Trouble>(["cuts", "restarts"])("follows a topic through %s", (trouble) =>
    expectEverything(trouble, { topics: ["boats"], client: (followed) => followStream(open, followed) }),
  );

  test.concurrent.each<Trouble>(["cuts", "restarts"])("follows a watch through %s", (trouble) =>
    expectEverything(trouble, {
      topics: ["boats", "trams", "Zeppelins"],
      client: (followed) => followWatch(open, followed),
    }),
  );
});
