/** Frames on their way to a client, with the ids that tell where its stream stands. */
import type { Frame } from "./frames.ts";
import { StreamId } from "./places.ts";

export interface Told {
  readonly frame: Frame;
  /** Where the stream stands behind it. Empty for a stream without ids. */
  readonly id: string;
  /** Whether the client has dropped the topic meanwhile. */
  readonly from: { readonly isDropped: boolean };
}

/** An answer to whoever asks a stream what is next. */
export type TellResult = IteratorResult<readonly Told[], undefined>;

export const kept = { isDropped: false };

/** The frames for streams that follow no other topic: the same for all of them. */
export function soleTold(frames: readonly Frame[]): readonly Told[] {
  let told = soles.get(frames);
  if (told === undefined) {
    told = frames.map((frame) => {
      const places = new Map([[frame.topic!, frame.place!]]);
      return { frame, id: String(new StreamId(places)), from: kept };
    });
    soles.set(frames, told);
  }
  return told;
}
const soles = new WeakMap<readonly Frame[], readonly Told[]>();
