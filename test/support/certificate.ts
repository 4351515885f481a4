/**
 * A certificate for localhost and 127.0.0.1 that signs itself, for tests of TLS.
 *
 * Made anew with `openssl` where that is installed; elsewhere a fixed pair stands in. Its key is public by being
 * here: it is good for nothing but these tests.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryDirectory } from "./spawn.ts";

/** Certificate and key as PEM text. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

const options = [
  ...["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
  ...["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
];

export async function newCertificate(): Promise<Certificate> {
  if (Bun.which("openssl") === null) return fixed;
  await using dir = await temporaryDirectory();
  const [certFile, keyFile] = [join(dir.path, "cert.pem"), join(dir.path, "key.pem")];
  await Bun.$`openssl req ${options} -out ${certFile} -keyout ${keyFile}`.quiet();
  return { cert: await readFile(certFile, "utf8"), key: await readFile(keyFile, "utf8") };
}

/** Valid until 2120. */
const fixed: Certificate = {
  cert: `
-----BEGIN CERTIFICATE-----
MIIBZzCCAQ2gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABO33+th9TAE1uvzF
4dPLeaJkBXgke00oYJYkw5KM1zKLQN+gt8OpP2TcHZuxxuIBVAUL/LMIt/SATQDg
//5Qq1KjTjBMMA8GA1UdEwEB/wQFMAMBAf8wGgYDVR0RBBMwEYIJbG9jYWxob3N0
hwR/AAABMB0GA1UdDgQWBBQ0QyiHAtQmvU24vEJifk8Be0MpajAKBggqhkjOPQQD
AgNIADBFAiEA6TnWLnrHUbTfqkhQY8Q76q7PZ6E2mq3TKb/ZEtO3fVoCIHPxVeOa
sK4yC8aLsiKrogVSHCQ5asB4LahIezpfwvzY
-----END CERTIFICATE-----
`.trimStart(),
  key: `
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgCltfmDsyr1OeRbtB
SaNRcF7imKyLkJb3oEBj4Gow3lGhRANCAATt9/rYfUwBNbr8xeHTy3miZAV4JHtN
KGCWJMOSjNcyi0DfoLfDqT9k3B2bscbiAVQFC/yzCLf0gE0A4P/+UKtS
-----END PRIVATE KEY-----
`.trimStart(),
};
