/** TLS on the port of the server: off by default, on with a certificate and its key, and then nothing else. */
import { beforeAll, describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { connect as connectHttp2 } from "node:http2";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { type Certificate, newCertificate } from "../support/certificate.ts";
import { exchange } from "../support/rawsocket.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { runToEnd, spawnServer, temporaryDirectory } from "../support/spawn.ts";

let certificate: Certificate;
beforeAll(async () => {
  certificate = await newCertificate();
});

/** The settings for a certificate and a key in files of their own. */
async function files({ cert, key }: Partial<Certificate>) {
  const dir = await temporaryDirectory();
  const [certFile, keyFile] = [join(dir.path, "cert.pem"), join(dir.path, "key.pem")];
  if (cert !== undefined) await writeFile(certFile, cert);
  if (key !== undefined) await writeFile(keyFile, key);
  return {
    certFile,
    keyFile,
    env: { TOPICS_TLS_CERT_FILE: certFile, TOPICS_TLS_KEY_FILE: keyFile },
    [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose](),
  };
}

const secured = (server: TestServer) => server.url.replace("http:", "https:");

/** Sends one request to whoever shows the certificate, over HTTP/1.1. */
async function send(server: TestServer, method: string, path: string, body?: unknown) {
  const response = await fetch(secured(server) + path, {
    method,
    tls: { ca: certificate.cert },
    ...(body === undefined
      ? {}
      : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  // biome-ignore lint/suspicious/noExplicitAny: a test looks at whatever came back.
  return { status: response.status, body: (await response.json()) as any };
}

/** What the server chooses of the protocols that a client offers. */
async function negotiated(server: TestServer, offered?: string[]): Promise<string | false | null> {
  const { hostname, port } = new URL(server.url);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = connectTls(
    {
      host: hostname,
      port: Number(port),
      ca: certificate.cert,
      ...(offered === undefined ? {} : { ALPNProtocols: offered }),
    },
    resolve,
  );
  socket.on("error", reject);
  await promise;
  socket.destroy();
  return socket.alpnProtocol;
}

describe("with a certificate", () => {
  test("HTTPS writes and reads", async () => {
    await using tls = await files(certificate);
    await using server = await startServer(tls.env);
    const records = [{ data: "é".repeat(50_000) }, { data: 2 }];
    expect((await send(server, "POST", "/v0/topics/t", { records })).status).toBe(201);
    expect(await send(server, "POST", "/v0/topics/t/diff", {})).toMatchObject({
      status: 200,
      body: { records, head_seq: 2 },
    });
    expect(await send(server, "GET", "/nope")).toMatchObject({
      status: 404,
      body: { error: { code: "not_found" } },
    });
  });

  test("a long poll is answered by a write", async () => {
    await using tls = await files(certificate);
    await using server = await startServer(tls.env);
    await send(server, "PUT", "/v0/topics/t");
    const poll = send(server, "POST", "/v0/topics/t/diff", { wait_ms: 20_000 });
    await send(server, "POST", "/v0/topics/t", { records: [{ data: "news" }] });
    expect((await poll).body.records).toMatchObject([{ data: "news" }]);
  });

  test("the certificate is the configured one", async () => {
    await using tls = await files(certificate);
    await using server = await startServer(tls.env);
    // Nobody else has signed it, so a client that does not know it must refuse it.
    const stranger = await fetch(`${secured(server)}/v0/health`).catch((error: unknown) => error);
    expect(stranger).toBeInstanceOf(Error);
    const { port } = new URL(server.url);
    const named = await fetch(`https://localhost:${port}/v0/health`, { tls: { ca: certificate.cert } });
    expect(named.status).toBe(200);
  });

  test("ALPN chooses HTTP/2 where it is offered, else HTTP/1.1", async () => {
    await using tls = await files(certificate);
    await using server = await startServer(tls.env);
    expect(await negotiated(server, ["h2", "http/1.1"])).toBe("h2");
    expect(await negotiated(server, ["http/1.1"])).toBe("http/1.1");
    expect(await negotiated(server)).toBeFalsy();
  });

  test("HTTP/2 writes and reads", async () => {
    await using tls = await files(certificate);
    await using server = await startServer(tls.env);
    const session = connectHttp2(secured(server), { ca: certificate.cert });
    try {
      const ask = async (method: string, path: string, body: unknown) => {
        const stream = session.request({
          ":method": method,
          ":path": path,
          "content-type": "application/json",
        });
        stream.end(JSON.stringify(body));
        let text = "";
        for await (const chunk of stream) text += chunk;
        return JSON.parse(text);
      };
      expect(await ask("POST", "/v0/topics/t", { records: [{ data: "two" }] })).toMatchObject({
        last_seq: 1,
      });
      expect((await ask("POST", "/v0/topics/t/diff", {})).records).toMatchObject([{ data: "two" }]);
      expect((await send(server, "POST", "/v0/topics/t/diff", {})).body.records).toMatchObject([
        { data: "two" },
      ]);
    } finally {
      session.destroy();
    }
  });

  const head = (line: string) => `${line}\r\nHost: test\r\nConnection: close\r\n\r\n`;
  test.each([
    ["a read", head("GET /v0/health HTTP/1.1")],
    ["a write", head("PUT /v0/topics/plain HTTP/1.1")],
    ["the preface of HTTP/2", `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0`],
    ["junk", "\x16\x03\x01\xff\xffjunk junk junk".padEnd(5000)],
  ])("%s in clear text is refused", async (_, bytes) => {
    await using tls = await files(certificate);
    await using server = await startServer(tls.env);
    const answer = await exchange(server.url, bytes);
    expect(answer).not.toMatch(/^HTTP\/1\.1 [235]/);
    expect(answer).not.toContain('"status"');
    expect((await send(server, "GET", "/v0/topics")).body.topics).toEqual([]);
  });

  test("keys and the log stay as they are", async () => {
    await using tls = await files(certificate);
    await using server = await spawnServer({ env: { ...tls.env, TOPICS_API_KEYS: "mine" } });
    expect((await send(server, "GET", "/v0/topics")).status).toBe(401);
    expect((await send(server, "GET", "/v0/health")).status).toBe(200);
    expect(await server.stop()).toBe(0);
    expect(server.output()).not.toContain("PRIVATE KEY");
    expect(server.output()).not.toContain(certificate.key.split("\n")[1]!);
  });
});

describe("refusing to start", () => {
  const otherKey = () =>
    generateKeyPairSync("ec", {
      namedCurve: "prime256v1",
      privateKeyEncoding: { type: "pkcs8", format: "pem" },
      publicKeyEncoding: { type: "spki", format: "pem" },
    }).privateKey;

  /** Runs to the end, with a port file that must not appear. */
  async function refused(env: Record<string, string>) {
    await using dir = await temporaryDirectory();
    const portFile = join(dir.path, "port");
    const { exitCode, stderr } = await runToEnd([], {
      TOPICS_PORT: "0",
      TOPICS_PORT_FILE: portFile,
      TOPICS_DATA_DIR: join(dir.path, "data"),
      ...env,
    });
    return { exitCode, told: stderr.trim() !== "", listened: await Bun.file(portFile).exists(), stderr };
  }
  const failed = { exitCode: 1, told: true, listened: false };

  test.each(["TOPICS_TLS_CERT_FILE", "TOPICS_TLS_KEY_FILE"] as const)("%s alone", async (name) => {
    await using tls = await files(certificate);
    expect(await refused({ [name]: tls.env[name] })).toMatchObject(failed);
  });

  test.each(["cert", "key"] as const)("a missing %s file is named", async (which) => {
    await using tls = await files({ ...certificate, [which]: undefined });
    const end = await refused(tls.env);
    expect(end).toMatchObject(failed);
    expect(end.stderr).toContain(which === "cert" ? tls.certFile : tls.keyFile);
  });

  test.each<[string, (own: Certificate) => Certificate]>([
    ["no certificate in the file", (own) => ({ ...own, cert: "nothing" })],
    ["no key in the file", (own) => ({ ...own, key: "nothing" })],
    ["empty files", () => ({ cert: "", key: "" })],
    ["certificate and key exchanged", ({ cert, key }) => ({ cert: key, key: cert })],
    ["a key of another certificate", (own) => ({ ...own, key: otherKey() })],
    ["half a certificate", (own) => ({ ...own, cert: own.cert.slice(0, own.cert.length / 2) })],
  ])("%s", async (_, spoil) => {
    await using tls = await files(spoil(certificate));
    const end = await refused(tls.env);
    expect(end).toMatchObject(failed);
    expect(end.stderr).not.toContain(certificate.key.split("\n")[1]!);
  });

  test("a directory for a file", async () => {
    await using tls = await files(certificate);
    await using dir = await temporaryDirectory();
    expect(await refused({ ...tls.env, TOPICS_TLS_KEY_FILE: dir.path })).toMatchObject(failed);
  });
});
