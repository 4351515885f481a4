/** Request targets in forms that ordinary clients do not send. */
import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { absentTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();

/** Sends a write of one record with this request line and these fields, and gives all that is answered. */
async function write(line: string, ...fields: string[]): Promise<string> {
  const body = '{"records":[{"data":1}]}';
  const head = [line, "Content-Type: application/json", `Content-Length: ${body.length}`, ...fields];
  const { hostname, port } = new URL(server.url);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let answer = "";
  const socket = connect(Number(port), hostname, () => socket.write(`${head.join("\r\n")}\r\n\r\n${body}`));
  socket.on("data", (chunk) => {
    answer += chunk;
    if (answer.endsWith("}")) socket.end();
  });
  socket.on("close", () => resolve(answer));
  socket.on("error", reject);
  return promise;
}

describe("a URL within the query", () => {
  let asked = 0;
  const close = ["Host: test", "Connection: close"];

  test.each<[string, (path: string) => string, string[]]>([
    ["HTTP/1.0 without Host", (path) => `POST ${path} HTTP/1.0`, []],
    ["HTTP/1.0 with Host", (path) => `POST ${path} HTTP/1.0`, ["Host: test"]],
    ["HTTP/1.1", (path) => `POST ${path} HTTP/1.1`, close],
    ["an absolute target", (path) => `POST http://test${path} HTTP/1.1`, close],
  ])("is no part of the path in %s", async (_, line, fields) => {
    const [mine, other] = [`mine-${++asked}`, `other-${asked}`];
    const answer = await write(line(`/v0/topics/${mine}?x=http://h/v0/topics/${other}`), ...fields);
    expect(answer).toMatch(/^HTTP\/1\.[01] 20[01] /);
    expect(answer).toContain(`"topic":"${mine}"`);
    expect((await absentTopic(server, mine).state()).body).toMatchObject({ head_seq: 1 });
    expect((await absentTopic(server, other).state()).status).toBe(404);
  });
});
