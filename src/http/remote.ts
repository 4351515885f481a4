/** Another instance, spoken to over HTTP. */
import type { Static, TSchema } from "@sinclair/typebox";
import { decoder } from "../contract/decode.ts";
import { ApiError, invalid } from "../contract/errors.ts";
import { BACKFILL_BYTES_MAX, PEER_BYTES_MAX, PEER_JSON_DEPTH_MAX } from "../contract/limits.ts";
import { type Backfill, Backfilled, EventsPushed } from "../contract/peers.ts";
import { isLogId } from "../engine/feeds/exchange.ts";
import { isId } from "../engine/feeds/identity.ts";
import { type Push, type Remote, RemoteFailure } from "../engine/feeds/remote.ts";
import { Gathering } from "./gathering.ts";

/** A page, and the lane that it is of, however that is escaped. */
const ANSWER_BYTES_MAX = PEER_BYTES_MAX + BACKFILL_BYTES_MAX;

const readPushed = answerReader(EventsPushed);
const readBackfilled = answerReader(Backfilled);

export class HttpRemote implements Remote {
  readonly #url: string;
  readonly #token: string;

  /** `url`: where the other's routes begin. `token`: what it wants to be shown; empty for nothing. */
  constructor(url: string, token: string) {
    this.#url = url;
    this.#token = token;
  }

  async push({ events, ...head }: Push, signal: AbortSignal): Promise<EventsPushed> {
    // The events are JSON already, in the spelling that was signed.
    const body = `${JSON.stringify(head).slice(0, -1)},"events":[${events.join(",")}]}`;
    return readPushed(await this.#post("/api/peer/events", body, signal));
  }

  async backfill(request: Backfill, signal: AbortSignal): Promise<Backfilled> {
    return readBackfilled(await this.#post("/api/peer/backfill", JSON.stringify(request), signal));
  }

  async #post(path: string, body: string, signal: AbortSignal): Promise<string> {
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (this.#token !== "") headers.authorization = `Bearer ${this.#token}`;
    try {
      // Whoever answers with another place may not be whom the token is for.
      const init = { method: "POST", headers, body, signal, redirect: "manual" } as const;
      const response = await fetch(this.#url + path, init);
      const text = await readText(response);
      if (response.status !== 200) throw new RemoteFailure(refusal(response.status, text), response.status);
      return text;
    } catch (error) {
      if (error instanceof RemoteFailure) throw error;
      const { name, message } = error as Error;
      // The rest is advice to whoever has written this.
      throw new RemoteFailure(message.split(/[.?] /)[0]!, undefined, name === "TimeoutError");
    }
  }
}

async function readText(response: Response): Promise<string> {
  const bytes = new Gathering(ANSWER_BYTES_MAX);
  for await (const piece of response.body ?? []) {
    if (bytes.length + piece.length > ANSWER_BYTES_MAX) {
      throw new RemoteFailure("the answer is too large", 200);
    }
    bytes.add(piece);
  }
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.end());
}

/** Reads an answer of one shape. Throws `RemoteFailure` for anything else. */
function answerReader<T extends TSchema>(schema: T) {
  const decode = decoder(schema, PEER_JSON_DEPTH_MAX);
  return (text: string) => {
    try {
      const answer = decode(text) as { ok: boolean; node_id: string; log_id: string };
      const isSound = answer.ok && isId(answer.node_id) && isLogId(answer.log_id);
      if (!isSound) throw invalid("it does not say who answers");
      return answer as Static<T>;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      throw new RemoteFailure(`the answer cannot be understood: ${error.message}`, 200);
    }
  };
}

/** What a refusal says of its reason. */
function refusal(status: number, text: string): string {
  const [, reason] = /"error"\s*:\s*"([^"\\]{1,200})"/.exec(text) ?? [];
  return reason === undefined ? `HTTP ${status}` : `HTTP ${status}: ${reason}`;
}
