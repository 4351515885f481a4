/** Lets everything else that is ready run before a long piece of work goes on. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
