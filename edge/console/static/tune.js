// Thresholds tried on what was recorded: how many would pass, and what people's words say of that.
// Everything is counted here from one answer, so that a slider moves at once. Nothing is changed.

import { get } from "./api.js";
import { el, fill, svg, terms } from "./dom.js";
import { asksBy, instant, ranges } from "./search.js";
import { badge, count, counted, KINDS, kindOf, percent, wilson } from "./words.js";

const BINS = 1_000;
const BARS = 50;
const FEW = 30;

export function tune(main, { query }) {
  const asked = { from: query.get("from") ?? "", to: query.get("to") ?? "" };
  const shown = el("div", null, el("p", { class: "quiet" }, "Counting…"));
  main.append(el("h1", null, "Tune"), range(asked), shown);
  let left = false;

  get("/api/tried", { since_ms: instant(asked.from), until_ms: instant(asked.to) }).then((tried) => {
    if (left) return;
    const groups = tried.groups.map(prepared).sort((a, b) => b.total - a.total);
    if (!groups.length) {
      fill(shown, el("p", { class: "panel" }, "No verdict was recorded in this time."));
      return;
    }
    const place = el("div");
    const choose = el("select", { onchange: () => show(groups[Number(choose.value)], place) },
      groups.map((group, index) => el("option", { value: index }, `${group.pipeline}: ${group.deployment.name} revision ${group.deployment.revision} (${counted(group.total, "verdict")})`)));
    fill(shown,
      tried.cut ? el("p", { class: "trouble warn" }, `There is more than is counted at once: these are the newest ${count(tried.looked_at)} records of the time.`) : null,
      groups.length > 1 ? el("label", { class: "panel which" }, "Pipeline and deployment", choose) : null,
      place);
    show(groups[0], place);
  }).catch((failed) => fill(shown, el("p", { class: "problem" }, `Nothing can be counted: ${failed.message}`)));
  return { leave() { left = true; } };
}

function range(asked) {
  const from = el("input", { name: "from", type: "datetime-local", value: asked.from });
  const to = el("input", { name: "to", type: "datetime-local", value: asked.to });
  const made = el("form", { class: "panel search" },
    el("label", null, "From", from), el("label", null, "To", to),
    el("div", { class: "buttons" }, el("button", { class: "primary" }, "Count"),
      ranges(from, to)));
  return asksBy(made, "tune");
}

function prepared(group) {
  const cells = group.cells.map(([bin, kind, truth, n]) => ({ bin, kind, truth, n }));
  const sum = (which) => cells.reduce((all, cell) => all + (which(cell) ? cell.n : 0), 0);
  return {
    ...group, cells, sum,
    scored: sum(() => true),
    good: sum((cell) => cell.truth === "good"),
    bad: sum((cell) => cell.truth === "bad"),
    total: sum(() => true) + Object.values(group.others).reduce((all, n) => all + n, 0),
  };
}

/** The number that a parameter is, or null: it may be absent, `never`, or one for each class. */
function plain(value) {
  return typeof value === "number" ? value : null;
}

function show(group, place) {
  const decide = group.settings.decide ?? {};
  const set = { reject: plain(decide.reject), review: plain(decide.review) };
  const at = { reject: set.reject ?? 0.5, review: set.review ?? set.reject ?? 0.5 };
  const becomes = el("div");
  const known = el("div");
  const picture = el("div");
  const sliders = Object.fromEntries(["reject", "review"].map((name) => [name, slider(name)]));

  function slider(name) {
    const number = el("output", null, at[name].toFixed(2));
    const input = el("input", {
      type: "range", min: 0, max: 1, step: 0.01, value: at[name], name,
      oninput: () => {
        at[name] = Number(input.value);
        if (at.review > at.reject) {
          const other = name === "reject" ? "review" : "reject";
          at[other] = at[name];
          sliders[other].set(at[name]);
        }
        number.textContent = at[name].toFixed(2);
        draw();
      },
    });
    const back = set[name] === null ? null : el("button", { type: "button", class: "quiet-button", onclick: () => { input.value = set[name]; input.dispatchEvent(new Event("input")); } }, `back to ${set[name]}`);
    const id = `slider-${name}`;
    input.id = id;
    return {
      node: el("div", { class: `slider ${name}` }, el("label", { for: id }, badge(name, `${name} from`), number), back, input),
      set(value) { input.value = value; number.textContent = value.toFixed(2); },
    };
  }

  function draw() {
    fill(picture, histogram(group, at));
    fill(becomes, counts(group, at));
    fill(known, rates(group, at));
  }

  draw();
  fill(place,
    el("section", { class: "panel" },
      el("h2", null, "Scores, and where they part"),
      picture, sliders.review.node, sliders.reject.node,
      legend(group)),
    el("div", { class: "tuned" }, el("div", null, becomes, meaning(group, set)), known));
}

/** What a threshold makes of a score. */
function given(bin, at) {
  if (bin >= Math.round(at.reject * BINS)) return "reject";
  return bin >= Math.round(at.review * BINS) ? "review" : "pass";
}

function counts(group, at) {
  const rows = KINDS.map((kind) => {
    const was = group.sum((cell) => cell.kind === kind);
    const is = group.sum((cell) => given(cell.bin, at) === kind);
    return [kind, was, is];
  });
  const same = group.sum((cell) => given(cell.bin, at) === cell.kind);
  return el("section", { class: "panel" },
    el("h2", null, "What would become of them"),
    el("table", { class: "outcome" },
      el("thead", null, el("tr", null, ["verdict", "as recorded", "at these thresholds", "change"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", null, rows.map(([kind, was, is]) => el("tr", null,
        el("th", { scope: "row" }, badge(kind)),
        el("td", { class: "number" }, count(was)),
        el("td", { class: "number strong" }, count(is)),
        el("td", { class: "number" }, is === was ? "–" : `${is > was ? "+" : "−"}${count(Math.abs(is - was))}`))))),
    el("p", { class: "quiet" }, `${count(same)} of ${counted(group.scored, "verdict")} would stay as recorded.`,
      Object.keys(group.others).length ? ` Not counted, for no score decided them: ${Object.entries(group.others).map(([reason, n]) => `${reason} ${count(n)}`).join(", ")}.` : ""));
}

function rates(group, at) {
  const tell = (name, truth, hits, of, what) => {
    const between = wilson(hits, of);
    return el("div", { class: `rate ${name}` },
      el("dt", null, name),
      el("dd", null, el("strong", null, of ? percent(hits / of) : "–"),
        el("span", null, of ? `${count(hits)} of ${count(of)} ${what}` : `no part is known to be ${truth}`),
        between ? el("span", { class: "quiet" }, `95 % interval ${percent(between[0])} to ${percent(between[1])}`) : null));
  };
  const overkill = group.sum((cell) => cell.truth === "good" && given(cell.bin, at) === "reject");
  const escape = group.sum((cell) => cell.truth === "bad" && given(cell.bin, at) === "pass");
  const looked = group.sum((cell) => cell.truth !== "" && given(cell.bin, at) === "review");
  const known = group.good + group.bad;
  return el("section", { class: "panel" },
    el("h2", null, "Overkill against escape"),
    el("dl", { class: "rates" }, tell("overkill", "good", overkill, group.good, "good parts, rejected"), tell("escape", "bad", escape, group.bad, "bad parts, passed")),
    known ? curve(group, at) : null,
    el("p", { class: known < FEW ? "few" : "quiet" },
      `People have said of ${counted(known, "verdict")} out of ${count(group.scored)} what is true: ${count(group.good)} good, ${count(group.bad)} bad${looked ? `; ${count(looked)} of them would be reviewed` : ""}. `,
      known < FEW ? "That is few: the intervals are wide, and a threshold should not be moved on it. " : "",
      "People look mostly at what was rejected or reviewed, so escapes are rather more than is seen here: have passed parts looked at, too."));
}

const H = 180, FOOT = 20, WIDE = 800;
const THUMB = 8; // half of a slider's thumb, so that scores stand above their place on the slider

/** A drawing as wide as its place, so that letters have their size; in a half or whole panel. */
function plane(parts) {
  const page = document.getElementById("main").clientWidth;
  const width = Math.max(280, Math.round(page / (page > WIDE ? parts : 1)) - 40);
  const across = (share) => THUMB + share * (width - 2 * THUMB);
  const drawn = (label, at, ...shapes) => svg("svg", { viewBox: `0 0 ${width} ${H}`, role: "img", "aria-label": label },
    svg("line", { x1: 0, x2: width, y1: H - FOOT, y2: H - FOOT, class: "axis" }),
    ...shapes,
    ["review", "reject"].map((name) => svg("line", { x1: across(at[name]), x2: across(at[name]), y1: 2, y2: H - FOOT, class: `threshold ${name}` })),
    [0, 0.25, 0.5, 0.75, 1].map((value) => svg("text", { x: across(value), y: H - 5, "text-anchor": value === 0 ? "start" : value === 1 ? "end" : "middle" }, String(value))));
  return { across, drawn };
}

function histogram(group, at) {
  const bars = Array.from({ length: BARS }, () => ({ "": 0, good: 0, bad: 0 }));
  for (const cell of group.cells) bars[Math.min(BARS - 1, Math.floor((cell.bin * BARS) / BINS))][cell.truth] += cell.n;
  // By the root, so that a few parts near a threshold are seen beside the thousands at 0.
  const most = Math.max(...bars.map((bar) => bar[""] + bar.good + bar.bad), 1);
  const tall = (n) => Math.sqrt(n / most) * (H - FOOT - 8);
  const { across, drawn } = plane(1);
  const width = across(1 / BARS) - across(0);
  return el("figure", { class: "chart" }, drawn(`Histogram of ${count(group.scored)} scores; heights by the square root of the count`, at,
    bars.map((bar, index) => {
      const all = bar[""] + bar.good + bar.bad;
      if (!all) return null;
      const x = across(index / BARS) + 0.5;
      const kind = given(Math.round((index + 0.5) * (BINS / BARS)), at);
      const known = tall(all) * ((bar.good + bar.bad) / all);
      const bad = tall(all) * (bar.bad / all);
      return svg("g", null,
        svg("title", null, `${(index / BARS).toFixed(2)} to ${((index + 1) / BARS).toFixed(2)}: ${count(all)}; ${bar.good} good, ${bar.bad} bad`),
        svg("rect", { x, width: width - 1, y: H - FOOT - tall(all), height: tall(all), class: `bar ${kindOf(kind)}` }),
        known ? svg("rect", { x: x + 2, width: width - 5, y: H - FOOT - known, height: known, class: "truth good" }) : null,
        bad ? svg("rect", { x: x + 2, width: width - 5, y: H - FOOT - bad, height: bad, class: "truth bad" }) : null);
    })));
}

function legend(group) {
  return el("p", { class: "legend quiet" },
    ...KINDS.map((kind) => el("span", null, el("i", { class: `swatch ${kind}` }), kind)),
    group.good + group.bad ? [el("span", null, el("i", { class: "swatch truth good" }), "said to be good"), el("span", null, el("i", { class: "swatch truth bad" }), "said to be bad")] : [],
    el("span", null, "heights by the square root"));
}

/** Both rates over every reject threshold; reviewing as it is set. */
function curve(group, at) {
  const { across, drawn } = plane(2);
  const steps = Array.from({ length: 101 }, (_, index) => index / 100);
  const line = (of, hits) => steps.map((share) => {
    const tried = { reject: share, review: Math.min(at.review, share) };
    return `${across(share).toFixed(1)},${(8 + (1 - (of ? hits(tried) / of : 0)) * (H - FOOT - 12)).toFixed(1)}`;
  }).join(" ");
  const overkill = line(group.good, (tried) => group.sum((cell) => cell.truth === "good" && given(cell.bin, tried) === "reject"));
  const escape = line(group.bad, (tried) => group.sum((cell) => cell.truth === "bad" && given(cell.bin, tried) === "pass"));
  return el("figure", { class: "chart" }, drawn("Overkill falls and escape rises as the reject threshold rises", at,
    group.good ? svg("polyline", { points: overkill, class: "curve overkill" }) : null,
    group.bad ? svg("polyline", { points: escape, class: "curve escape" }) : null),
  el("figcaption", { class: "legend quiet" }, el("span", null, el("i", { class: "swatch overkill" }), "overkill"), el("span", null, el("i", { class: "swatch escape" }), "escape"), el("span", null, "over the reject threshold")));
}

function meaning(group, set) {
  const floor = plain(group.settings.postprocess?.score);
  const known = Object.keys(group.settings).length > 0;
  const named = set.reject !== null || set.review !== null;
  const prefix = `pipelines.${group.pipeline}.decide.parameters`;
  return el("section", { class: "panel" },
    el("h2", null, "What this would change"),
    known && named
      ? terms([[`${prefix}.reject`, set.reject ?? "not one number"], [`${prefix}.review`, set.review ?? "not one number"], [`pipelines.${group.pipeline}.postprocess.parameters.score`, floor ?? ""]], "terms code")
      : el("p", null, known
        ? "The policy of this deployment has no single number named reject or review (thresholds may differ by class, or another policy decides): the sliders are a picture only."
        : "The parameters that judged these are not kept here any more, so the thresholds that were in force are not known."),
    floor === null ? null : el("p", null, `Findings below ${floor} are dropped before the policy (postprocess), so their parts have the score 0: a threshold below it shows nothing that is not seen already.`),
    el("p", null, el("strong", null, "Nothing is changed from here. "), "A threshold is a parameter of the deployment: edit it in manifest.toml, raise its revision, and roll it out like any other (docs/updates.md). It is then proved on golden frames, shadowed and watched, and it goes back by itself if it does worse."),
    el("p", { class: "quiet" }, "Counted are frames, by the score in their record. Where thresholds differ by class, or the policy counts over several parts (bursts, drift), its verdicts differ from these counts; “would stay as recorded” shows by how much."));
}
