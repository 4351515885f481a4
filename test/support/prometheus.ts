/**
 * A strict reader of the Prometheus text format, for tests. It throws on everything a scraper could stumble over.
 *
 * It knows counters, gauges and histograms. A family is one block: `# HELP`, `# TYPE`, then its samples.
 */

export type Kind = "counter" | "gauge" | "histogram";
export type Labels = Readonly<Record<string, string>>;

export interface Sample {
  /** The family's name, or that with `_bucket`, `_sum` or `_count` in a histogram. */
  readonly name: string;
  readonly labels: Labels;
  readonly value: number;
}

export interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: Kind;
  readonly samples: readonly Sample[];
}

/** One bucket of a histogram: how many observations were at most `le`. */
export interface Bucket {
  readonly le: number;
  readonly count: number;
}

/** What one scrape said. */
export class Metrics {
  readonly families: ReadonlyMap<string, Family>;

  constructor(text: string) {
    this.families = parse(text);
  }

  family(name: string): Family {
    const family = this.families.get(name);
    if (family === undefined) throw new Error(`no metric ${name}`);
    return family;
  }

  /** The value of the one sample with exactly these labels; undefined if there is none. */
  value(name: string, labels: Labels = {}): number | undefined {
    const family = this.families.get(name) ?? this.families.get(name.replace(/_(bucket|sum|count)$/, ""));
    const wanted = spelled(name, labels);
    return family?.samples.find((sample) => spelled(sample.name, sample.labels) === wanted)?.value;
  }

  /** The values of a metric by those of its one label. */
  by(label: string, name: string): Record<string, number> {
    return Object.fromEntries(
      this.family(name).samples.map((sample) => [sample.labels[label] ?? "", sample.value]),
    );
  }

  /** The buckets of a histogram without labels. */
  buckets(name: string): Bucket[] {
    return this.family(name)
      .samples.filter((sample) => sample.name === `${name}_bucket`)
      .map(({ labels, value }) => ({ le: number(labels.le ?? ""), count: value }));
  }
}

interface Open {
  readonly name: string;
  readonly help: string;
  readonly samples: Sample[];
  type?: Kind;
}

const METRIC = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL = /^(?!__)[a-zA-Z_][a-zA-Z0-9_]*$/;
const VALUE = /^(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]Inf|NaN)$/;

/** All families of the text by name. */
export function parse(text: string): Map<string, Family> {
  if (!text.endsWith("\n")) throw new Error("the last line has no line feed");
  const families = new Map<string, Family>();
  const series = new Set<string>();
  let open: Open | undefined;
  for (const [index, line] of text.slice(0, -1).split("\n").entries()) {
    try {
      if (line.includes("\r")) throw new Error("a carriage return");
      const comment = /^# (HELP|TYPE) ([^ ]+) (.*)$/.exec(line);
      if (comment?.[1] === "HELP") {
        close(open, families);
        open = begin(comment[2]!, comment[3]!, families);
      } else if (comment) {
        setType(open, comment[2]!, comment[3]!);
      } else if (/^#\s*(HELP|TYPE)\b/.test(line)) {
        throw new Error("an incomplete comment");
      } else if (line !== "" && !line.startsWith("#")) {
        add(open, sampleFrom(line), series);
      }
    } catch (error) {
      throw new Error(`line ${index + 1}: ${(error as Error).message}: ${line}`);
    }
  }
  close(open, families);
  return families;
}

function begin(name: string, help: string, families: ReadonlyMap<string, Family>): Open {
  if (!METRIC.test(name)) throw new Error("an illegal metric name");
  if (families.has(name)) throw new Error("a family in two places");
  return { name, help: unescaped(help, "\\n"), samples: [] };
}

function setType(open: Open | undefined, name: string, type: string): void {
  if (open?.name !== name) throw new Error("TYPE without HELP before it");
  if (open.type) throw new Error("a second TYPE");
  if (open.samples.length > 0) throw new Error("TYPE behind samples");
  if (type !== "counter" && type !== "gauge" && type !== "histogram") throw new Error("an unknown type");
  open.type = type;
}

function add(open: Open | undefined, sample: Sample, series: Set<string>): void {
  if (!open?.type) throw new Error("a sample without HELP and TYPE");
  const suffixes = open.type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
  const suffix = suffixes.find((end) => sample.name === open.name + end);
  if (suffix === undefined) throw new Error(`a sample that does not belong to ${open.name}`);
  if ((suffix === "_bucket") !== "le" in sample.labels)
    throw new Error("le belongs to buckets, and only there");
  if (open.type !== "gauge" && suffix !== "_sum" && !(sample.value >= 0))
    throw new Error("a count that is no count");
  const key = spelled(sample.name, sample.labels);
  if (series.has(key)) throw new Error("a series twice");
  series.add(key);
  open.samples.push(sample);
}

function close(open: Open | undefined, families: Map<string, Family>): void {
  if (!open) return;
  const { name, help, type, samples } = open;
  if (!type) throw new Error(`${name} has no TYPE`);
  if (help.trim() === "") throw new Error(`${name} has no help`);
  if (type === "histogram") checkHistograms(name, samples);
  families.set(name, { name, help, type, samples });
}

/** Every histogram of a family has ascending buckets up to +Inf, which is its count, and a sum. */
function checkHistograms(name: string, samples: readonly Sample[]): void {
  const groups = Map.groupBy(samples, ({ labels: { le: _, ...others } }) => spelled("", others));
  for (const group of groups.values()) {
    const buckets = group
      .filter((sample) => sample.name === `${name}_bucket`)
      .map(({ labels, value }) => ({ le: number(labels.le!), count: value }));
    for (const [i, { le, count }] of buckets.entries()) {
      if (i === 0) continue;
      if (!(le > buckets[i - 1]!.le)) throw new Error(`${name}: bucket bounds that do not ascend`);
      if (count < buckets[i - 1]!.count) throw new Error(`${name}: buckets that decrease`);
    }
    const only = (suffix: string) => {
      const sample = group.find((one) => one.name === name + suffix);
      if (!sample) throw new Error(`${name}: no ${suffix}`);
      return sample.value;
    };
    const last = buckets.at(-1);
    if (last?.le !== Number.POSITIVE_INFINITY) throw new Error(`${name}: no bucket for +Inf`);
    if (last.count !== only("_count")) throw new Error(`${name}: +Inf is not the count`);
    only("_sum");
  }
}

function sampleFrom(line: string): Sample {
  const match = /^([^\s{]+)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?$/.exec(line);
  if (!match) throw new Error("no sample");
  const [, name, labels, value] = match as unknown as [string, string, string | undefined, string];
  if (!METRIC.test(name)) throw new Error("an illegal metric name");
  return { name, labels: labelsFrom(labels ?? ""), value: number(value) };
}

/** `a="x",b="y"`, also with a comma at the end. */
function labelsFrom(text: string): Labels {
  const labels = new Map<string, string>();
  const pair = /([^=,"{}\s]+)="((?:[^"\\]|\\.)*)"(,|$)/y;
  while (pair.lastIndex < text.length) {
    const match = pair.exec(text);
    if (!match) throw new Error("malformed labels");
    const [, name, value] = match as unknown as [string, string, string];
    if (!LABEL.test(name)) throw new Error("an illegal label name");
    if (labels.has(name)) throw new Error("a label twice");
    labels.set(name, unescaped(value, '\\"n'));
  }
  return Object.fromEntries(labels);
}

/** Takes back the escapes; only a backslash before one of `escapable` is one. */
function unescaped(text: string, escapable: string): string {
  return text.replace(/\\(.?)/g, (_, escaped: string) => {
    if (escaped === "" || !escapable.includes(escaped)) throw new Error("an unknown escape");
    return escaped === "n" ? "\n" : escaped;
  });
}

function number(text: string): number {
  if (!VALUE.test(text)) throw new Error("a value that is no number");
  return Number(text.replace("Inf", "Infinity"));
}

const spelled = (name: string, labels: Labels) => name + JSON.stringify(Object.entries(labels).sort());
