/** Whether the process is to stop: heard from the moment on that this is loaded, before all that takes longer to load. */

/** The signal that asks for it, or what went wrong. */
export type Stop = { readonly signal: string } | { readonly reason: unknown };

const { promise, resolve } = Promise.withResolvers<Stop>();
let isAsked = false;

/** Resolves when the process is to stop. */
export const asked = promise;

/** The first one counts: false for later ones. */
export function ask(stop: Stop): boolean {
  if (isAsked) return false;
  isAsked = true;
  resolve(stop);
  return true;
}

// Where a person is looking, a SIGHUP means that the terminal has gone.
const signals = process.stdout.isTTY ? ["SIGINT", "SIGTERM", "SIGHUP"] : ["SIGINT", "SIGTERM"];
for (const signal of signals) process.on(signal, () => ask({ signal }));
