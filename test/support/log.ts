/** Reading what a server has written to its log. */
import type { SpawnedServer } from "./spawn.ts";
import { until } from "./topics.ts";

export interface Line {
  readonly level: string;
  readonly time: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export const linesOf = (output: string): Line[] =>
  output === ""
    ? []
    : output
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line));

/** A line as text, without its time: a number in there would pass for anything. */
export const shown = ({ time, ...line }: Line) => JSON.stringify(line);

/** For every wanted line the first one that fits behind the one before; what is missing is undefined. */
export function inOrder(
  lines: readonly Line[],
  wanted: readonly ((line: Line) => boolean)[],
): (Line | undefined)[] {
  let from = 0;
  return wanted.map((fits) => {
    const found = lines.findIndex((line, i) => i >= from && fits(line));
    if (found < 0) return undefined;
    from = found + 1;
    return lines[found];
  });
}

/** The lines once the last one of the start is there: it holds the address. */
export async function started(server: SpawnedServer): Promise<Line[]> {
  const { host } = new URL(server.url);
  await until(
    async () => server.output(),
    (output) => output.endsWith("\n") && output.includes(host),
  );
  return linesOf(server.output());
}
