/** The API document as a test looks at it: its operations, and whether a value is what a schema of it says. */
import Ajv2020 from "ajv/dist/2020";
import type { TestServer } from "./request.ts";

export type Json = Record<string, unknown>;

export interface Content {
  readonly schema: Json;
  readonly examples?: Record<string, { readonly value: unknown }>;
}

export interface Answer {
  readonly $ref?: string;
  readonly description: string;
  readonly headers?: Record<string, { readonly required?: boolean; readonly schema: Json }>;
  readonly content: Record<string, Content>;
  readonly links?: Record<string, { readonly operationId: string; readonly parameters: Json }>;
}

export interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly required?: boolean;
  readonly schema: Json;
  readonly example?: unknown;
  readonly examples?: Record<string, { readonly value: unknown }>;
}

type Refs = Readonly<Record<string, Json>>;

export interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly security: readonly Record<string, readonly string[]>[];
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly required: boolean; readonly content: Record<string, Content> };
  readonly responses: Record<string, Answer>;
  readonly "x-events"?: Refs;
  readonly "x-commands"?: Refs;
  readonly "x-messages"?: Refs;
}

interface Parts {
  readonly openapi: string;
  readonly info: { readonly description: string };
  readonly servers: readonly { readonly url: string }[];
  readonly tags: readonly { readonly name: string }[];
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: {
    readonly schemas: Record<string, Json>;
    readonly responses: Record<string, Answer>;
    readonly securitySchemes: Record<string, Json>;
  };
}

export class ApiDocument {
  readonly text: string;
  readonly parts: Parts;
  /** By JSON Schema 2020-12. */
  readonly #lenient: Ajv2020;
  /** The same, and nothing is let pass that the document does not name. */
  readonly #strict: Ajv2020;

  constructor(text: string) {
    this.text = text;
    this.parts = JSON.parse(text);
    const { schemas } = this.parts.components;
    this.#lenient = validator(schemas);
    this.#strict = validator(closed(schemas));
  }

  static async of(server: Pick<TestServer, "send">): Promise<ApiDocument> {
    return new ApiDocument((await server.send("GET", "/swagger/json")).text);
  }

  /** What a value has against a schema of the document, and against more members than it names; nothing if it fits. */
  complaints(value: unknown, schema: Json): unknown[] {
    return [this.#lenient, this.#strict].flatMap((ajv) => complaints(value, schema, ajv));
  }

  /** The same, but it may have members that are not named. */
  lenientComplaints(value: unknown, schema: Json): unknown[] {
    return complaints(value, schema, this.#lenient);
  }

  /** Every operation with its method and path, in order. */
  get operations(): [method: string, path: string, Operation][] {
    return Object.entries(this.parts.paths).flatMap(([path, item]) =>
      Object.entries(item).map(([method, operation]): [string, string, Operation] => [
        method.toUpperCase(),
        path,
        operation,
      ]),
    );
  }

  operation(id: string): Operation {
    const found = this.operations.find(([, , { operationId }]) => operationId === id);
    if (found === undefined) throw new Error(`the document has no operation ${id}`);
    return found[2];
  }

  /** An answer that may be a reference. */
  answer(answer: Answer): Answer {
    if (answer.$ref === undefined) return answer;
    return this.parts.components.responses[answer.$ref.split("/").at(-1)!]!;
  }
}

function validator(schemas: Record<string, Json>): Ajv2020 {
  const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true });
  ajv.addSchema({ $id: "document", components: { schemas } });
  return ajv;
}

/** Objects of the schemas without members that have no name there. */
function closed<T>(value: T): T {
  if (Array.isArray(value)) return value.map(closed) as T;
  if (typeof value !== "object" || value === null) return value;
  const parts = Object.fromEntries(Object.entries(value).map(([name, part]) => [name, closed(part)]));
  const names = parts.type === "object" && parts.properties !== undefined && parts.anyOf === undefined;
  return (names ? { ...parts, additionalProperties: false } : parts) as T;
}

function complaints(value: unknown, schema: Json, ajv: Ajv2020): unknown[] {
  const text = JSON.stringify(schema).replaceAll('"#/', '"document#/');
  const validate = ajv.compile(JSON.parse(text));
  return validate(value) ? [] : (validate.errors ?? []);
}
