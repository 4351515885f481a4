/** `bun run build`: one self-contained executable, `dist/topics`. */
import { $ } from "bun";

// The first entry point is the program; the other is the checkpoint worker, which it starts by file name.
const entries = ["src/main.ts", "src/store/checkpointer.ts"];

// Without these flags an executable runs the .env and bunfig.toml of whatever directory it is started in.
const flags = ["--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"];

await $`${process.execPath} build --compile --minify --sourcemap=linked ${flags} ${entries} --outfile dist/topics`;
