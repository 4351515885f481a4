/** `POST /v0/tokens`. */
import { Elysia } from "elysia";
import { TokenIssued, TokenRequest } from "../contract/tokens.ts";
import { access } from "./access.ts";
import type { Admission } from "./admission.ts";
import { bodyReader } from "./body.ts";
import { callOf } from "./call.ts";
import { operation } from "./docs/operation.ts";
import * as examples from "./docs/watchexamples.ts";
import { reply } from "./reply.ts";
import type { Tokens } from "./tokens.ts";

const readRequest = bodyReader(TokenRequest);

export function tokenRoutes(tokens: Tokens, admission: Admission) {
  return new Elysia({ name: "tokens" }).use(access).post(
    "/v0/tokens",
    async ({ request }) => {
      const body = await readRequest(request, admission);
      return reply(request, await tokens.issue(callOf(request).caller, body));
    },
    operation({
      id: "issueToken",
      tag: "Watch",
      scope: [],
      summary: "Issue a token for streams",
      description:
        "A key that is narrowed to some topics for some time, so that no key has to reach a browser. It opens streams, as " +
        "`?token=`, and nothing else; it can do no more than its key, and is gone with it. A stream ends with its token.",
      body: { schema: TokenRequest, examples: examples.issueToken.requests },
      replies: {
        200: { description: "The token.", schema: TokenIssued, examples: examples.issueToken.answers },
      },
    }),
  );
}
