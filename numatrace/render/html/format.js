// Numbers as the text report writes them (numatrace/model/units.py).
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const TIMES = [["s", 1e9], ["ms", 1e6], ["µs", 1e3]];
const UNKNOWN = "–";
const TOO_FEW = "too few samples";

// Like Python's formatting: a tie goes to the even digit.
function fixed(value, digits) {
  const scaled = value * 10 ** digits, floor = Math.floor(scaled);
  if (scaled - floor === 0.5 && Number.isInteger(value * 2 ** (digits + 1)))
    return ((floor % 2 ? floor + 1 : floor) / 10 ** digits).toFixed(digits);
  return value.toFixed(digits);
}

const digits = (value) => fixed(value, Math.abs(value) < 9.95 ? 1 : 0);

function bytes(count) {
  if (count === null || count === undefined) return UNKNOWN;
  let size = count, unit = 0;
  while (Math.abs(size) >= 1024 && unit < BYTES.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${unit ? digits(size) : fixed(size, 0)} ${BYTES[unit]}`;
}

function time(ns) {
  if (ns === null || ns === undefined) return UNKNOWN;
  for (const [unit, length] of TIMES)
    if (Math.abs(ns) >= length) return `${digits(ns / length)} ${unit}`;
  return `${fixed(ns, 0)} ns`;
}

function share(part) {
  const percent = part * 100;
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  return `${fixed(percent, percent > 0 && percent < 1 ? 1 : 0)} %`;
}

const count = (number) => (number ?? 0).toLocaleString("en-US");

function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many || `${one}s`}`;
}

const WRITERS = { bytes, ns: time, share };

// What a table of ours has under a name that may be anything, such as __proto__.
const word = (words, name) => Object.hasOwn(words, name) ? words[name] : undefined;

// A figure with its range: "42 %", "41 % (30–54)".
function figure(each, missing = TOO_FEW) {
  if (!each) return missing;
  const write = word(WRITERS, each.unit) || ((value) => `${digits(value)} ${each.unit}`);
  const range = interval(each, write);
  return write(each.value) + (range ? ` (${range})` : "");
}

function interval(each, write = word(WRITERS, each.unit) || digits) {
  if (each.low === null || each.high === null) return "";
  const [low, high] = [write(each.low), write(each.high)];
  return each.unit === "share" ? `${low.replace(" %", "")}–${high.replace(" %", "")}` : `${low}–${high}`;
}

const total = (amounts) => Object.values(amounts || {}).reduce((sum, each) => sum + each, 0);
const part = (amounts, node) => { const all = total(amounts); return all ? (amounts[node] || 0) / all : null; };
// A number and its unit stay on one line.
const glued = (text) => text.replace(/(\d) (%|[KMGTPE]?i?B|n?s|ms|µs)(?![\w%])/g, "$1\u00a0$2");
const shortened = (text, most) => text.length > most ? `${text.slice(0, most / 2 - 1)}…${text.slice(-most / 2)}` : text;
const basename = (path) => path.slice(path.lastIndexOf("/") + 1);

// The CPUs of a list such as "0-3,8", at most `most` of them.
function cpus(text, most = 4096) {
  const found = [];
  for (const range of text ? text.split(",") : []) {
    const [first, last] = range.split("-").map(Number);
    for (let cpu = first; cpu <= (last === undefined ? first : last) && found.length < most; cpu++) found.push(cpu);
  }
  return found;
}
