/** How the tables of a report are written: their cells, columns and titles. */

export const NONE = "-";
/** A generator that uses more of a core than this may be what limits the row. */
const GENERATOR_SHARE_MAX = 0.9;

/** Nothing if there are no rows. */
export const section = (title: string, text: string, length: number) =>
  length === 0 ? "" : `${title}\n\n${text}`;

/** Columns as wide as their widest cell; the first `leftColumns` hold words, the others numbers. */
export function table(head: string[], rows: string[][], leftColumns: number): string {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: string[]) =>
    cells
      .map((cell, i) => (i < leftColumns ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join("  ");
  return [head, widths.map((width) => "-".repeat(width)), ...rows]
    .map((cells) => line(cells).trimEnd())
    .join("\n");
}

export const whole = (value: number) => Math.round(value).toLocaleString("en");
export const fraction = (value: number, digits: number) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const times = (ratio: number | undefined) => (ratio === undefined ? NONE : `${ratio.toFixed(2)} x`);
export const percent = (share: number) => `${Math.round(share * 100)} %`;
export const mib = (bytes: number) => `${whole(bytes / 2 ** 20)} MiB`;
export const gib = (bytes: number) => `${whole(bytes / 2 ** 30)} GiB`;
export const generatorShare = (share: number) => percent(share) + (share > GENERATOR_SHARE_MAX ? " !" : "");
