/** Which lanes somebody hosted here is subscribed to, kept in memory from what is stored and what is heard since. */

export interface Lane {
  readonly feedKey: string;
  /** Canonical. */
  readonly scope: string;
}

/** What a lane is known by. */
export const keyOf = ({ feedKey, scope }: Lane): string => JSON.stringify([feedKey, scope]);

/** One change of a subscription, as its newest event has it. */
export interface Change extends Lane {
  readonly subscriber: string;
  readonly active: boolean;
  readonly eventId: string;
  readonly createdAt: number;
}

/** What is in force for one subscriber and feed. */
interface InForce {
  /** The lane's key; undefined when the subscription has ended. */
  readonly lane: string | undefined;
  readonly eventId: string;
  readonly createdAt: number;
}

export class Subscribed {
  readonly #inForce = new Map<string, InForce>();
  /** How many subscriptions there are to a lane. */
  readonly #lanes = new Map<string, number>();

  has(lane: string): boolean {
    return this.#lanes.has(lane);
  }

  /** The newest change wins, in whichever order they are told. */
  note(change: Change): void {
    const { subscriber, feedKey, active, eventId, createdAt } = change;
    const row = JSON.stringify([subscriber, feedKey]);
    const current = this.#inForce.get(row);
    if (current && !isNewer(change, current)) return;
    const lane = active ? keyOf(change) : undefined;
    this.#inForce.set(row, { lane, eventId, createdAt });
    this.#count(current?.lane, -1);
    this.#count(lane, 1);
  }

  #count(lane: string | undefined, change: 1 | -1): void {
    if (lane === undefined) return;
    const count = (this.#lanes.get(lane) ?? 0) + change;
    if (count === 0) this.#lanes.delete(lane);
    else this.#lanes.set(lane, count);
  }
}

const isNewer = (change: Change, { createdAt, eventId }: InForce): boolean =>
  change.createdAt > createdAt || (change.createdAt === createdAt && change.eventId > eventId);
