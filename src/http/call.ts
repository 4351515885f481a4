/** What the server knows of a request while it runs. */
import { anybody, type Caller } from "./keys.ts";

export class Call {
  /** The request as Bun knows it. */
  readonly received: Request;

  /** By the process's monotonic clock, in ms. */
  readonly arrivedAt = performance.now();
  caller: Caller = anybody;
  /** Who shows a token that holds. */
  tokenHolder: Caller | undefined;
  /** Whether it counts among its caller's requests. */
  admitted = false;
  /** What its body may hold, where that is less than others may. */
  bodyBytesMax = Number.POSITIVE_INFINITY;
  /** Bytes of its body that it holds, after inflating. */
  bodyBytes = 0;
  /** Whether its answer is a stream, which may be silent for longer than others. */
  isStream = false;
  /** About how long its answer is, if that was found out. */
  answerBytes = 0;

  constructor(received: Request) {
    this.received = received;
  }
}

const calls = new WeakMap<Request, Call>();

export function begin(request: Request, received = request): Call {
  const call = new Call(received);
  calls.set(request, call);
  return call;
}

/** Throws for a request that has not begun: it must not pass for one that anybody may make. */
export function callOf(request: Request): Call {
  const call = calls.get(request);
  if (call === undefined) throw new Error("the request is not known");
  return call;
}
