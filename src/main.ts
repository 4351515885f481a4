/** The executable: reads the command line, runs a server until it is asked to stop. */
import { Command, InvalidArgumentError } from "commander";
import { description, version } from "../package.json";
import { configFrom, type Flags } from "./config.ts";
import { createLogger } from "./log.ts";
import { startServer } from "./server.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

function port(value: string): number {
  const number = Number(value);
  if (!/^\d+$/.test(value) || number > 65535)
    throw new InvalidArgumentError("It must be a number from 0 to 65535.");
  return number;
}

/** Resolves when the process is to stop: undefined if somebody asked for it, else the reason. */
function stopAsked() {
  const { promise, resolve } = Promise.withResolvers<unknown>();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => resolve(undefined));
  return { asked: promise, broken: (reason: unknown) => resolve(reason) };
}

async function serve(flags: Flags): Promise<void> {
  process.umask(0o077);
  const config = configFrom(process.env, flags);
  const log = createLogger(config.logLevel);
  const { asked, broken } = stopAsked();
  let code = 0;
  try {
    await using _server = await startServer(config, log, broken);
    const reason = await asked;
    if (reason !== undefined) throw reason;
    log.info("stopping");
  } catch (error) {
    code = EXIT_FAILED;
    const message = error instanceof Error ? error.message : String(error);
    log.fatal(message);
    console.error(`topics: ${message}`);
  }
  if (code === 0) log.info("stopped");
  process.exit(code);
}

const program = new Command("topics")
  .description(description)
  .version(version, "-V, --version", "print the version")
  .helpOption("-h, --help", "print this help")
  .showHelpAfterError("Run topics --help for what it takes.")
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : EXIT_USAGE));

const serving = program
  .command("serve", { isDefault: true })
  .description("run the server (this is also what topics alone does)")
  .option("--host <host>", "address to listen on (TOPICS_HOST, default 127.0.0.1)")
  .option("--port <port>", "port to listen on, 0 for any free one (TOPICS_PORT, default 4000)", port)
  .option("--data-dir <path>", "where the data is kept (TOPICS_DATA_DIR, default ./topics-data)")
  .option("--accept-loss", "open damaged data with what is left of it")
  .allowExcessArguments(false)
  .action(serve);

program.addHelpText("after", () => `\n${serving.helpInformation()}`);

await program.parseAsync();
