/** The executable. It hears a signal even while the rest is being loaded. */
import "./stop.ts";

await import("./program.ts");
