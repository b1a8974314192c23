// The line now: the last verdict, large enough for three metres, and what it stands on.

import { get } from "./api.js";
import { el, fill, svg, terms } from "./dom.js";
import { picture } from "./picture.js";
import { badge, bytes, count, counted, KINDS, kindOf, ms, percent, score, span, symbol } from "./words.js";

const STRIP = 80;
const CHART = 120;
const KEPT_EVERY_MS = 2_000;
const QUIET_S = 10;

export function live(main) {
  const verdict = el("section", { class: "verdict-now unknown", "aria-label": "Last verdict" });
  const strip = el("ol", { class: "strip", "aria-label": "Last verdicts, newest first; arrow keys go along", onkeydown: along });
  const kept = el("section", { class: "panel kept", "aria-label": "Newest kept frame" }, el("h2", null, "Newest kept frame"), el("p", { class: "quiet" }, "…"));
  const pipelines = el("div", { class: "pipelines" });
  const drifts = el("div", { class: "pipelines drifts" });
  const counts = el("section", { class: "panel" });
  const ledger = el("section", { class: "panel" });
  main.append(
    el("h1", { class: "unseen" }, "Live"),
    el("div", { class: "live" },
      el("div", { class: "live-left" }, verdict, strip),
      kept),
    el("div", { class: "cards" }, pipelines, counts, ledger),
    drifts);

  let stripped = -1;
  let shownSeq = -1;
  let left = false;

  async function lookForKept() {
    if (left) return;
    if (!document.hidden) {
      try {
        const { seq } = await get("/api/newest");
        if (!left && seq !== shownSeq) await showKept(seq);
      } catch (failed) {
        if (shownSeq < 1) fill(kept, el("h2", null, "Newest kept frame"), el("p", { class: "quiet" }, failed.message));
      }
    }
    setTimeout(lookForKept, KEPT_EVERY_MS);
  }

  async function showKept(seq) {
    if (!seq) {
      fill(kept, el("h2", null, "Newest kept frame"), el("p", { class: "quiet" }, "None of the last verdicts has its frame kept."));
      shownSeq = seq;
      return;
    }
    const { record } = await get(`/api/records/${seq}`);
    if (left) return;
    shownSeq = seq;
    fill(kept,
      el("header", { class: "kept-head" },
        el("h2", null, "Newest kept frame"),
        badge(record.verdict),
        el("a", { href: `#/part/${seq}` }, record.part_id || record.frame_id)),
      picture({ source: `/api/records/${seq}/frame`, alt: `Frame ${record.frame_id}, ${record.verdict}, ${counted(record.defects.length, "finding")}`, defects: record.defects }));
  }

  // What was decided before this console began to hear.
  let earlier = [];
  get("/api/records", { limit: STRIP }).then(({ lines }) => {
    earlier = lines;
    stripped = -1;
  }).catch(() => {}); // the strip begins empty then

  lookForKept();
  return {
    update(now) {
      showVerdict(verdict, now);
      const newest = now.verdicts[0]?.number ?? 0;
      if (newest !== stripped) {
        stripped = newest;
        const heard = new Set(now.verdicts.map((said) => said.frame_id));
        const all = [...now.verdicts, ...earlier.filter((line) => !heard.has(line.frame_id))];
        fill(strip, all.slice(0, STRIP).map(tick));
      }
      const known = Object.entries(now.status?.pipelines ?? {}).sort(([, one], [, other]) => one.ready - other.ready);
      fill(pipelines, known.map(([name, about]) => pipeline(name, about, now)));
      fill(drifts, known.map(([name, about]) => usual(name, about.drift, now)));
      // The last will of a daemon that went says that and nothing more.
      counts.hidden = ledger.hidden = now.status?.state !== "online";
      showCounts(counts, now.status?.counters ?? {});
      showLedger(ledger, now);
    },
    lost() {
      verdict.classList.add("stale");
    },
    leave() {
      left = true;
    },
  };
}

/** All ticks are one stop of the Tab key; arrows go from one to the next that is seen. */
function along(event) {
  const way = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
  const next = way && event.target.closest("li")?.[way]?.firstElementChild;
  if (!next) return;
  event.preventDefault();
  const strip = event.currentTarget;
  if (next.offsetTop - strip.offsetTop < strip.clientHeight) next.focus();
}

function tick(said, index) {
  const name = said.part_id || said.frame_id;
  return el("li", null, el("a", {
    href: `#/parts?frame=${encodeURIComponent(said.frame_id)}`,
    class: `tick ${kindOf(said.verdict)}`,
    tabindex: index ? -1 : 0,
    title: `${name}: ${said.verdict}, ${said.reason}`,
    "aria-label": `${name}: ${said.verdict}`,
  }, symbol(said.verdict)));
}

function showVerdict(panel, now) {
  const [state, word] = now.health;
  const last = now.verdicts[0];
  if (state === "bad") {
    panel.className = "verdict-now down";
    fill(panel, el("p", { class: "word" }, word), el("p", { class: "about" }, last ? `Last verdict heard: ${last.verdict}, of ${last.part_id || last.frame_id}.` : "No verdict was heard.", " What was recorded is under Parts."));
    return;
  }
  if (!last) {
    panel.className = "verdict-now unknown";
    fill(panel, el("p", { class: "word" }, "waiting"), el("p", { class: "about" }, "Ready. No part has come since this page was opened."));
    return;
  }
  const age = now.time_ns / 1e9 - last.captured_at_ns / 1e9;
  panel.className = `verdict-now ${kindOf(last.verdict)}${age > QUIET_S ? " stale" : ""}`;
  fill(panel,
    el("p", { class: "word" }, el("span", { "aria-hidden": "true" }, symbol(last.verdict)), last.verdict),
    el("p", { class: "about" },
      el("strong", null, last.part_id || last.frame_id),
      Object.keys(now.status?.pipelines ?? {}).length > 1 ? el("span", null, last.pipeline) : null,
      el("span", null, last.reason),
      last.defects ? el("span", null, counted(last.defects, "finding")) : null,
      el("span", null, `score ${score(last.score)}`),
      el("span", null, ms(last.latency_ms)),
      el("span", null, age > 1.5 ? `${span(age)} ago` : "now")));
}

function pipeline(name, about, now) {
  const latency = about.latency_ms ?? {};
  const deployment = about.deployment ?? {};
  const heard = now.verdicts.filter((said) => said.pipeline === name).slice(0, CHART).reverse();
  const over = latency.over_budget ?? 0;
  return el("section", { class: "panel" },
    el("header", { class: "card-head" },
      el("h2", null, name),
      el("span", { class: `pill ${about.ready ? "good" : "bad"}` }, about.ready ? "ready" : "not ready"),
      deployment.signed ? null : el("span", { class: "pill warn" }, "unsigned")),
    about.trouble ? el("p", { class: "problem" }, about.trouble) : null,
    terms([
      ["deployment", `${deployment.name} revision ${deployment.revision}`],
      ["provider", about.provider || "none"],
      ["rate", typeof about.frames_per_s === "number" ? `${about.frames_per_s.toFixed(1)} frames/s` : ""],
      ["latency p50 / p99", latency.count ? `${latency.p50.toFixed(1)} / ${latency.p99.toFixed(1)} ms of ${about.budget_ms}` : "no frame yet"],
      ["over budget", latency.count ? el("span", { class: over ? "bad-text" : "" }, `${count(over)} of ${count(latency.count)}`) : ""],
      ["at work", about.unanswered ? counted(about.unanswered, "frame") : ""],
      ["canary", about.canary ? `${about.canary.name ?? "a deployment"} judges a share` : ""],
      ["drift", drift(about.drift)],
    ]),
    heard.length > 1 ? chart(heard, about.budget_ms) : null);
}

/** What a pipeline has learnt as usual, in a word. */
function drift(about) {
  if (!about) return "not watched";
  if (about.state === "learning") return `learns what is usual: ${count(about.learnt)} of ${count(about.of)} frames`;
  return about.findings.length ? el("span", { class: "caution" }, counted(about.findings.length, "finding")) : "none";
}

/** What drifts, why it may, and how far each measure is from what is usual. */
function usual(name, about, now) {
  if (!about || !Object.keys(about.measures).length) return null;
  return el("section", { class: "panel", "aria-label": `Drift of ${name}` },
    el("h2", null, `Drift: ${name}`),
    el("div", { class: "beside" }, el("ul", { class: "plain" }, about.findings.map((finding) => el("li", { class: "caution" },
      finding.detail, " ", el("span", { class: "quiet" }, `since ${span((now.time_ns - finding.since_ns) / 1e9)}`)))),
    sights(about)));
}

/** How far each measure is from what is usual; the mark is where drift begins. */
function sights(about) {
  return el("table", { class: "counts sights", "aria-label": "Now, and what is usual" },
    el("thead", null, el("tr", null, ["measure", "now", "usual", "of what may be"].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", null, Object.entries(about.measures).map(([name, { now, reference, ratio }]) => el("tr", null,
      el("th", { scope: "row" }, name),
      el("td", { class: "number" }, figure(now)),
      el("td", { class: "number" }, figure(reference)),
      el("td", { class: "share" }, el("meter", { class: ratio >= 1 ? "review" : "pass", min: 0, max: 2, value: Math.min(ratio, 2), title: percent(ratio) })),
    ))));
}

function figure(value) {
  return typeof value === "number" ? value.toPrecision(3) : "–";
}

function chart(heard, budget) {
  const width = 480, height = 110, foot = 14;
  const values = heard.map((said) => said.latency_ms ?? 0);
  const most = Math.max(budget * 1.12, ...values);
  const x = (index) => 4 + (index / (CHART - 1)) * (width - 8);
  const y = (value) => 4 + (1 - value / most) * (height - foot - 8);
  const first = CHART - heard.length;
  return el("figure", { class: "chart" },
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Latency of the last ${heard.length} verdicts; the budget is ${budget} ms` },
      svg("line", { x1: 0, x2: width, y1: y(0), y2: y(0), class: "axis" }),
      svg("line", { x1: 0, x2: width, y1: y(budget), y2: y(budget), class: "budget" }),
      svg("text", { x: width - 4, y: y(budget) + 13, "text-anchor": "end" }, `budget ${budget} ms`),
      values.map((value, index) => svg("line", {
        x1: x(first + index), x2: x(first + index), y1: y(0), y2: Math.min(y(value), y(0) - 2), class: `bar ${kindOf(heard[index].verdict)}`,
      })),
      svg("text", { x: 4, y: height - 2 }, `last ${heard.length} verdicts`),
      svg("text", { x: width - 4, y: height - 2, "text-anchor": "end" }, "now")));
}

function showCounts(panel, counters) {
  const rows = [];
  for (const [key, n] of Object.entries(counters)) {
    const match = /^verdicts\{(.*)\}$/.exec(key);
    if (!match) continue;
    const labels = Object.fromEntries(match[1].split(",").map((pair) => pair.split("=", 2)));
    rows.push({ kind: labels.kind ?? "", reason: labels.reason ?? "", n });
  }
  rows.sort((a, b) => KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind) || b.n - a.n);
  const all = rows.reduce((sum, row) => sum + row.n, 0);
  fill(panel,
    el("h2", null, "Since the daemon started"),
    rows.length ? null : el("p", { class: "quiet" }, "No verdict yet."),
    el("table", { class: "counts" }, el("tbody", null, rows.map((row) => el("tr", null,
      el("td", null, badge(row.kind)),
      el("td", null, el("a", { href: `#/parts?kind=${encodeURIComponent(row.kind)}&reason=${encodeURIComponent(row.reason)}` }, row.reason)),
      el("td", { class: "share" }, el("meter", { class: kindOf(row.kind), min: 0, max: all, value: row.n, "aria-hidden": "true" })),
      el("td", { class: "number" }, count(row.n)))))));
}

function showLedger(panel, now) {
  const ledger = now.status?.ledger;
  if (!ledger) {
    fill(panel, el("h2", null, "Ledger"), el("p", { class: "quiet" }, "This device records nothing (ledger.enabled)."));
    return;
  }
  const frames = ledger.frames;
  const since = ledger.owed_since_ns ? `, since ${span((now.time_ns - ledger.owed_since_ns) / 1e9)}` : "";
  fill(panel,
    el("h2", null, "Ledger"),
    terms([
      ["records", count(ledger.committed)],
      ["owed to the cloud", `${count(ledger.owed)}${ledger.owed ? since : ""}`],
      ["signed up to", ledger.signed === undefined ? "" : count(ledger.signed)],
      ["size", ledger.max_bytes ? `${bytes(ledger.bytes)} of ${bytes(ledger.max_bytes)}` : ""],
      ["kept frames", frames ? `${counted(frames.files, "file")}, ${bytes(frames.bytes)} of ${bytes(frames.max_bytes)}` : ""],
      ["not kept", frames?.dropped ? counted(frames.dropped, "frame") : ""],
      ["waiting for the disk", ledger.waiting ? counted(ledger.waiting, "record") : ""],
      ["receipt refused", ledger.refused_receipt],
    ]),
    frames?.trouble ? el("p", { class: "problem" }, frames.trouble) : null);
}
