// Search: the records of this box by part, frame, time, kind and reason; newest first, a page at a time.

import { get } from "./api.js";
import { el } from "./dom.js";
import { picture } from "./picture.js";
import { asksBy, instant, ranges } from "./search.js";
import { badge, count, counted, KINDS, ms, score, time, truthOf } from "./words.js";

const PAGE = 50;
const CARDS = 24;
const FIELDS = ["part", "frame", "pipeline", "kind", "reason", "from", "to", "worded", "as"];

export function parts(main, { query, now }) {
  const asked = Object.fromEntries(FIELDS.map((name) => [name, query.get(name) ?? ""]));
  const status = el("p", { class: "quiet", role: "status" }, "Searching…");
  const body = el("tbody");
  const more = el("button", { type: "button", hidden: true }, "Older ones");
  const table = el("table", { class: "records" },
    el("caption", { class: "unseen" }, "Verdicts found"),
    el("thead", null, el("tr", null, ["Verdict", "Part", "Reason", "Score", "Findings", "Latency", "Decided", "A person says", "Record"]
      .map((name) => el("th", { scope: "col" }, name)))), body);
  const inPictures = asked.as === "pictures";
  const gallery = el("ol", { class: "gallery", "aria-label": "Verdicts found" });
  main.append(el("h1", null, "Parts"), form(asked, now),
    el("div", { class: "found" }, status, choice(asked, inPictures)),
    inPictures ? gallery : el("div", { class: "wide" }, table), more, dataset(asked));

  let before = 0;
  let shown = 0;
  let looking = false;
  let left = false;

  async function look() {
    if (looking) return; // the button is not disabled: it would lose the focus
    looking = true;
    try {
      const found = await get("/api/records", { ...question(asked), before, limit: inPictures ? CARDS : PAGE, pictures: inPictures ? 1 : 0 });
      if (left) return;
      const lines = found.lines.map(inPictures ? card : row);
      (inPictures ? gallery : body).append(...lines);
      if (!found.next && document.activeElement === more) lines[0]?.querySelector("a").focus();
      shown += found.lines.length;
      before = found.next;
      more.hidden = !found.next;
      more.textContent = found.lines.length < (inPictures ? CARDS : PAGE) ? "Search further back" : "Older ones";
      status.textContent = said(found, shown);
    } catch (failed) {
      status.textContent = `Nothing can be searched: ${failed.message}`;
    }
    looking = false;
  }

  more.addEventListener("click", look);
  look();
  return { leave() { left = true; } };
}

/** What people said in the time that is searched, as the folder that edge replay reads. */
function dataset(asked) {
  const words = new URLSearchParams();
  const { since_ms: since, until_ms: until } = question(asked);
  if (since) words.set("since_ms", since);
  if (until) words.set("until_ms", until);
  const problem = el("p", { class: "problem", role: "alert" });
  const address = `/api/dataset${words.size ? `?${words}` : ""}`;
  const link = el("a", { class: "button", href: address, download: "" }, "Save what people said as a data set");
  link.addEventListener("click", async (event) => {
    event.preventDefault();
    problem.textContent = "";
    const answer = await fetch(address).catch(() => null);
    if (!answer?.ok) {
      problem.textContent = (await answer?.json().catch(() => null))?.error ?? "The console does not answer.";
      return;
    }
    const left = Number(answer.headers.get("x-without-frame"));
    const saved = el("a", { href: URL.createObjectURL(await answer.blob()), download: "said.zip" });
    saved.click();
    URL.revokeObjectURL(saved.href);
    made.textContent = `${counted(Number(answer.headers.get("x-parts")), "part")} saved${left ? `; ${count(left)} left out, whose frame is not kept` : ""}${answer.headers.get("x-cut") === "1" ? "; these are the newest, narrow the time for older ones" : ""}.`;
  });
  const made = el("p", { class: "quiet", role: "status" });
  return el("section", { class: "panel dataset" },
    el("h2", null, "Corrections for the next data set"),
    el("p", null, "Every part of this time of which a person said good or bad, with its frame, its reference and that truth, as a zip file: unpacked, it is a folder for training, and ", el("code", null, "edge replay --variants as-is FOLDER"), " plays and scores it."),
    link, made, problem);
}

/** A link to the same search in the other form. */
function choice(asked, inPictures) {
  const words = new URLSearchParams(FIELDS.filter((name) => name !== "as" && asked[name]).map((name) => [name, asked[name]]));
  const plain = words.toString();
  words.set("as", "pictures");
  const one = (name, address, current) => el("a", { class: "button", href: address, ...(current ? { "aria-current": "true" } : {}) }, name);
  return el("div", { class: "choice" }, one("Table", `#/parts${plain ? `?${plain}` : ""}`, !inPictures), one("Pictures", `#/parts?${words}`, inPictures));
}

function card(line) {
  const name = line.part_id || line.frame_id;
  return el("li", { class: "panel card" },
    line.kept
      ? picture({ source: `/api/records/${line.seq}/frame`, alt: `Frame of ${name}`, defects: line.findings ?? [], lazy: true })
      : el("p", { class: "picture missing quiet" }, "its frame is not kept"),
    el("p", null, badge(line.verdict), " ", el("a", { href: `#/part/${line.seq}` }, name),
      line.word ? el("span", { class: `word-of ${line.word.verdict}` }, truthOf(line.word.verdict)) : null),
    el("p", { class: "quiet" }, `${line.reason} · ${score(line.score)} · `, time(line.decided_at_ns)));
}

function said(found, shown) {
  const range = found.last < found.first ? "the ledger is empty" : `records ${count(found.first)} to ${count(found.last)} are here`;
  if (!shown && found.next) return `None among the records looked at so far; ${range}.`;
  return `${shown ? `${counted(shown, "verdict")} shown` : "No verdict was found"}${found.next ? ", there are older records" : ""}; ${range}.`;
}

function question(asked) {
  return {
    part: asked.part, frame: asked.frame, pipeline: asked.pipeline, kind: asked.kind, reason: asked.reason,
    since_ms: instant(asked.from), until_ms: instant(asked.to), worded: asked.worded ? 1 : 0,
  };
}

function row(line) {
  return el("tr", null,
    el("td", null, badge(line.verdict)),
    el("th", { scope: "row" }, el("a", { href: `#/part/${line.seq}` }, line.part_id || line.frame_id)),
    el("td", null, line.reason),
    el("td", { class: "number" }, score(line.score)),
    el("td", { class: "number" }, count(line.defects)),
    el("td", { class: "number less" }, ms(line.latency_ms)),
    el("td", null, time(line.decided_at_ns)),
    el("td", null, line.word ? el("span", { class: `word-of ${line.word.verdict}` }, truthOf(line.word.verdict)) : ""),
    el("td", { class: "number less" }, line.seq));
}

function form(asked, now) {
  const reasons = new Set();
  for (const key of Object.keys(now?.status?.counters ?? {})) {
    const match = /^verdicts\{.*reason=([^,}]+)/.exec(key);
    if (match) reasons.add(match[1]);
  }
  const pipelines = Object.keys(now?.status?.pipelines ?? {});
  const field = (name, label, props = {}) => el("label", null, label, el("input", { name, value: asked[name], maxlength: 128, spellcheck: "false", autocomplete: "off", ...props }));
  const from = el("input", { name: "from", type: "datetime-local", value: asked.from });
  const to = el("input", { name: "to", type: "datetime-local", value: asked.to });
  const made = el("form", { class: "panel search", role: "search" },
    field("part", "Part", { placeholder: "id, or begin*", type: "search" }),
    field("frame", "Frame", { placeholder: "id, or begin*", type: "search" }),
    el("label", null, "Verdict", select("kind", ["", ...KINDS], asked.kind, "any")),
    field("reason", "Reason", { list: "reasons", placeholder: "any" }),
    el("datalist", { id: "reasons" }, [...reasons].sort().map((value) => el("option", { value }))),
    pipelines.length > 1 || asked.pipeline ? el("label", null, "Pipeline", select("pipeline", ["", ...new Set([...pipelines, asked.pipeline].filter(Boolean))], asked.pipeline, "any")) : null,
    el("label", null, "From", from),
    el("label", null, "To", to),
    el("label", { class: "check" }, el("input", { type: "checkbox", name: "worded", value: "1", ...(asked.worded ? { checked: true } : {}) }), "only where a person spoke"),
    el("div", { class: "buttons" },
      el("button", { class: "primary" }, "Search"),
      el("a", { class: "button", href: "#/parts" }, "Clear"),
      ranges(from, to, ["last hour", "today", "yesterday", "7 days"])));
  return asksBy(made, "parts", { as: asked.as });
}

function select(name, values, chosen, empty = "") {
  return el("select", { name }, values.map((value) => el("option", { value, ...(value === chosen ? { selected: true } : {}) }, value || empty)));
}
