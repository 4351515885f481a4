/** What a caller may do: the scopes a route asks for, and the names its key is restricted to. */
import { Elysia } from "elysia";
import { ApiError } from "../contract/errors.ts";
import { callOf } from "./call.ts";
import { anybody, nobody, type Scope } from "./keys.ts";
import { nameIn } from "./target.ts";

/** Gives routes the option `scope`, one or several. A name in the path is checked as well. */
export const access = new Elysia({ name: "access" }).macro({
  scope: (scope: Scope | readonly Scope[]) => ({
    beforeHandle: ({ request }: { request: Request }) => authorize(request, [scope].flat()),
  }),
});

/** Throws `unauthorized`, `forbidden`. */
function authorize(request: Request, scopes: readonly Scope[]): void {
  const { caller } = callOf(request);
  if (caller === anybody) return;
  if (caller === nobody) throw new ApiError("unauthorized", {});
  if (!scopes.every((scope) => caller.may(scope))) {
    throw new ApiError("forbidden", {}, "the API key lacks the scope that this operation needs");
  }
  if (!caller.isRestricted) return;
  const name = nameIn(request);
  if (name !== "" && !caller.mayName(name)) throw new ApiError("forbidden", {});
}

/** Of names that an answer is to hold, those that the caller may use. The others are not told. */
export const usableNames = (request: Request, names: readonly string[]): string[] =>
  names.filter((name) => callOf(request).caller.mayName(name));

/** Checks a name that the body of a request holds. Throws `forbidden`. */
export function authorizeName(request: Request, topic: string): void {
  if (!callOf(request).caller.mayName(topic)) throw new ApiError("forbidden", { topic });
}
