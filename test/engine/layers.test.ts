/** The tree is the architecture: which folder may import from which. */
import { describe, expect, test } from "bun:test";
import { dirname, join, relative } from "node:path";
import { Glob } from "bun";

const src = join(import.meta.dir, "../../src");

/** `main -> http -> engine -> store`, and all may use `contract`, which uses only TypeBox. */
const allowed: Record<string, readonly string[]> = {
  contract: ["contract"],
  store: ["store", "contract"],
  engine: ["engine", "store", "contract"],
  http: ["http", "engine", "contract"],
};

/** Packages that belong to one folder. */
const packages: Record<string, readonly string[]> = {
  contract: ["@sinclair/typebox"],
  store: ["bun:sqlite", "node:fs", "node:path", "node:util"],
  engine: ["lru-cache", "node:crypto"],
  http: [
    "bun",
    "elysia",
    "@elysiajs/cors",
    "@elysiajs/swagger",
    "@sinclair/typebox",
    "jose",
    "prom-client",
    "swagger-ui-dist/swagger-ui.css",
    "swagger-ui-dist/swagger-ui-bundle.js",
    "node:crypto",
    "node:stream",
    "node:util",
    "node:zlib",
  ],
};

const files = [...new Glob("*/**/*.ts").scanSync(src)].filter((file) => !file.endsWith(".d.ts"));

async function importsOf(file: string): Promise<string[]> {
  const text = await Bun.file(join(src, file)).text();
  return [...text.matchAll(/^(?:import|export)[^;]*?from "([^"]+)"/gms)].map((match) => match[1]!);
}

describe("the layers", () => {
  test.each(files)("%s imports only what its folder may", async (file) => {
    const folder = file.split("/")[0]!;
    const forbidden = (await importsOf(file)).filter((imported) => {
      if (!imported.startsWith(".")) return !packages[folder]?.includes(imported);
      const target = relative(src, join(src, dirname(file), imported));
      return !target.startsWith("../package.json") && !allowed[folder]?.includes(target.split("/")[0]!);
    });
    expect(forbidden).toEqual([]);
  });

  test("the folders are the known ones", () => {
    expect([...new Set(files.map((file) => file.split("/")[0]!))].sort()).toEqual(
      Object.keys(allowed).sort(),
    );
  });
});
