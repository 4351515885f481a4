/** The page that shows the document. Everything it needs is inside the executable. */

import type { Context } from "elysia";
import style from "swagger-ui-dist/swagger-ui.css" with { type: "file" };
import viewer from "swagger-ui-dist/swagger-ui-bundle.js" with { type: "file" };
import { callOf } from "../call.ts";
import { acceptsGzip, gzipped } from "../compression.ts";

const html = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>topics API</title>
    <link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='%23205081' d='M1 2h14v3H1zM1 7h10v3H1zM1 12h6v3H1z'/%3E%3C/svg%3E">
    <link rel="stylesheet" href="swagger/swagger-ui.css">
    <style>
      body { margin: 0; }
      .swagger-ui .info { margin: 32px 0 24px; }
      .swagger-ui .info .description { max-width: 70em; }
      .swagger-ui .info pre { overflow-x: auto; }
      .swagger-ui .scheme-container { padding: 16px 0; }
      .swagger-ui .scheme-container .schemes .schemes-server-container { display: none; }
      html.dark-mode .swagger-ui :is(.examples-select__section-label, .header-col, .btn-sm) { color: #e4e6e6; }
      .swagger-ui .btn-sm { white-space: nowrap; overflow-wrap: normal; }
      /* Nothing to choose. */
      .swagger-ui .response-controls:not(:has(option + option)) { display: none; }
      @media (max-width: 640px) {
        .swagger-ui .wrapper, .swagger-ui .opblock-body { overflow-wrap: anywhere; }
        .swagger-ui .wrapper { padding: 0 12px; }
        .swagger-ui .opblock-summary-path { max-width: none; }
        .swagger-ui pre, .swagger-ui pre span { white-space: pre-wrap !important; overflow-wrap: anywhere; }
        .swagger-ui input, .swagger-ui select { min-width: 0 !important; max-width: 100%; }
        .swagger-ui .response-col_links { display: none; }
      }
    </style>
  </head>
  <body>
    <div id="page"></div>
    <noscript>The document itself is at <a href="swagger/json">/swagger/json</a>.</noscript>
    <script src="swagger/swagger-ui-bundle.js"></script>
    <script src="swagger/start.js"></script>
  </body>
</html>
`;

const start = `"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

// Each field asks for the focus, and the last one would get it.
const keyFirst = (Auths, { React }) =>
  class extends React.Component {
    componentDidMount() {
      document.querySelector(".auth-container input")?.focus();
    }
    render() {
      return React.createElement(Auths, this.props);
    }
  };

// What an error says fits on a line. Who wants to see all of it asks for it.
const briefErrors = (Answer, { React: { Component, createElement } }) =>
  class extends Component {
    state = { isOpen: Number(this.props.code) < 400 };
    render() {
      if (this.state.isOpen) return createElement(Answer, this.props);
      const { code, response, getComponent } = this.props;
      const words = createElement(getComponent("Markdown", true), { source: response.get("description") });
      const open = () => this.setState({ isOpen: true });
      return createElement("tr", { className: "response", "data-code": code },
        createElement("td", { className: "response-col_status" }, code),
        createElement("td", { className: "response-col_description" }, words),
        createElement("td", null, createElement("button", { className: "btn btn-sm", onClick: open }, "Show")),
      );
    }
  };

SwaggerUIBundle({
  url: "swagger/json",
  dom_id: "#page",
  plugins: [{ wrapComponents: { auths: keyFirst, response: briefErrors } }],
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  defaultModelExpandDepth: 3,
  displayRequestDuration: true,
  validatorUrl: null,
});
`;

/** Scripts of its own and nothing from elsewhere. The viewer styles its elements one by one. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** Something that is always the same. `read` is asked once. */
export interface Asset {
  readonly path: string;
  readonly type: string;
  readonly read: () => string | Blob | Promise<string>;
}

export const assets: readonly Asset[] = [
  { path: "/swagger", type: "text/html; charset=utf-8", read: () => html },
  { path: "/swagger/start.js", type: "text/javascript; charset=utf-8", read: () => start },
  { path: "/swagger/swagger-ui.css", type: "text/css; charset=utf-8", read: () => Bun.file(style) },
  // Without the charset a browser takes the script for another encoding and stumbles.
  {
    path: "/swagger/swagger-ui-bundle.js",
    type: "text/javascript; charset=utf-8",
    read: () => Bun.file(viewer),
  },
];

/** Answers with an asset, or with `304` to who has it already. */
export function server({ type, read }: Asset) {
  let loaded: Promise<Loaded> | undefined;
  return async ({ request, set }: Pick<Context, "request" | "set">): Promise<Response> => {
    loaded ??= load(read);
    const { bytes, packed, tag } = await loaded;
    const isPacked = acceptsGzip(request);
    // Other origins may be named there already.
    set.headers.vary = [set.headers.vary, "accept-encoding"].filter(Boolean).join(", ");
    const headers = {
      // Weak, because it may be sent compressed.
      etag: `W/"${tag}"`,
      "cache-control": "no-cache",
      "content-security-policy": policy,
    };
    if (isKnown(request.headers.get("if-none-match"), tag))
      return new Response(null, { status: 304, headers });
    const answer = isPacked ? packed : bytes;
    callOf(request).answerBytes = answer.length;
    return new Response(answer, {
      headers: {
        ...headers,
        ...(isPacked && { "content-encoding": "gzip" }),
        "content-type": type,
        "x-content-type-options": "nosniff",
      },
    });
  };
}

interface Loaded {
  readonly bytes: Uint8Array;
  /** The same in gzip. */
  readonly packed: Uint8Array;
  readonly tag: string;
}

async function load(read: Asset["read"]): Promise<Loaded> {
  const bytes = await new Response(await read()).bytes();
  const packed = await gzipped(bytes);
  return { bytes, packed, tag: Bun.SHA256.hash(bytes, "base64url").slice(0, 22) };
}

const isKnown = (header: string | null, tag: string): boolean =>
  header?.split(",").some((item) => item.trim() === "*" || item.trim().replace(/^W\//, "") === `"${tag}"`) ??
  false;
