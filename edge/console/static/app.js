// Which view is shown, by the address behind the #; and what every view says: the device and its health.

import { get } from "./api.js";
import { fill } from "./dom.js";
import { live } from "./live.js";
import { part } from "./part.js";
import { parts } from "./parts.js";
import { tune } from "./tune.js";
import { span } from "./words.js";

const LOOK_MS = 1_000;
const VIEWS = { live, parts, part, tune };
const TITLES = { live: "Live", parts: "Parts", part: "Part", tune: "Tune" };

const main = document.getElementById("main");
const trouble = document.getElementById("trouble");
const health = document.getElementById("health");
let shown = null;
let now = null;
let view = "live";
let reached = Date.now();

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  view = Object.hasOwn(VIEWS, name) ? name : "live";
  shown?.leave?.();
  fill(main);
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.dataset.view === view || (view === "part" && link.dataset.view === "parts");
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  entitle();
  shown = VIEWS[view](main, { words: rest, query: new URLSearchParams(query ?? ""), now });
  if (now) shown?.update?.(now);
}

function entitle() {
  document.title = `${TITLES[view]} · ${now?.device ?? "edge"}`;
}

/** What is wrong, in one sentence; and one word for the bar. */
function judged(said) {
  const status = said.status;
  if (said.broker) return ["bad", "no broker", `Nothing is heard of the line: ${said.broker}. Verdicts go on where daemon and broker do; the records below stay readable.`];
  if (!status) return ["bad", "no daemon", "The broker is there, but no daemon has said anything: has edge run been started, is device.id the right one, and may the page's user read the status topic?"];
  if (status.state !== "online") return ["bad", "offline", `The daemon is ${status.state}${status.detail ? `: ${status.detail}` : "."}`];
  if (said.outdated_s) return ["bad", "outdated", `The daemon last spoke ${span(said.outdated_s)} ago: it or its network is gone, or the clocks differ.`];
  const lame = Object.entries(status.pipelines ?? {}).find(([, each]) => !each.ready);
  if (!status.ready) return ["bad", "not ready", `Not ready: ${lame ? `${lame[0]}: ${lame[1].trouble || "its worker starts"}` : "see the pipelines below"}.`];
  const ledger = status.ledger ?? {};
  if (ledger.stuck || ledger.trouble) return ["warn", "storage", `Storage: ${ledger.trouble || "takes no record; frames are reviewed unjudged"}.`];
  if (status.refused_filters?.length) return ["warn", "refused", `The broker refuses the daemon ${status.refused_filters.join(", ")}.`];
  return ["good", "ready", ""];
}

function say([state, word, sentence]) {
  health.className = `pill ${state}`;
  if (health.textContent !== word) health.textContent = word;
  trouble.hidden = !sentence;
  trouble.className = `trouble ${state}`;
  if (trouble.textContent !== sentence) trouble.textContent = sentence;
}

async function look() {
  if (!document.hidden) {
    let said = null;
    try {
      said = await get("/api/live");
    } catch (failed) {
      const age = span((Date.now() - reached) / 1000);
      say(["bad", "no console", `This page has lost the console (${failed.message}). What you see is ${age} old.`]);
      shown?.lost?.();
    }
    if (said) update(said);
  }
  setTimeout(look, LOOK_MS);
}

function update(said) {
  now = said;
  reached = Date.now();
  try {
    now.health = judged(now);
    say(now.health);
    document.getElementById("device").textContent = now.device;
    entitle();
    shown?.update?.(now);
  } catch (fault) {
    console.error(fault);
    say(["bad", "fault", `This page does not understand what the daemon says (${fault.message}): are daemon and console of one version?`]);
    shown?.lost?.();
  }
}

window.addEventListener("hashchange", () => {
  route();
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address behind the # is the view's
  main.focus();
});
route();
look();
