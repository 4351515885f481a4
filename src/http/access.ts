/** What a caller may do: the scopes a route asks for, and the names its key is restricted to. */
import { Elysia } from "elysia";
import { ApiError } from "../contract/errors.ts";
import { callOf } from "./call.ts";
import { anybody, nobody, type Scope } from "./keys.ts";
import { nameIn } from "./target.ts";

/** Gives routes the option `scope`. A name in the path is checked as well. */
export const access = new Elysia({ name: "access" }).macro({
  scope: (scope: Scope) => ({
    beforeHandle: ({ request, params = {} }: { request: Request; params?: object }) => {
      if (Object.values(params).some(isDots)) throw new ApiError("not_found", {});
      authorize(request, scope);
    },
  }),
});

/** No name, but steps in a path: they are routed as they are and resolved in the URL, which is then another path. */
const isDots = (segment: unknown): boolean => segment === "." || segment === "..";

/** Throws `unauthorized`, `forbidden`. */
function authorize(request: Request, scope: Scope): void {
  const { caller } = callOf(request);
  if (caller === anybody) return;
  if (caller === nobody) throw new ApiError("unauthorized", {});
  if (!caller.may(scope)) {
    throw new ApiError("forbidden", {}, "the API key lacks the scope that this operation needs");
  }
  if (caller.prefixes.length === 0) return;
  const name = nameIn(request);
  if (name !== "" && !caller.mayName(name)) throw new ApiError("forbidden", {});
}

/** Checks a name that the body of a request holds. Throws `forbidden`. */
export function authorizeName(request: Request, topic: string): void {
  if (!callOf(request).caller.mayName(topic)) throw new ApiError("forbidden", { topic });
}
