/** The page that shows the document. Everything it needs is inside the executable. */
import style from "swagger-ui-dist/swagger-ui.css" with { type: "file" };
import viewer from "swagger-ui-dist/swagger-ui-bundle.js" with { type: "file" };

const html = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>topics API</title>
    <link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='%23205081' d='M1 2h14v3H1zM1 7h10v3H1zM1 12h6v3H1z'/%3E%3C/svg%3E">
    <link rel="stylesheet" href="swagger/swagger-ui.css">
    <style>
      body { margin: 0; background: #fafafa; }
      .swagger-ui .info { margin: 32px 0 24px; }
      .swagger-ui .info .description { max-width: 70em; }
      .swagger-ui .scheme-container { padding: 16px 0; }
      .swagger-ui .scheme-container .schemes .schemes-server-container { display: none; }
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

const start = `SwaggerUIBundle({
  url: "swagger/json",
  dom_id: "#page",
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
export function server({ type, read }: Asset): (context: { request: Request }) => Promise<Response> {
  let loaded: Promise<{ bytes: Uint8Array; tag: string }> | undefined;
  return async ({ request }) => {
    loaded ??= load(read);
    const { bytes, tag } = await loaded;
    // Weak, because it may be sent compressed.
    const headers = { etag: `W/"${tag}"`, "cache-control": "no-cache", "content-security-policy": policy };
    if (isKnown(request.headers.get("if-none-match"), tag))
      return new Response(null, { status: 304, headers });
    return new Response(bytes, {
      headers: { ...headers, "content-type": type, "x-content-type-options": "nosniff" },
    });
  };
}

async function load(read: Asset["read"]): Promise<{ bytes: Uint8Array; tag: string }> {
  const bytes = await new Response(await read()).bytes();
  return { bytes, tag: Bun.SHA256.hash(bytes, "base64url").slice(0, 22) };
}

const isKnown = (header: string | null, tag: string): boolean =>
  header?.split(",").some((item) => item.trim() === "*" || item.trim().replace(/^W\//, "") === `"${tag}"`) ??
  false;
