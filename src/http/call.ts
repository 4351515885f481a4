/** What the server knows of a request while it runs. */
import { anybody, type Caller } from "./keys.ts";

export class Call {
  /** By the process's monotonic clock, in ms. */
  readonly arrivedAt = performance.now();
  caller: Caller = anybody;
  /** Whether it counts among its caller's requests. */
  admitted = false;
  /** Bytes of its body that it holds, after inflating. */
  bodyBytes = 0;
}

const calls = new WeakMap<Request, Call>();

export function begin(request: Request): Call {
  const call = new Call();
  calls.set(request, call);
  return call;
}

/** Throws for a request that has not begun: it must not pass for one that anybody may make. */
export function callOf(request: Request): Call {
  const call = calls.get(request);
  if (call === undefined) throw new Error("the request is not known");
  return call;
}
