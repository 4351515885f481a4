/** A connection to a server that speaks in lines, such as Redis or NATS: one question at a time, and its answer. */
import type { Socket } from "bun";

export interface Line {
  /** Says something and gives the answer as soon as that holds `until`. */
  ask(text: Buffer, until?: string): Promise<string>;
  end(): void;
}

export async function openLine(url: string): Promise<Line> {
  const { hostname, port } = new URL(url);
  let answer = Promise.withResolvers<string>();
  let heard = "";
  let awaited = "";
  const data = (_: Socket, chunk: Buffer) => {
    heard += chunk.toString("latin1");
    if (/^-/m.test(heard)) answer.reject(new Error(`The server answered ${heard}`));
    if (heard.includes(awaited)) answer.resolve(heard);
  };
  const close = () => answer.reject(new Error("The server ended the connection of a publisher"));
  const socket = await Bun.connect({ hostname, port: Number(port), socket: { data, close } });
  answer.promise.catch(() => {});
  return {
    ask: (text, until = "\r\n") => {
      answer = Promise.withResolvers();
      heard = "";
      awaited = until;
      socket.write(text);
      return answer.promise;
    },
    end: () => {
      answer.promise.catch(() => {});
      socket.terminate();
    },
  };
}

/** A command as Redis takes it. */
export function command(...words: string[]): Buffer {
  const parts = words.map((word) => `$${word.length}\r\n${word}\r\n`);
  return Buffer.from(`*${words.length}\r\n${parts.join("")}`);
}
