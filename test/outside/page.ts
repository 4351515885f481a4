/** The API's documentation in a browser that reaches nothing but the server. Needs Debian's package `chromium`. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { startServer } from "../support/server.ts";
import { temporaryDirectory } from "../support/spawn.ts";

setDefaultTimeout(60_000);

test("the page shows every operation, with no word on the console", async () => {
  await using server = await startServer({ TOPICS_API_KEYS: "full" });
  await using profile = await temporaryDirectory();
  const browser = Bun.spawn(
    [
      "chromium",
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      `--user-data-dir=${profile.path}`,
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
      "--enable-logging=stderr",
      "--virtual-time-budget=10000",
      "--dump-dom",
      `${server.url}/swagger`,
    ],
    { stdout: "pipe", stderr: "pipe" },
  );
  const [dom, log] = await Promise.all([
    new Response(browser.stdout).text(),
    new Response(browser.stderr).text(),
  ]);

  const { paths } = (await server.send("GET", "/swagger/json")).body;
  const summaries = Object.values<Record<string, { summary: string }>>(paths)
    .flatMap((operations) => Object.values(operations))
    .map(({ summary }) => summary);
  expect(summaries.filter((summary) => !dom.includes(summary))).toEqual([]);
  expect(summaries.length).toBeGreaterThan(10);
  expect(log.split("\n").filter((line) => line.includes(":CONSOLE"))).toEqual([]);
});
