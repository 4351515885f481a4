/** Reads a lane page by page, newest first, and takes apart only what is of use. */
import { MESSAGES_LIMIT_MAX } from "../../contract/limits.ts";
import type { Feeds } from "../feeds/feeds.ts";
import type { Message } from "./ballots.ts";
import type { Lane } from "./subscribed.ts";

/** A page that holds something. */
export class Page {
  readonly #texts: readonly string[];

  constructor(texts: readonly string[]) {
    this.#texts = texts;
  }

  get size(): number {
    return this.#texts.length;
  }

  get last(): Message {
    return JSON.parse(this.#texts.at(-1)!);
  }

  /** Those of the first `limit` messages in whose text there is such a place. */
  messages(place: RegExp, limit = this.size): Message[] {
    return this.#texts.slice(0, limit).flatMap((text) => (place.test(text) ? JSON.parse(text) : []));
  }
}

export async function* pagesOf(
  { feedKey, scope }: Lane,
  feeds: Pick<Feeds, "messages">,
): AsyncGenerator<Page> {
  const asked = { feedKey, scopeHint: scope, networkId: undefined, limit: MESSAGES_LIMIT_MAX };
  let before: { beforeCreatedAt: number | undefined; beforeMessageId: string | undefined } = {
    beforeCreatedAt: undefined,
    beforeMessageId: undefined,
  };
  for (;;) {
    const { messages, next_anchor: anchor } = await feeds.messages({ ...asked, ...before });
    if (messages.length > 0) yield new Page(messages);
    if (anchor === null) return;
    // Others get their turn.
    await Bun.sleep(0);
    before = { beforeCreatedAt: anchor.before_created_at, beforeMessageId: anchor.before_message_id };
  }
}
