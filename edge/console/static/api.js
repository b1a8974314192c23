// Asking the console. Every question has an end, and an error is a sentence for a person.

const PATIENCE_MS = 12_000;

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE_MS), credentials: "same-origin" });
  } catch (failed) {
    throw new Refused(0, failed.name === "TimeoutError" ? "the console takes too long" : "the console does not answer");
  }
  if (answer.status === 401) {
    location.replace("/login");
    throw new Refused(401, "sign in");
  }
  const said = await answer.json().catch(() => ({ error: `the console answered with status ${answer.status}` }));
  if (!answer.ok) throw new Refused(answer.status, said.error ?? `status ${answer.status}`);
  return said;
}

export function get(path, question = {}) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(question)) {
    if (value !== "" && value !== undefined && value !== null && value !== 0) words.set(name, value);
  }
  const query = words.toString();
  return ask(query ? `${path}?${query}` : path, {});
}

export function post(path, document) {
  return ask(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-edge-console": "1" },
    body: JSON.stringify(document),
  });
}
