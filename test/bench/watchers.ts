/**
 * The load generator of the watch rows, a program of its own so that its CPU time is its own:
 * `bun watchers.ts <plan as JSON>` prints what it found as JSON.
 */
import { type CatchUpPlan, catchUp } from "./catchup.ts";
import { type FanOutPlan, fanOut } from "./fanout.ts";
import { type HeldPlan, hold } from "./held.ts";
import { type SpreadPlan, spread } from "./spread.ts";

const plan = JSON.parse(process.argv[2]!) as FanOutPlan | SpreadPlan | HeldPlan | CatchUpPlan;
process.stdout.write(JSON.stringify(await carryOut()), () => process.exit(0));

async function carryOut(): Promise<unknown> {
  switch (plan.kind) {
    case "fan-out":
      return fanOut(plan);
    case "spread":
      return spread(plan);
    case "held":
      return hold(plan);
    case "catch-up":
      return catchUp(plan);
  }
}
