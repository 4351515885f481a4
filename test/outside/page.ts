/** The API's documentation in a browser that reaches nothing but the server. Needs Debian's package `chromium`. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { startServer, type TestServer } from "../support/server.ts";

setDefaultTimeout(60_000);

const PHONE = { width: 390, height: 844 };

let server: TestServer;
let browser: Browser;
beforeAll(async () => {
  server = await startServer({ TOPICS_API_KEYS: "full" });
  browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
  });
});
afterAll(async () => {
  await browser.close();
  await server[Symbol.asyncDispose]();
});

/** The page, once it shows its operations. What the browser has to say of it goes to `words`. */
async function open(url: string, options: BrowserContextOptions = {}, words: string[] = []): Promise<Page> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("console", (message) => words.push(message.text()));
  page.on("pageerror", (error) => words.push(error.message));
  await page.goto(`${url}/swagger`);
  await page.waitForSelector(".opblock");
  return page;
}

/** Everything below a path of its own, as a proxy serves it. */
function below(path: string) {
  return Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: ({ url, method, headers }) => {
      const { pathname, search } = new URL(url);
      if (!pathname.startsWith(`${path}/`)) return new Response(null, { status: 404 });
      return fetch(server.url + pathname.slice(path.length) + search, { method, headers, decompress: false });
    },
  });
}

test.each(["", "/somewhere/below"])("shows and tries every operation at %p, with no word", async (path) => {
  using proxy = below(path);
  const words: string[] = [];
  const page = await open(`http://127.0.0.1:${proxy.port}${path}`, {}, words);

  const { paths } = (await server.send("GET", "/swagger/json")).body;
  const summaries = Object.values<Record<string, { summary: string }>>(paths)
    .flatMap((operations) => Object.values(operations))
    .map(({ summary }) => summary);
  const shown = await page.locator(".opblock-summary-description").allTextContents();
  expect(shown.sort()).toEqual(summaries.sort());

  const operation = page.locator("#operations-Probes-health");
  await operation.locator(".opblock-summary-control").click();
  await operation.locator(".try-out__btn").click();
  await operation.locator(".execute").click();
  const asked = await operation.locator(".request-url").textContent();
  expect(asked).toContain(`:${proxy.port}${path}/v0/health`);
  expect(await operation.locator(".live-responses-table .response-col_status").last().textContent()).toBe(
    "200",
  );
  expect(words).toEqual([]);
});

test("an error is told on a line, and shown whole to who asks", async () => {
  const page = await open(server.url);
  const operation = page.locator("#operations-Records-appendRecords");
  await operation.locator(".opblock-summary-control").click();
  const full = operation.locator('.response[data-code="422"]');
  expect(await full.textContent()).toContain("topic_full");
  expect(await full.locator("pre").count()).toBe(0);
  await full.locator("button").click();
  expect(await full.locator("pre").textContent()).toContain("cap_records");
});

test("whoever authorizes types the key first", async () => {
  const page = await open(server.url);
  await page.locator(".authorize").first().click();
  await page.waitForSelector(".auth-container");
  const titled = page.locator(".auth-container", { has: page.locator("input:focus") });
  expect(await titled.locator("h4").textContent()).toStartWith("key");
});

test.each(["dark", "light"] as const)("is as %s as the reader likes it", async (colorScheme) => {
  const page = await open(server.url, { colorScheme });
  const colours =
    await page.evaluate(`[document.documentElement, document.querySelector(".swagger-ui .info p")]
    .map((element) => getComputedStyle(element))
    .map(({ backgroundColor, color }, i) => /\\d+/.exec(i === 0 ? backgroundColor : color)[0])`);
  const [back, front] = (colours as string[]).map(Number) as [number, number];
  if (colorScheme === "dark") expect(front - back).toBeGreaterThan(128);
  else expect(await page.locator("html.dark-mode").count()).toBe(0);
});

test("fits a phone", async () => {
  const page = await open(server.url, { viewport: PHONE });
  for (const id of ["Topics-putTopic", "Records-appendRecords", "Watch-followTopic", "Watch-openSocket"]) {
    await page.locator(`#operations-${id} .opblock-summary-control`).click();
    await page.waitForSelector(`#operations-${id} .responses-table`);
  }
  expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(PHONE.width);
});
