/** The README's table of settings is the code's. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { type Setting, settings } from "../../src/config.ts";

const code = (text: string | undefined) => (text ? `\`${text}\`` : "");

test("the README tells every setting with its flag, variable, default and range", async () => {
  const rows = (Object.values(settings) as Setting[]).map(({ flag, variable, otherwise, range, what }) => [
    code(flag?.split(" ")[0]),
    code(variable),
    code(variable && String(otherwise)),
    range ?? "",
    what,
  ]);
  const table = [["flag", "variable", "default", "range", ""], ["---", "---", "---", "---", "---"], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  const lines = table.map(
    (row) =>
      `| ${row.map((cell, i) => (cell === "---" ? "-".repeat(widths[i]!) : cell.padEnd(widths[i]!))).join(" | ")} |`,
  );
  expect(await Bun.file(join(import.meta.dir, "../../README.md")).text()).toContain(lines.join("\n"));
});
