/** `/v0/routers` and `/v0/routers/:router`: rules that copy records from topic to topic. */
import { Elysia } from "elysia";
import { ApiError, type ErrorDetail } from "../contract/errors.ts";
import { PAGE_SIZE_DEFAULT } from "../contract/limits.ts";
import { RouterDeleted, RouterInput, RouterList, RouterPut, RouterState } from "../contract/routers.ts";
import type { Routers } from "../engine/routers.ts";
import { access, authorizeName, usableNames } from "./access.ts";
import type { Admission } from "./admission.ts";
import { bodyReader } from "./body.ts";
import { callOf } from "./call.ts";
import { because } from "./docs/failures.ts";
import { anyRouter, newRouter, operation, paging, text } from "./docs/operation.ts";
import * as examples from "./docs/workexamples.ts";
import { reply } from "./reply.ts";
import { nameIn, Query } from "./target.ts";

const readRouter = bodyReader(RouterInput);

export function routerRoutes(routers: Routers, admission: Admission) {
  const list = async ({ request }: { request: Request }) => {
    await admission.turn(request);
    const query = new Query(request.url);
    const { caller } = callOf(request);
    const page = routers.list({
      prefix: query.text("prefix", ""),
      source: query.all("source").at(-1),
      dest: query.all("dest").at(-1),
      cursor: query.text("cursor", ""),
      pageSize: query.integer("page_size", PAGE_SIZE_DEFAULT),
      isShown: ({ name, source, dest }) => [name, source, dest].every((one) => caller.mayName(one)),
    });
    return reply(request, page);
  };
  const state = async ({ request }: { request: Request }) => {
    const name = nameIn(request);
    authorizeEnds(request, routers.endsOf(name));
    return reply(request, await routers.state(name));
  };
  return new Elysia({ name: "routers" })
    .use(access)
    .get(
      "/v0/routers",
      list,
      operation({
        id: "listRouters",
        tag: "Routers",
        scope: "read",
        summary: "List routers",
        description:
          "A key that is restricted to prefixes sees the routers of which it may use name, source and dest.",
        parameters: [
          text("prefix", "Only names that begin so."),
          text("source", "Only routers that read this topic."),
          text("dest", "Only routers that write to this topic."),
          ...paging("Routers"),
        ],
        replies: { 200: { description: "One page.", schema: RouterList, examples: examples.listRouters } },
        failures: ["invalid_request"],
      }),
    )
    .get(
      "/v0/routers/:router",
      state,
      operation({
        id: "getRouter",
        tag: "Routers",
        scope: "read",
        summary: "Look at a router",
        description: "What it does, and how many records it has forwarded.",
        parameters: [anyRouter],
        replies: { 200: { description: "The router.", schema: RouterState, examples: examples.routerState } },
        failures: ["router_not_found"],
      }),
    )
    .put(
      "/v0/routers/:router",
      async ({ request }) => {
        const name = nameIn(request);
        const body = await readRouter(request, admission);
        authorizeEnds(request, body);
        const put = await routers.put(name, body).catch((error) => {
          throw withUsableNames(request, error);
        });
        return reply(request, put, { status: put.created ? 201 : 200 });
      },
      operation({
        id: "putRouter",
        tag: "Routers",
        scope: "admin",
        summary: "Create or configure a router",
        description:
          "It forwards what is appended to `source` from now on. A second `PUT` replaces its settings, without losing or " +
          "repeating a record; its ends stay. Absent topics are created. A topic can be fed from one source only.",
        parameters: [newRouter],
        body: { schema: RouterInput, examples: examples.putRouter.requests },
        replies: {
          200: {
            description: "The router was there.",
            schema: RouterPut,
            examples: examples.putRouter.configured,
          },
          201: { description: "The router is new.", schema: RouterPut, examples: examples.putRouter.created },
        },
        failures: [
          because("topic_not_found", "There is no topic `dest`, and it is not to be created.", {
            topic: "archive",
          }),
          because(
            "topic_exists_incompatible",
            "Routers from another source feed `dest` (`reason` is `router_dest_fan_in`), or the router exists with other " +
              "ends (`router_repoint_forbidden`).",
            { topic: "archive", reason: "router_dest_fan_in" },
          ),
          "router_cycle",
        ],
      }),
    )
    .delete(
      "/v0/routers/:router",
      async ({ request }) => {
        const name = nameIn(request);
        authorizeEnds(request, routers.endsOf(name));
        return reply(request, await routers.delete(name));
      },
      operation({
        id: "deleteRouter",
        tag: "Routers",
        scope: "delete",
        summary: "Delete a router",
        description:
          "Copies stay; what it has not forwarded yet is not. Deleting an absent router is no error.",
        parameters: [anyRouter],
        replies: {
          200: {
            description: "There is no such router now.",
            schema: RouterDeleted,
            examples: examples.deleteRouter,
          },
        },
      }),
    );
}

/** Throws `forbidden` for an end that the caller may not use. A router that is absent has none. */
function authorizeEnds(
  request: Request,
  ends: { readonly source: string; readonly dest: string } | undefined,
): void {
  if (ends === undefined) return;
  authorizeName(request, ends.source);
  authorizeName(request, ends.dest);
}

/** A cycle may lead through topics that a key must not know of. */
function withUsableNames(request: Request, error: unknown): unknown {
  if (!(error instanceof ApiError) || error.code !== "router_cycle") return error;
  const { cycle } = error.detail as ErrorDetail<"router_cycle">;
  return new ApiError("router_cycle", { cycle: usableNames(request, cycle) });
}
