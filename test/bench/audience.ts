/**
 * Many connections that only listen, with as little work as possible for each delivery: raw sockets whose
 * bytes are searched for a mark and thrown away. All systems are heard by this one code.
 */
import type { Socket } from "bun";

/** In each payload of the loads once, and in nothing that a server adds. */
export const CLICK = Buffer.from('"click"');
/** From the first byte of a payload's number to the end of its mark: `100001,"kind":"click"`. */
const KEPT_BYTES = 21;
const NUMBER_DIGITS = 6;
const LINE_FEED = 10;
const CLOSING_BRACE = 125;
const NOTHING = Buffer.alloc(0);
/** Connections opened at a time: not more than a server lets wait. */
const OPENING = 100;
const OPEN_DEADLINE_MS = 30_000;

/** What a listener says, and what it then waits for before it goes on; an empty text is not waited for. */
export interface Step {
  readonly say: string | Buffer;
  readonly until: string;
}

/** Where a payload's mark was found: the number of the payload stands before it. */
export function numberAt(bytes: Buffer, at: number): number {
  const from = at + CLICK.length - KEPT_BYTES;
  return Number(bytes.toString("latin1", from, from + NUMBER_DIGITS));
}

export class Audience implements Disposable {
  /** What is counted. */
  mark = CLICK;
  /** What each listener says when it has heard something. */
  reply: Buffer | undefined;
  /** Hears of each mark. */
  onMark: ((bytes: Buffer, at: number) => void) | undefined;
  readonly listeners: Listener[] = [];
  /** Bytes that came after the opening. */
  bytes = 0;
  #awaited = 0;
  #onHeard: ((marks: number) => void) | undefined;
  #waiting: PromiseWithResolvers<void> | undefined;

  /** Connects one listener for each list of steps, and lets it go through them. */
  static async open(url: string, stepsOfAll: readonly (readonly Step[])[]): Promise<Audience> {
    const audience = new Audience();
    const { hostname, port } = new URL(url);
    for (let first = 0; first < stepsOfAll.length; first += OPENING) {
      const group = stepsOfAll.slice(first, first + OPENING).map(async (steps) => {
        const listener = new Listener(audience);
        audience.listeners.push(listener);
        await listener.connect(hostname, Number(port));
        await listener.converse(steps);
      });
      await Promise.all(group);
    }
    return audience;
  }

  /** Resolves when `count` more marks were heard in all; `onHeard` learns when they come. */
  async hear(count: number, withinMs: number, onHeard?: (marks: number) => void): Promise<void> {
    this.#awaited = count;
    this.#onHeard = onHeard;
    const waiting = Promise.withResolvers<void>();
    this.#waiting = waiting;
    const late = () => waiting.reject(new Error(`${this.#awaited} of ${count} deliveries never came`));
    const deadline = setTimeout(late, withinMs);
    try {
      await waiting.promise;
    } finally {
      clearTimeout(deadline);
      this.#waiting = undefined;
      this.#onHeard = undefined;
    }
  }

  /** Each listener must have heard everything once. */
  check(each: number): void {
    const wrong = this.listeners.filter(({ heard }) => heard !== each);
    if (wrong.length === 0) return;
    throw new Error(`${wrong.length} listeners heard not ${each} records; the first ${wrong[0]?.heard}`);
  }

  /** Called by a listener. */
  add(marks: number): void {
    this.#onHeard?.(marks);
    this.#awaited -= marks;
    if (this.#awaited <= 0) this.#waiting?.resolve();
  }

  /** Called by a listener whose connection has ended. */
  lose(): void {
    this.#waiting?.reject(new Error("The server ended a connection that listens"));
  }

  [Symbol.dispose](): void {
    for (const listener of this.listeners) listener.leave();
  }
}

class Listener {
  heard = 0;
  isOpen = false;
  readonly #audience: Audience;
  #socket: Socket | undefined;
  #left = false;
  #steps: Step[] = [];
  #conversation: PromiseWithResolvers<void> | undefined;
  /** What was said to this listener in its conversation; the next step looks from `#from`. */
  #text = "";
  #from = 0;
  /** The end of the last bytes, where a payload may have begun. */
  #rest: Buffer = NOTHING;

  constructor(audience: Audience) {
    this.#audience = audience;
  }

  async connect(hostname: string, port: number): Promise<void> {
    const socket = {
      data: (_: Socket, chunk: Buffer) => this.#take(chunk),
      close: () => this.#end(),
    };
    this.#socket = await Bun.connect({ hostname, port, socket });
    this.isOpen = true;
  }

  async converse(steps: readonly Step[]): Promise<void> {
    this.#steps = [...steps];
    const conversation = Promise.withResolvers<void>();
    this.#conversation = conversation;
    const late = () => conversation.reject(new Error(`A listener waits in vain and heard\n${this.#text}`));
    const deadline = setTimeout(late, OPEN_DEADLINE_MS);
    this.#speak();
    await conversation.promise.finally(() => clearTimeout(deadline));
  }

  leave(): void {
    this.#left = true;
    this.#socket?.terminate();
  }

  #end(): void {
    this.isOpen = false;
    if (this.#left) return;
    this.#conversation?.reject(new Error(`The server ended a connection and said\n${this.#text}`));
    this.#audience.lose();
  }

  #take(chunk: Buffer): void {
    if (this.#conversation) {
      this.#advance(chunk.toString("latin1"));
      return;
    }
    this.#audience.bytes += chunk.length;
    const marks = this.#count(chunk);
    if (marks === 0) return;
    this.heard += marks;
    if (this.#audience.reply) this.#socket?.write(this.#audience.reply);
    this.#audience.add(marks);
  }

  /** Says the step that is due. After the last one, what was heard too early is taken as any other bytes. */
  #speak(): void {
    const step = this.#steps[0];
    if (step) {
      if (step.say.length > 0) this.#socket?.write(step.say);
      if (step.until === "") this.#proceed(this.#from);
      return;
    }
    const early = this.#text.slice(this.#from);
    this.#conversation?.resolve();
    this.#conversation = undefined;
    this.#text = "";
    this.#from = 0;
    if (early !== "") this.#take(Buffer.from(early, "latin1"));
  }

  #advance(text: string): void {
    this.#text += text;
    const until = this.#steps[0]?.until ?? "";
    const at = this.#text.indexOf(until, this.#from);
    if (at >= 0) this.#proceed(at + until.length);
  }

  #proceed(from: number): void {
    this.#from = from;
    this.#steps.shift();
    this.#speak();
  }

  /** Bytes may be cut anywhere. Where a line or an object ends, no payload has begun. */
  #count(chunk: Buffer): number {
    const { mark, onMark } = this.#audience;
    const kept = this.#rest.length;
    const bytes = kept > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    let marks = 0;
    for (let at = bytes.indexOf(mark, Math.max(0, kept - mark.length + 1)); at >= 0; marks++) {
      onMark?.(bytes, at);
      at = bytes.indexOf(mark, at + mark.length);
    }
    const last = bytes[bytes.length - 1];
    const ended = last === LINE_FEED || last === CLOSING_BRACE;
    this.#rest = ended ? NOTHING : bytes.subarray(Math.max(0, bytes.length - KEPT_BYTES));
    return marks;
  }
}
