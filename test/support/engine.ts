/** The engine without HTTP, with a clock the test sets, on a directory that outlives it. */
import { Engine } from "../../src/engine/engine.ts";
import { Store } from "../../src/store/store.ts";

const checkpointer = new URL("../../src/store/checkpointer.ts", import.meta.url);
const limits = { topicsMax: 0, routersMax: 0, totalBytesMax: 0, watchSessionsMax: 0, heartbeatMsMin: 1000 };

export interface Clock {
  now: number;
}

export class OpenEngine implements Disposable {
  readonly store: Store;
  readonly engine: Engine;

  constructor(dir: string, clock: Clock) {
    const fail = (reason: unknown) => {
      throw reason;
    };
    this.store = new Store({
      dir,
      acceptLoss: false,
      checkpointer,
      checkpoints: { delayed: fail, ended: fail },
      lost: fail,
    });
    this.engine = new Engine({
      store: this.store,
      limits,
      feeds: { nodeSeed: "", networkId: "", strict: false },
      now: () => clock.now,
      failed: fail,
      unexpected: fail,
    });
  }

  [Symbol.dispose](): void {
    this.engine[Symbol.dispose]();
    this.store[Symbol.dispose]();
  }
}
