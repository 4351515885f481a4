/** The server's log: one line per event on stdout, as JSON, or readable where a person is looking. */
import pino from "pino";
import pretty from "pino-pretty";

export type Logger = pino.Logger;

export function createLogger(level: string): Logger {
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
  // An in-process stream: a pino transport is a worker that a compiled executable cannot load.
  if (process.stdout.isTTY) return pino(options, pretty({ colorize: true, sync: true }));
  return pino(
    { ...options, formatters: { level: (label) => ({ level: label }) } },
    pino.destination({ fd: 1, sync: true }),
  );
}
