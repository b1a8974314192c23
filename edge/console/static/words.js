// How things are said: kinds, times, numbers.

import { el } from "./dom.js";

export const KINDS = ["pass", "review", "reject"];
const SYMBOLS = { pass: "✓", review: "?", reject: "✕" };
const NS_PER_MS = 1_000_000;

export function kindOf(kind) {
  return KINDS.includes(kind) ? kind : "unknown";
}

export function symbol(kind) {
  return SYMBOLS[kind] ?? "·";
}

export function badge(kind, text = kind) {
  return el("span", { class: `badge ${kindOf(kind)}` }, el("span", { "aria-hidden": "true" }, `${symbol(kind)} `), text);
}

/** What a person's word says of a part. */
export function truthOf(kind) {
  return { pass: "good", reject: "bad" }[kind] ?? "undecided";
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-CA", { year: "numeric", month: "2-digit", day: "2-digit" });

export function time(ns, withDay = true) {
  if (!ns) return "–";
  const at = new Date(ns / NS_PER_MS);
  const text = withDay ? `${day.format(at)} ${clock.format(at)}` : clock.format(at);
  return el("time", { datetime: at.toISOString(), title: at.toISOString() }, text);
}

export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 1.5) return "now";
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172_800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86_400)} days`;
}

const grouped = new Intl.NumberFormat("en-GB");

export function count(n) {
  return grouped.format(n ?? 0);
}

export function counted(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function ms(value) {
  return typeof value === "number" ? `${value.toFixed(value < 100 ? 1 : 0)} ms` : "–";
}

export function score(value) {
  return typeof value === "number" ? value.toFixed(3) : "–";
}

export function bytes(n) {
  return n >= 1 << 30 ? `${(n / 2 ** 30).toFixed(1)} GiB` : `${(n / 2 ** 20).toFixed(n < 10 << 20 ? 1 : 0)} MiB`;
}

export function percent(share) {
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

/** The 95 % Wilson interval of so many of so many; null of nothing. As edge replay says it. */
export function wilson(hits, of) {
  if (!of) return null;
  const z = 1.959964;
  const share = hits / of;
  const spread = z * Math.sqrt((share * (1 - share)) / of + (z * z) / (4 * of * of));
  const middle = share + (z * z) / (2 * of);
  const scale = 1 + (z * z) / of;
  return [Math.max(0, (middle - spread) / scale), Math.min(1, (middle + spread) / scale)];
}
