/** The commands of a WebSocket: what they ask for, who may do that, and their answers. */
import type { TSchema } from "@sinclair/typebox";
import { decoder } from "../contract/decode.ts";
import { ApiError, invalid } from "../contract/errors.ts";
import { DIFF_BYTES_DEFAULT, SOCKET_LIMIT_DEFAULT } from "../contract/limits.ts";
import {
  type SocketCommand,
  SocketMessage,
  type SocketOp,
  socketCommands,
  type WatchFrom,
} from "../contract/watch.ts";
import type { Follower } from "../engine/follower.ts";
import type { Log } from "../engine/log.ts";
import { type Watch, wantsOf } from "../engine/watch.ts";
import type { Caller, Scope } from "./keys.ts";

/** What a command is answered with, and what happens right behind that. */
export interface Answer {
  readonly text: string;
  readonly next?: () => void;
}

export interface Command {
  /** Whether others of its kind may be under way with it. They are answered in their order. */
  readonly mayShare: boolean;
  readonly carryOut: () => Promise<Answer>;
}

export interface CommandParts {
  readonly log: Log;
  readonly watch: Watch;
  readonly follower: Follower;
  /** Who has opened the socket. */
  readonly caller: Caller;
  /** Gets what was thrown and is no answer to a client. */
  readonly unexpected: (error: unknown) => void;
}

const decodeMessage = decoder(SocketMessage);
const decoders = Object.fromEntries(
  Object.entries(socketCommands).map(([op, schema]) => [op, decoder(schema as TSchema)]),
) as { readonly [O in SocketOp]: (text: string) => SocketCommand<O> };

export class Commands {
  readonly #parts: CommandParts;

  get unexpected(): CommandParts["unexpected"] {
    return this.#parts.unexpected;
  }

  constructor(parts: CommandParts) {
    this.#parts = parts;
  }

  read(message: string | Buffer): Command {
    if (typeof message !== "string") {
      const text = JSON.stringify({
        op: "error",
        code: "unsupported_message",
        message: "a text message is needed",
      });
      return { mayShare: false, carryOut: async () => ({ text }) };
    }
    try {
      const { op, request_id: id = "null" } = decodeMessage(message);
      return this.#command(op, id, message);
    } catch (error) {
      const { message } = error as Error;
      const text = errorText("null", "invalid_json", message);
      return { mayShare: false, carryOut: async () => ({ text }) };
    }
  }

  /** Throws for what is no command. `id` is JSON. */
  #command(op: string, id: string, message: string): Command {
    switch (op) {
      case "subscribe": {
        const asked = decoders.subscribe(message);
        return { mayShare: false, carryOut: () => this.#safely(id, () => this.#subscribe(id, asked)) };
      }
      case "unsubscribe": {
        const asked = decoders.unsubscribe(message);
        return {
          mayShare: false,
          carryOut: () => this.#safely(id, async () => this.#unsubscribe(id, asked)),
        };
      }
      case "publish": {
        const asked = decoders.publish(message);
        return { mayShare: true, carryOut: () => this.#safely(id, () => this.#publish(id, asked)) };
      }
      case "ping":
        return { mayShare: false, carryOut: async () => ({ text: answerText("pong", id, {}) }) };
      default:
        throw invalid(`op: expected one of ${Object.keys(socketCommands).join(", ")}`);
    }
  }

  async #subscribe(id: string, asked: SocketCommand<"subscribe">): Promise<Answer> {
    const { topic, topics = new Map<string, WatchFrom>(), lenient = false } = asked;
    const from = new Map(topic === undefined ? topics : [[topic, asked], ...topics]);
    if (from.size === 0) throw invalid("topic or topics is needed");
    this.#allow("read", from.keys());
    const { watch, follower } = this.#parts;
    const starts = await watch.starts(from, lenient);
    const wants = wantsOf(asked, SOCKET_LIMIT_DEFAULT, DIFF_BYTES_DEFAULT);
    const told = Object.fromEntries(Array.from(starts, ([name, { told }]) => [name, told]));
    return {
      text: answerText("subscribed", id, { topics: told }),
      next: () => {
        for (const [name, { place, told }] of starts) follower.add(name, place, wants, told.epoch);
      },
    };
  }

  #unsubscribe(id: string, { topic, topics = [] }: SocketCommand<"unsubscribe">): Answer {
    const names = topic === undefined ? topics : [...topics, topic];
    if (names.length === 0) throw invalid("topic or topics is needed");
    for (const name of names) this.#parts.follower.remove(name);
    return { text: answerText("unsubscribed", id, { topics: names }) };
  }

  async #publish(
    id: string,
    { topic, return_seqs = true, ...append }: SocketCommand<"publish">,
  ): Promise<Answer> {
    const start = performance.now();
    this.#allow("write", [topic]);
    if (append.config != null) this.#allow("admin", [append.config.dead_letter ?? topic]);
    const { appended, cost } = await this.#parts.log.append(topic, append, null, return_seqs);
    const took = { server_total_ms: performance.now() - start, ...cost };
    return { text: answerText("ack", id, { ...appended, seqs: appended.seqs ?? null, performance: took }) };
  }

  #allow(scope: Scope, names: Iterable<string>): void {
    const { caller } = this.#parts;
    if (!caller.may(scope)) throw new ApiError("forbidden", {}, `the API key lacks the scope ${scope}`);
    for (const topic of names) if (!caller.mayName(topic)) throw new ApiError("forbidden", { topic });
  }

  async #safely(id: string, carryOut: () => Promise<Answer>): Promise<Answer> {
    try {
      return await carryOut();
    } catch (error) {
      if (error instanceof ApiError) return { text: errorText(id, error.code, error.message) };
      this.#parts.unexpected(error);
      return { text: errorText(id, "internal", "internal error") };
    }
  }
}

const answerText = (op: string, id: string, members: object): string =>
  `{"op":"${op}","request_id":${id}${membersText(members)}}`;

const errorText = (id: string, code: string, message: string): string =>
  answerText("error", id, { code, message });

function membersText(members: object): string {
  const text = JSON.stringify(members).slice(1, -1);
  return text === "" ? "" : `,${text}`;
}
