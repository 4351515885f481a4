/** `POST /v0/tokens`. */
import { Elysia } from "elysia";
import { ApiError } from "../contract/errors.ts";
import { TokenRequest } from "../contract/tokens.ts";
import type { Admission } from "./admission.ts";
import { bodyReader } from "./body.ts";
import { callOf } from "./call.ts";
import { hidden } from "./docs/operation.ts";
import { nobody } from "./keys.ts";
import { reply } from "./reply.ts";
import type { Tokens } from "./tokens.ts";

const readRequest = bodyReader(TokenRequest);

export function tokenRoutes(tokens: Tokens, admission: Admission) {
  return new Elysia({ name: "tokens" }).post(
    "/v0/tokens",
    async ({ request }) => {
      const { caller } = callOf(request);
      if (caller === nobody) throw new ApiError("unauthorized", {});
      return reply(request, await tokens.issue(caller, await readRequest(request, admission)));
    },
    { detail: hidden },
  );
}
