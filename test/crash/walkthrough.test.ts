/** The README's shell blocks, copied and run in their order as they stand there. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { command, temporaryDirectory } from "../support/spawn.ts";

setDefaultTimeout(90_000);

const root = join(import.meta.dir, "../..");
const quoted = (words: readonly string[]) => words.map((word) => `'${word}'`).join(" ");

/** The shell blocks of a section with all below it. */
async function blocks(heading: string): Promise<string[]> {
  const readme = await readFile(join(root, "README.md"), "utf8");
  const [level = ""] = heading.split(" ");
  const [, section = ""] = readme.split(`\n${heading}\n`);
  const [body = ""] = section.split(new RegExp(`^#{1,${level.length}} `, "m"));
  return [...body.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = ""]) => block);
}

/**
 * What the blocks call that would not do here: streams and the worker end after a moment, and nothing is taken from
 * the internet.
 */
const programs: Record<string, string> = {
  topics: `exec ${quoted(command)} "$@"`,
  npx: `shift 2; exec '${process.execPath}' "$@"`,
  curl: `case $1 in -sN) timeout 1 '${Bun.which("curl")}' "$@"; exit 0;; esac; exec '${Bun.which("curl")}' "$@"`,
  sleep: `[ "$1" = 0.2 ] && echo >>naps && [ $(wc -l <naps) -gt 10 ] && exit 1; exec '${Bun.which("sleep")}' "$@"`,
  "send-mail": "cat >>sent",
};

/** A network of its own where that is possible, so that the ports of the README are free. */
const isolated = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"];
const network = Bun.which("unshare") && Bun.spawnSync([...isolated, "true"]).success ? isolated : [];

/** What keeps the blocks from being run on this machine. */
const obstacles = ["bash", "curl", "jq", "timeout"].filter((program) => !Bun.which(program));
if (network.length === 0) obstacles.push(...[4000, 4001, 4002].filter(isBusy).map((port) => `port ${port}`));
afterAll(() => {
  if (obstacles.length > 0) console.warn(`skipped the README's blocks, which need ${obstacles.join(", ")}`);
});

function isBusy(port: number): boolean {
  try {
    Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
    return false;
  } catch {
    return true;
  }
}

/** Runs the blocks in one shell beside what `start` starts, once that is ready. Nothing is left running. */
async function run(start: string, script: readonly string[]) {
  await using dir = await temporaryDirectory();
  const bin = join(dir.path, "bin");
  await mkdir(bin);
  for (const [name, body] of Object.entries(programs)) {
    await writeFile(join(bin, name), `#!/bin/sh\n${body}\n`);
    await chmod(join(bin, name), 0o755);
  }
  await symlink(join(bin, "send-mail"), join(dir.path, "send-mail"));
  await symlink(join(root, "test"), join(dir.path, "test"));
  const trap = "trap 'kill $(jobs -p) 2>/dev/null || :' EXIT";
  await writeFile(join(dir.path, "blocks"), `${trap}\nset -e\n${script.join("\n")}`);
  const ready = "until curl -sf localhost:4000/readyz >/dev/null; do kill -0 $!; sleep 0.1; done";
  const shell = Bun.spawn(
    [...network, "timeout", "80", "bash", "-c", `${trap}\nset -e\n${start}\n${ready}\nbash blocks`],
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
  const sent = await readFile(join(dir.path, "sent"), "utf8").catch(() => "");
  return { code, stdout, stderr, sent };
}

const errors = (stdout: string) =>
  [...stdout.matchAll(/\{"error":\{"code":"(\w+)"/g)].map(([, code]) => code);

describe.skipIf(obstacles.length > 0)("what the README tells to type", () => {
  test("under Use works in its order", async () => {
    const { code, stdout, stderr, sent } = await run("topics >log &", await blocks("## Use"));
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    // The queue has no dead letters yet, as it says there.
    expect(errors(stdout)).toEqual(["topic_not_found"]);
    // What the first block has written is still there for those who follow it.
    expect(stdout).toMatch(/^data: .*"sku":"cup"/m);
    expect(stdout).toMatch(/^issues opened 20[01]$/m);
    expect(sent).toContain("bob@example.org");

    const said = [...stdout.matchAll(/"text": "(.*)"/g)].map((match) => match[1]);
    expect(said).toEqual(["I have.", "Who has the keys?"]);
    expect(stdout).toMatch(/"last_event_seq": \d+/);
    expect(stdout.match(/^"group:crew\/chat"$/gm)).toHaveLength(2);
    expect(stdout).toContain('"connected": true');
  });

  test("under Keys works in its order", async () => {
    const [start = "", ...others] = await blocks("### Keys");
    expect(start).toEndWith(" topics\n");
    const { code, stdout, stderr } = await run(`${start.trimEnd()} >log &`, others);
    expect({ code, stderr, errors: errors(stdout) }).toEqual({ code: 0, stderr: "", errors: [] });
    expect(stdout).toMatch(/^event: record$/m);
  });
});
