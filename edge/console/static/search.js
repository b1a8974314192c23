// What both searches have: times as fields take them, ranges that people ask for, the address as the question.

import { el } from "./dom.js";

/** An instant as the fields say it, in the browser's own time. */
export function instant(text) {
  const at = text ? new Date(text).getTime() : 0;
  return Number.isFinite(at) && at > 0 ? at : 0;
}

/** An instant as a datetime-local field takes it. */
function local(at) {
  const shifted = new Date(at.getTime() - at.getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 16);
}

/** Ranges that people ask for, in the browser's own time. */
const RANGES = {
  "last hour": () => [new Date(Date.now() - 3_600_000), null],
  today: () => [midnight(0), null],
  yesterday: () => [midnight(-1), midnight(0)],
  "7 days": () => [midnight(-6), null],
  all: () => [null, null],
};

function midnight(days) {
  const at = new Date();
  at.setHours(0, 0, 0, 0);
  at.setDate(at.getDate() + days);
  return at;
}

/** Buttons that fill in two fields of a form, and ask. */
export function ranges(from, to, names = Object.keys(RANGES)) {
  return names.map((name) => el("button", {
    type: "button", class: "range", onclick: () => {
      const [begin, end] = RANGES[name]();
      from.value = begin ? local(begin) : "";
      to.value = end ? local(end) : "";
      from.form.requestSubmit();
    },
  }, name));
}

/** Have a form ask by the page's address, so that a question can be kept, sent and gone back to. */
export function asksBy(form, view, more = {}) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const words = new URLSearchParams();
    for (const [name, value] of [...new FormData(form), ...Object.entries(more)]) if (value?.trim()) words.set(name, value.trim());
    const target = `#/${view}${words.size ? `?${words}` : ""}`;
    if (target === location.hash) window.dispatchEvent(new HashChangeEvent("hashchange"));
    else location.hash = target;
  });
  return form;
}
