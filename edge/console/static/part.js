// One record: its picture with what was found, all that was recorded, and what people say of it.

import { get, post } from "./api.js";
import { el, fill, terms } from "./dom.js";
import { picture } from "./picture.js";
import { badge, count, counted, kindOf, ms, score, symbol, time, truthOf } from "./words.js";

const BY = "edge-console-by";

export function part(main, { words, now }) {
  const seq = Number.parseInt(words[0], 10);
  const place = el("div", null, el("p", { class: "quiet" }, "…"));
  main.append(place);
  let maySay = now?.may_say ?? true;
  let left = false;
  let keys = {};

  async function look() {
    try {
      const about = await get(`/api/records/${seq}`);
      if (!left) keys = about.record.type === "override" ? word(place, about) : verdict(place, about, maySay, look);
    } catch (failed) {
      if (!left) fill(place, el("h1", null, `Record ${words[0]}`), el("p", { class: "problem" }, failed.message), around(seq, null));
    }
  }

  function press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    keys[event.key.toLowerCase()]?.(); // with Caps Lock, too
  }

  document.addEventListener("keydown", press);
  if (seq > 0) look();
  else fill(place, el("h1", null, "Part"), el("p", { class: "problem" }, "A record is named by its number."));
  return {
    update(said) { maySay = said.may_say; },
    leave() {
      left = true;
      document.removeEventListener("keydown", press);
    },
  };
}

function around(seq, about) {
  return el("nav", { class: "around", "aria-label": "Neighbouring records" },
    seq > (about?.first ?? 1) ? el("a", { class: "button", href: `#/part/${seq - 1}`, rel: "prev" }, "← Older record") : null,
    !about || seq < about.last ? el("a", { class: "button", href: `#/part/${seq + 1}`, rel: "next" }, "Newer record →") : null);
}

/** A person's word is a record, too. */
function word(place, about) {
  const { record } = about;
  fill(place,
    el("h1", null, `Record ${record.seq}: a person's word`),
    el("section", { class: "panel" }, terms([
      ["says", el("span", { class: `word-of ${kindOf(record.verdict)}` }, truthOf(record.verdict))],
      ["of", el("a", { href: `#/part/${record.of}` }, `record ${record.of}, part ${record.part_id || record.frame_id}`)],
      ["was", badge(record.was)],
      ["by", record.by], ["came in as", record.via], ["why", record.reason], ["at", time(record.decided_at_ns)],
    ]), raw(about)),
    around(record.seq, about));
  return {};
}

function verdict(place, about, maySay, renew) {
  const { record, images } = about;
  const name = record.part_id || record.frame_id;
  const view = { overlay: true, reference: false };
  const shown = el("div");
  const overlay = el("button", { type: "button", onclick: () => turn("overlay") }, "Findings (O)");
  const reference = el("button", { type: "button", onclick: () => turn("reference") }, "Reference (R)");

  function turn(which) {
    view[which] = !view[which];
    draw();
  }

  function draw() {
    overlay.setAttribute("aria-pressed", view.overlay);
    reference.setAttribute("aria-pressed", view.reference);
    const which = view.reference ? "reference" : "frame";
    fill(shown, images[which]
      ? el("p", { class: "picture missing quiet" }, images[which])
      : picture({ source: `/api/records/${record.seq}/${which}`, alt: `${which} of ${name}`, defects: record.defects, overlay: view.overlay }));
  }

  overlay.disabled = Boolean(images.frame) && Boolean(images.reference);
  reference.disabled = Boolean(images.reference);
  draw();
  fill(place,
    el("header", { class: `part-head ${kindOf(record.verdict)}` },
      el("p", { class: "kind" }, el("span", { "aria-hidden": "true" }, symbol(record.verdict)), record.verdict),
      el("div", null,
        el("h1", null, record.part_id ? `Part ${record.part_id}` : `Frame ${record.frame_id}`),
        el("p", null, `${record.reason} · score ${score(record.score)} · ${counted(record.defects.length, "finding")} · `, time(record.decided_at_ns)))),
    el("div", { class: "part" },
      el("section", { class: "panel", "aria-label": "Picture" },
        el("div", { class: "buttons" }, overlay, reference, images.frame ? null : el("a", { class: "button", href: `/api/records/${record.seq}/frame`, download: `${record.frame_id}` }, "Save the frame")),
        shown,
        findings(record)),
      el("div", { class: "beside" },
        opinions(about, maySay, renew),
        facts(record),
        others(about),
        proof(about))),
    around(record.seq, about));
  return { o: () => turn("overlay"), r: () => images.reference || turn("reference") };
}

function findings(record) {
  if (!record.defects.length) return el("p", { class: "quiet" }, "Nothing was found.");
  return el("table", { class: "findings-list" },
    el("caption", { class: "unseen" }, "Findings"),
    el("thead", null, el("tr", null, ["Class", "Score", "Box (x0, y0, x1, y1)"].map((each) => el("th", { scope: "col" }, each)))),
    el("tbody", null, [...record.defects].sort((a, b) => b.score - a.score).map((each) => el("tr", null,
      el("th", { scope: "row" }, each.class),
      el("td", { class: "number" }, score(each.score)),
      el("td", null, each.box.map((side) => Math.round(side)).join(", "))))));
}

function opinions(about, maySay, renew) {
  const { record, words } = about;
  const by = el("input", { name: "by", required: true, maxlength: 64, autocomplete: "off", value: sessionStorage.getItem(BY) ?? "", placeholder: "your name or role" });
  const reason = el("input", { name: "reason", required: true, maxlength: 500, autocomplete: "off", placeholder: "what you see on the part" });
  const problem = el("p", { class: "problem", role: "alert" });
  const buttons = [
    el("button", { type: "submit", value: "pass", class: "say pass" }, "✓ Good"),
    el("button", { type: "submit", value: "reject", class: "say reject" }, "✕ Bad"),
    el("button", { type: "submit", value: "review", class: "say" }, "? Cannot tell"),
  ];
  const form = el("form", null,
    el("label", null, "Who says so", by),
    el("label", null, "Why", reason),
    el("div", { class: "buttons" }, buttons), problem);
  let saying = false; // no button is disabled: it would lose the focus
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = event.submitter?.value;
    if (!said || saying) return;
    sessionStorage.setItem(BY, by.value.trim());
    saying = true;
    problem.textContent = "";
    try {
      await post("/api/override", { seq: record.seq, verdict: said, by: by.value.trim(), reason: reason.value.trim() });
      await renew();
      document.querySelector(".words li:last-child")?.focus({ preventScroll: true });
    } catch (failed) {
      problem.textContent = `It was not recorded: ${failed.message}`;
    }
    saying = false;
  });
  return el("section", { class: "panel", "aria-label": "What people say" },
    el("h2", null, "What people say"),
    words.length
      ? el("ol", { class: "words" }, words.map((each) => el("li", { tabindex: -1 },
        el("span", { class: `word-of ${kindOf(each.verdict)}` }, truthOf(each.verdict)), ` ${each.reason} `,
        el("span", { class: "quiet" }, "– ", each.by, ", ", time(each.decided_at_ns), ", as ", each.via, ", ", el("a", { href: `#/part/${each.seq}` }, `record ${each.seq}`)))))
      : el("p", { class: "quiet" }, "Nobody has said anything of this part."),
    maySay ? form : el("p", { class: "quiet" }, "This page only shows."),
    el("p", { class: "quiet" }, "A word becomes a record beside the verdict, signed with it. It changes no verdict and no setting; the truth that it holds is counted under ", el("a", { href: "#/tune" }, "Tune"), "."));
}

function facts(record) {
  const stages = Object.entries(record.latency_ms).filter(([name]) => name !== "total");
  return el("section", { class: "panel", "aria-label": "Recorded" },
    el("h2", null, "Recorded"),
    terms([
      ["frame", record.frame_id],
      ["pipeline", record.pipeline],
      ["deployment", `${record.deployment.name} revision ${record.deployment.revision}${record.deployment.signed ? "" : ", unsigned"}`],
      ["captured", time(record.captured_at_ns)],
      ["decided", time(record.decided_at_ns)],
      ["latency", `${ms(record.latency_ms.total)} of ${record.budget_ms} ms`],
      ["stages", stages.map(([name, value]) => `${name} ${ms(value)}`).join(", ")],
      ["provider", record.provider || "none"],
      ["judged", record.frame_index >= 0 ? `frame ${count(record.frame_index)} of its policy` : "no: the verdict is the host's fail-safe"],
      ...Object.entries(record.signals).map(([name, seen]) => [name, seen.state === "absent" ? seen.state : `${seen.value ?? "no number"}, ${seen.state}`]),
      ["software", record.software],
    ]));
}

function others({ record, of_part: lines }) {
  const rest = lines.filter((line) => line.seq !== record.seq);
  if (!rest.length) return null;
  return el("section", { class: "panel" },
    el("h2", null, "Other verdicts of this part"),
    el("ul", { class: "plain" }, rest.map((line) => el("li", null, badge(line.verdict), " ", el("a", { href: `#/part/${line.seq}` }, `record ${line.seq}`), `, ${line.pipeline}, `, time(line.decided_at_ns)))));
}

function proof(about) {
  const { record, head, receipted, commands } = about;
  const digests = Object.entries(record.digests).flatMap(([name, value]) => typeof value === "string" ? [[name, value]] : Object.entries(value ?? {}).map(([inner, each]) => [`refine ${inner}`, each]));
  return el("section", { class: "panel" },
    el("h2", null, "Proof"),
    terms([
      ["record", `${count(record.seq)} of ledger ${record.ledger}`],
      ["cloud", record.seq <= receipted ? "has receipted it" : "has not receipted it yet"],
    ]),
    command("A file that proves it to others", commands.prove),
    command("Judge it again from the kept frame", commands.replay),
    el("details", null, el("summary", null, "Digests (SHA-256)"),
      terms([...digests.filter(([, value]) => value), ["chain head after it", head], ["manifest", record.deployment.digest]].map(([name, value]) => [name, el("code", null, value)]), "terms digests"),
      raw(about)));
}

function command(label, text) {
  return el("p", { class: "command" }, label, el("code", { tabindex: "0" }, text));
}

function raw(about) {
  return el("p", null, el("a", { href: `/api/records/${about.record.seq}/body`, download: `record-${about.record.seq}.json` }, "The record's own bytes, as hashed"));
}
