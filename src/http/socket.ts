/**
 * One WebSocket (RFC 6455): commands come in and are carried out in their order, answers and frames go out, and what
 * the client does not take waits as a position, not as data.
 */
import { SOCKET_BYTES_WAITING_MAX, SOCKET_MESSAGE_BYTES_MAX } from "../contract/limits.ts";
import type { Follower } from "../engine/follower.ts";
import type { Frame } from "../engine/frames.ts";
import type { TellResult } from "../engine/told.ts";
import type { Answer, Commands } from "./commands.ts";
import type { Streams } from "./streams.ts";

/** How Bun keeps sockets: it never closes one that is silent, and drops nothing that was sent. */
export const socketOptions = {
  maxPayloadLength: SOCKET_MESSAGE_BYTES_MAX,
  idleTimeout: 0,
  sendPings: false,
  perMessageDeflate: false,
  backpressureLimit: 4 * SOCKET_MESSAGE_BYTES_MAX,
};

/** Close codes: https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number */
const GOING_AWAY = 1001;
const POLICY_VIOLATION = 1008;

/** So many commands may be under way before the next one has to wait for their answers. */
const UNDER_WAY_MAX = 256;

type Message = string | Buffer;

/** About what a message takes beside its text. */
const MESSAGE_OVERHEAD = 200;
const weightOf = (message: Message): number => message.length + MESSAGE_OVERHEAD;

export class Socket {
  readonly #streams: Streams;
  readonly #follower: Follower;
  readonly #commands: Commands;
  readonly #leave: () => void;
  #ws!: Bun.ServerWebSocket<unknown>;
  /** Messages that have not been looked at. */
  #inbox: Message[] = [];
  /** What all messages take that have not been answered. */
  #waitingBytes = 0;
  #isWorking = false;
  /** Resolves when what was sent has been taken. */
  #taken: PromiseWithResolvers<void> | undefined;
  #isOver = false;
  #isEnding = false;

  /** `leave` is called when the socket is over. */
  constructor(streams: Streams, follower: Follower, commands: Commands, leave: () => void) {
    this.#streams = streams;
    this.#follower = follower;
    this.#commands = commands;
    this.#leave = leave;
  }

  open(ws: Bun.ServerWebSocket<unknown>): void {
    this.#ws = ws;
    if (this.#streams.shutdown.aborted) this.#shutDown();
    this.#streams.shutdown.addEventListener("abort", this.#shutDown);
    this.#tell().catch(this.#fail);
  }

  message(_: Bun.ServerWebSocket<unknown>, message: Message): void {
    this.#inbox.push(message);
    this.#waitingBytes += weightOf(message);
    if (this.#waitingBytes > SOCKET_BYTES_WAITING_MAX) {
      this.#ws.close(POLICY_VIOLATION, "too many commands are waiting");
      return;
    }
    this.#hold();
    if (!this.#isWorking) this.#work().catch(this.#fail);
  }

  drain(ws: Bun.ServerWebSocket<unknown>): void {
    if (ws.getBufferedAmount() > 0) return;
    this.#taken?.resolve();
    this.#taken = undefined;
    this.#hold();
  }

  close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#inbox = [];
    this.#follower.return();
    this.#streams.shutdown.removeEventListener("abort", this.#shutDown);
    this.#taken?.resolve();
    this.#streams.hold(this, 0);
    this.#leave();
  }

  /** Gives the client up. */
  cut(): void {
    this.close();
    this.#ws.terminate();
  }

  readonly #fail = (error: unknown): void => {
    this.#commands.unexpected(error);
    this.cut();
  };

  /** Says why, and ends. What has come in is not carried out any more. */
  end(code: string, message: string, closeCode: number = POLICY_VIOLATION): void {
    this.#isEnding = true;
    this.#send([JSON.stringify({ op: "error", code, message })]);
    this.#ws.close(closeCode, message);
  }

  /** What the follower finds, as fast as the client takes it. */
  async #tell(): Promise<void> {
    for (;;) {
      const { value, done } = await new Promise<TellResult>((resolve) => {
        const result = this.#follower.next(resolve);
        if (result) resolve(result);
      });
      if (done) return;
      await this.#taken?.promise;
      const wanted = value.filter(({ from }) => !from.isDropped);
      this.#send(wanted.map(({ frame }) => spelled(frame)));
    }
  }

  /** Carries out what has come in, publishes beside each other. */
  async #work(): Promise<void> {
    this.#isWorking = true;
    const underWay: { answer: Promise<Answer>; weight: number }[] = [];
    const settle = async () => {
      for (const { answer, weight } of underWay.splice(0)) {
        await this.#answer(await answer);
        this.#waitingBytes -= weight;
      }
    };
    while (this.#inbox.length > 0) {
      for (const message of this.#inbox.splice(0)) {
        if (this.#isOver || this.#isEnding) return;
        const command = this.#commands.read(message);
        if (!command.mayShare || underWay.length === UNDER_WAY_MAX) await settle();
        underWay.push({ answer: command.carryOut(), weight: weightOf(message) });
        if (!command.mayShare) await settle();
      }
      await settle();
    }
    this.#isWorking = false;
    this.#hold();
  }

  async #answer({ text, next }: Answer): Promise<void> {
    await this.#taken?.promise;
    if (this.#isOver) return;
    this.#send([text]);
    next?.();
  }

  #send(texts: readonly string[]): void {
    if (this.#isOver || texts.length === 0) return;
    this.#ws.cork(() => {
      for (const text of texts) this.#ws.send(text);
    });
    if (this.#ws.getBufferedAmount() > 0) {
      this.#taken ??= Promise.withResolvers();
      this.#hold();
    }
  }

  #hold(): void {
    if (this.#isOver) return;
    this.#streams.hold(this, this.#waitingBytes + (this.#taken ? this.#ws.getBufferedAmount() : 0));
  }

  readonly #shutDown = (): void =>
    this.end("server_shutting_down", "server is shutting down; reconnect", GOING_AWAY);
}

/** A frame as a message, which many sockets may share. */
function spelled(frame: Frame): string {
  let message = messages.get(frame);
  if (message === undefined) {
    message = `{"op":"${frame.event.replace("-", "_")}",${frame.members}}`;
    messages.set(frame, message);
  }
  return message;
}
const messages = new WeakMap<Frame, string>();
