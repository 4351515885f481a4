/** The server's log: one line per event on stdout, as JSON, or readable where a person is looking. */
import pino from "pino";
import pretty from "pino-pretty";

export type Logger = pino.Logger;

export function createLogger(level: string): Logger {
  const options = {
    level: level === "off" ? "silent" : level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  const stdout = pino.destination({ fd: 1, sync: true });
  if (!process.stdout.isTTY) return pino(options, { write: (line) => stdout.write(escapedControls(line)) });
  // An in-process stream: a pino transport is a worker that a compiled executable cannot load.
  const screen = pretty({ colorize: true, sync: true, ignore: "pid,hostname" });
  return pino(options, { write: (line) => screen.write(shownControls(line)) });
}

/** JSON escapes the control characters below U+0020; the others can confuse a terminal as well. */
const escapedControls = (line: string): string =>
  line.replace(/[\x7f-\x9f\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** As `escapedControls`, and all but line ends stay escaped also when the line's JSON is parsed and shown. */
const shownControls = (line: string): string =>
  escapedControls(line).replace(/\\(?:u....|.)/g, (token) =>
    /^\\[ubfr]/.test(token) ? `\\${token}` : token,
  );
