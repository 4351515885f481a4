/** What clients do with routers: create, configure, look at, list, delete. */
import { ApiError } from "../contract/errors.ts";
import { PAGE_SIZE_MAX } from "../contract/limits.ts";
import type {
  RouterDeleted,
  RouterInput,
  RouterList,
  RouterPut,
  RouterSettings,
  RouterState,
} from "../contract/routers.ts";
import type { Commits } from "./commit.ts";
import { clamp } from "./config.ts";
import { decodeCursor, encodeCursor } from "./cursor.ts";
import type { Forwarder } from "./forwarder.ts";
import type { Router, RouterSet } from "./routerset.ts";
import { inFull } from "./tags.ts";

/** What a list is asked for. `isShown` decides on a router as a whole. */
export interface RouterQuery {
  readonly prefix: string;
  readonly source: string | undefined;
  readonly dest: string | undefined;
  readonly cursor: string;
  readonly pageSize: number;
  readonly isShown: (router: Pick<Router, "name" | "source" | "dest">) => boolean;
}

export class Routers {
  readonly #set: RouterSet;
  readonly #commits: Commits;
  readonly #forwarder: Forwarder;

  constructor(set: RouterSet, commits: Commits, forwarder: Forwarder) {
    this.#set = set;
    this.#commits = commits;
    this.#forwarder = forwarder;
  }

  /** The ends of a router, if there is one of that name. */
  endsOf(name: string): { readonly source: string; readonly dest: string } | undefined {
    return this.#set.get(name);
  }

  /**
   * Throws `invalid_request`, `topic_not_found`, `topic_exists_incompatible`, `throttled`, `router_cycle`.
   */
  async put(router: string, input: RouterInput): Promise<RouterPut> {
    const settings = resolveSettings(input);
    const createDest = input.create_dest ?? true;
    const { outcome } = await this.#commits.submit({ kind: "put_router", router, settings, createDest });
    return { router, created: outcome.created, ...settings };
  }

  /** The router, after it has caught up with its source. Throws `router_not_found`. */
  async state(name: string): Promise<RouterState> {
    await this.#forwarder.catchUpRouter(name);
    const found = this.#set.get(name);
    if (found === undefined) throw new ApiError("router_not_found", { router: name });
    const { name: router, position: _, lost: __, forwarded: forwarded_total, ...settings } = found;
    return { router, ...settings, forwarded_total };
  }

  /** One page of routers in byte order of their names. Throws `invalid_request` for a malformed cursor. */
  list({ prefix, source, dest, cursor, pageSize, isShown }: RouterQuery): RouterList {
    const size = clamp(pageSize, 1, PAGE_SIZE_MAX);
    const after = decodeCursor(cursor);
    const isWanted = (router: Router) =>
      router.name.startsWith(prefix) &&
      (source === undefined || router.source === source) &&
      (dest === undefined || router.dest === dest) &&
      isShown(router);
    const found: Router[] = [];
    for (const name of this.#set.names) {
      const router = name > after ? this.#set.get(name)! : undefined;
      if (router && isWanted(router)) found.push(router);
      if (found.length > size) break;
    }
    const page = found.slice(0, size);
    const list: RouterList = { routers: page.map(summary) };
    const last = page.at(-1);
    if (found.length > size && last) list.next_cursor = encodeCursor(last.name);
    return list;
  }

  /** Deleting an absent router is no error. */
  async delete(router: string): Promise<RouterDeleted> {
    const { outcome } = await this.#commits.submit({ kind: "delete_router", router });
    return { router, deleted: outcome.deleted };
  }
}

const summary = ({ name: router, source, dest, guarantee, forwarded }: Router) => ({
  router,
  source,
  dest,
  guarantee,
  forwarded_total: forwarded,
});

/** What `input` asks for, with defaults. Throws `invalid_request` for a filter that is none. */
function resolveSettings(input: RouterInput): RouterSettings {
  return {
    source: input.source,
    dest: input.dest,
    preserve_node: input.preserve_node ?? true,
    preserve_tag: input.preserve_tag ?? true,
    filter: input.filter == null ? null : inFull(input.filter, "filter"),
    allow_cycle: input.allow_cycle ?? false,
    guarantee: input.guarantee ?? "at_least_once",
  };
}
