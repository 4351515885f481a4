/**
 * GitHub's published webhook payloads, for tests with real input.
 *
 * Each payload is cut out of the package's file as it is spelled there. Parsing and printing it again would
 * hide the very differences that a byte-exact server must not make.
 */
import { join } from "node:path";
import { elements, members } from "./rawjson.ts";

export interface Webhook {
  /** `push`, `pull_request`, … */
  readonly event: string;
  /** The payload's text. */
  readonly payload: string;
  /** `opened`, `closed`, …; some events have none. */
  readonly action: string | undefined;
  /** `owner/name`; some payloads belong to no repository. */
  readonly repository: string | undefined;
}

const file = join(import.meta.dir, "../../node_modules/@octokit/webhooks-examples/api.github.com/index.json");

export async function readWebhooks(): Promise<Webhook[]> {
  const events = elements(await Bun.file(file).text()).map(members);
  return events.flatMap((event) =>
    elements(event.get("examples")!).map((payload) => {
      const fields = members(payload);
      return {
        event: JSON.parse(event.get("name")!),
        payload,
        action: parsed(fields.get("action")),
        repository: parsed(members(fields.get("repository") ?? "{}").get("full_name")),
      };
    }),
  );
}

const parsed = (text: string | undefined): string | undefined => text && JSON.parse(text);
