/** The body of every error answer: one shape for each code of the table. */
import { type TObject, Type } from "@sinclair/typebox";
import { type ErrorCode, errors } from "./errors.ts";
import { Performance } from "./performance.ts";

/** `error` holds `code`, `message` and, where there is something to tell, `detail`. */
export function envelope(code: ErrorCode): TObject {
  const said = { code: Type.Literal(code), message: Type.String({ minLength: 1 }) };
  const detail = detailOf(errors[code].detail);
  const error = Type.Object(detail ? { ...said, detail } : said);
  return Type.Object({ error, performance: Performance });
}

/** A detail that has nothing to say is left out. */
function detailOf(detail: TObject): TObject | undefined {
  if (Object.keys(detail.properties).length === 0) return undefined;
  return detail.required ? detail : Type.Optional(Type.Object(detail.properties, { minProperties: 1 }));
}
