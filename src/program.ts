/** The command line, and a server that runs until it is asked to stop. */
import { Command, InvalidArgumentError, Option } from "commander";
import { description, version } from "../package.json";
import { configFrom, type Effective, effective, type Flags, type Setting, settings } from "./config.ts";
import { checkHealth } from "./healthcheck.ts";
import { createLogger, type Logger, oneLine } from "./log.ts";
import { type Notify, notifier, watchdogMs } from "./notify.ts";
import { startServer } from "./server.ts";
import { ask, asked } from "./stop.ts";
import { systemdUnit } from "./unit.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

async function serve(flags: Flags): Promise<void> {
  process.umask(0o077);
  const found = effective(process.env, flags);
  const config = configFrom(process.env, flags);
  for (const { secret, variable = "" } of Object.values(settings) as Setting[]) {
    if (secret) delete process.env[variable];
  }
  const log = createLogger(config.logLevel);
  logIgnored(found, log);
  const notify = serviceManager(log);
  const broken = (reason: unknown) => {
    if (!ask({ reason })) log.error({ err: reason }, "something went wrong during the stop");
  };
  for (const event of ["uncaughtException", "unhandledRejection"]) process.on(event, broken);
  let code = 0;
  try {
    const starting = startServer(config, log, broken);
    // A SIGHUP that comes before the start is over is heard then.
    const reload = () => void starting.then((server) => server.reloadKeys()).catch(() => {});
    if (!process.stdout.isTTY) process.on("SIGHUP", reload);
    await using _server = await starting;
    notify("READY=1");
    const stop = await asked;
    notify("STOPPING=1");
    if ("reason" in stop) throw stop.reason;
    log.info(stop, "signal received, running requests finish");
  } catch (error) {
    code = fail(error, (message) => log.fatal(message));
  }
  if (code === 0) log.info("stopped");
  process.exit(code);
}

/** Tells of variables that say what means nothing: a limit that is none would go unnoticed. */
function logIgnored(found: ReturnType<typeof effective>, log: Logger): void {
  for (const [name, { ignored, value }] of Object.entries(found) as [keyof typeof settings, Effective][]) {
    if (ignored === undefined) continue;
    const { variable }: Setting = settings[name];
    log.warn({ variable, default: value }, "a variable says what it cannot mean; the default is used");
  }
}

/** Where systemd has started the server, it hears of it and sees that it is alive. */
function serviceManager(log: Logger): Notify {
  try {
    const notify = notifier(process.env);
    const aliveMs = watchdogMs(process.env);
    if (aliveMs !== undefined) setInterval(() => notify("WATCHDOG=1"), aliveMs).unref();
    return notify;
  } catch (error) {
    log.warn({ err: error }, "systemd cannot be told of the server's state");
    return () => {};
  }
}

function printConfig(flags: Flags): void {
  const found = effective(process.env, flags);
  const rows = Object.entries(settings).map(([name, setting]: [string, Setting]) => {
    const { value, from, ignored }: Effective = found[name as keyof typeof found];
    const shown = setting.secret && value !== "" ? "(hidden)" : withoutPasswords(oneLine(String(value)));
    const why = ignored === undefined ? from : `${from} (${oneLine(ignored.trim())} ignored)`;
    return [setting.variable ?? setting.flag ?? name, shown, why] as const;
  });
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]!.length)));
  for (const [name, value, from] of rows) {
    console.log(`${name.padEnd(widths[0]!)}  ${value.padEnd(widths[1]!)}  ${from}`);
  }
}

/** URLs may hold some, although the server would refuse them. */
const withoutPasswords = (text: string): string => text.replace(/\/\/[^/\s,]*@/g, "//(hidden)@");

async function healthcheck(flags: Flags): Promise<void> {
  asked.then(() => process.exit(EXIT_FAILED));
  try {
    await checkHealth(configFrom(process.env, flags));
  } catch (error) {
    process.exit(fail(error));
  }
}

/** How this program is called: an executable brings its sources along, under a path of its own. */
const thisProgram = (): string[] =>
  Bun.main.startsWith("/$bunfs/") ? [process.execPath] : [process.execPath, Bun.main];

/** Says on stderr what went wrong, and in the log if there is one. The exit code for it. */
function fail(error: unknown, log: (message: string) => void = () => {}): number {
  const message = error instanceof Error ? error.message : String(error);
  console.error(`topics: ${oneLine(message)}`);
  log(message);
  return EXIT_FAILED;
}

/** The command with an option for every setting that has a flag, or for those of them that it needs. */
function withFlags(command: Command, needed: readonly string[] = Object.keys(settings)): Command {
  for (const [name, setting] of Object.entries(settings) as [string, Setting][]) {
    if (setting.flag === undefined || !needed.includes(name)) continue;
    const { what, variable, otherwise } = setting;
    const option = new Option(
      setting.flag,
      variable === undefined ? what : `${what} (${variable}, default ${otherwise})`,
    );
    if (setting.flag.includes("<")) option.argParser((text) => flagValue(setting, text));
    command.addOption(option);
  }
  return command.allowExcessArguments(false);
}

function flagValue({ parse, range, max = Number.POSITIVE_INFINITY }: Setting, text: string) {
  const value = parse(text);
  if (value === undefined || Number(value) > max)
    throw new InvalidArgumentError(`It must be ${range ?? "a text"}.`);
  return value;
}

const program = new Command("topics")
  .description(description)
  .version(version, "-V, --version", "print the version")
  .helpOption("-h, --help", "print this help")
  .showHelpAfterError("Run topics --help for what it takes.")
  .configureOutput({
    writeErr: (text) => void process.stderr.write(text.split("\n").map(oneLine).join("\n")),
  })
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : EXIT_USAGE));

const serving = withFlags(program.command("serve", { isDefault: true }))
  .description("run the server (this is also what topics alone does)")
  .action(serve);

withFlags(program.command("config"))
  .description("print every setting, its value, and whether a flag, a variable or the default has decided it")
  .action(printConfig);

withFlags(program.command("healthcheck"), ["host", "port"])
  .description("ask the server at that address whether it is up: exit code 0, or 1 with the reason")
  .action(healthcheck);

program
  .command("systemd")
  .description("print a hardened systemd unit for this executable")
  .allowExcessArguments(false)
  .action(() => console.log(systemdUnit([...thisProgram(), "serve"], description).trimEnd()));

program.addHelpText("after", () => `\n${serving.helpInformation()}`);

// What is no command would be taken for an argument of `serve`.
const [word = ""] = process.argv.slice(2);
const commands = [...program.commands.map((command) => command.name()), "help"];
if (/^[^-]/.test(word) && !commands.includes(word))
  program.error(`error: unknown command '${word}': there are ${commands.join(", ")}`);

await program.parseAsync();
