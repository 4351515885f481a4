/** The README's conversation of two agents on two instances, copied and run as it stands there. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { command, temporaryDirectory } from "../support/spawn.ts";

setDefaultTimeout(60_000);

const HEADING = "### Let agents talk across instances";

/** The shell blocks below the heading, joined. */
async function walkthrough(): Promise<string> {
  const readme = await readFile(join(import.meta.dir, "../../README.md"), "utf8");
  const [section = ""] = readme.split(HEADING).slice(1).join("").split("\n### ");
  return [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map((block) => block[1]).join("\n");
}

test("07 two agents talk over two instances as the README says", async () => {
  await using dir = await temporaryDirectory();
  const bin = join(dir.path, "bin");
  await mkdir(bin);
  const topics = join(bin, "topics");
  await writeFile(topics, `#!/bin/sh\nexec ${command.map((word) => `'${word}'`).join(" ")} "$@"\n`);
  await chmod(topics, 0o755);
  const script = await walkthrough();
  expect(script).toContain("question=");
  // Whatever happens, nothing is left running.
  const shell = Bun.spawn(
    ["timeout", "50", "bash", "-c", `trap 'kill $(jobs -p) 2>/dev/null' EXIT\n${script}`],
    {
      cwd: dir.path,
      env: { PATH: `${bin}:${process.env.PATH}`, HOME: dir.path },
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  const [stdout, stderr, code] = await Promise.all([
    new Response(shell.stdout).text(),
    new Response(shell.stderr).text(),
    shell.exited,
  ]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const said = [...stdout.matchAll(/"text": "(.*)"/g)].map((match) => match[1]);
  expect(said).toEqual(["I have.", "Who has the keys?"]);
  expect(stdout).toMatch(/"last_event_seq": \d+/);
  expect(stdout.match(/^"group:crew\/chat"$/gm)).toHaveLength(2);
  expect(stdout).toContain('"connected": true');
});
