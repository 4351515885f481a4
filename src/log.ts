/**
 * The server's log: one line per event on stdout, as JSON, or readable where a person is looking.
 *
 * Whoever logs never hears that it did not work: a full disk must not end a server that could go on.
 */
import pino from "pino";
import { prettyFactory } from "pino-pretty";

export type Logger = pino.Logger;

/** What cannot be written is kept for later up to here; then the newest lines are dropped. */
const KEPT_BYTES_MAX = 256 * 1024;

export function createLogger(level: string): Logger {
  const options = {
    level: level === "off" ? "silent" : level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  const stdout = pino.destination({ fd: 1, sync: true, maxLength: KEPT_BYTES_MAX });
  stdout.on("error", told());
  if (!process.stdout.isTTY) return pino(options, { write: (line) => stdout.write(escapedControls(line)) });
  const pretty = prettyFactory({ colorize: true, singleLine: true, ignore: "pid,hostname" });
  return pino(options, { write: (line) => stdout.write(String(pretty(shownControls(line)))) });
}

/** Tells of the first error on stderr. */
function told(): (error: Error) => void {
  let isTold = false;
  return ({ message }) => {
    if (!isTold) console.error(`topics: Cannot write the log: ${oneLine(message)}`);
    isTold = true;
  };
}

/** The text with its control characters escaped, line ends as well: for a single line that anybody may see. */
export const oneLine = (text: string): string =>
  escapedControls(
    JSON.stringify(text)
      .slice(1, -1)
      .replace(/\\(["\\])/g, "$1"),
  );

/** JSON escapes the control characters below U+0020; the others can confuse a terminal as well. */
const escapedControls = (line: string): string =>
  line.replace(/[\x7f-\x9f\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** As `escapedControls`, and all but line ends stay escaped also when the line's JSON is parsed and shown. */
const shownControls = (line: string): string =>
  escapedControls(line).replace(/\\(?:u....|.)/g, (token) =>
    /^\\[ubfr]/.test(token) ? `\\${token}` : token,
  );
