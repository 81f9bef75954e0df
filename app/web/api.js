// The public API, and nothing else: every request carries the key, which this tab alone remembers.

const KEPT_AS = "epochd-key";

/** An answer that says what is wrong: `detail` says what to do, `errors` say where. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || `The server answered with status ${status}.`);
    this.status = status;
    this.errors = document.errors || [];
  }
}

/** No answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer. It may be restarting; this page tries again by itself.");
  }
}

/** The key of this tab, or null. */
export function key() {
  return sessionStorage.getItem(KEPT_AS);
}

/** Keep a key for as long as the tab is open; null forgets it. */
export function keepKey(value) {
  if (value === null) sessionStorage.removeItem(KEPT_AS);
  else sessionStorage.setItem(KEPT_AS, value);
}

/** Return the answer to GET. Throws Problem, Unreachable. */
export function get(path, options = {}) {
  return call("GET", path, options);
}

/** Return the answer to POST. Throws Problem, Unreachable. */
export function post(path, options = {}) {
  return call("POST", path, options);
}

/** Return the JSON that a request is answered with, or null where it has no body. */
export async function call(method, path, { body, headers, signal } = {}) {
  const answer = await send(method, path, { body: body === undefined ? undefined : JSON.stringify(body), headers, signal });
  return answer.status === 204 ? null : answer.json();
}

/** Return the raw answer. Throws Problem where it is none of success, Unreachable where there is none. */
export async function send(method, path, { body, headers = {}, signal, as = key() } = {}) {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  let answer;
  try {
    answer = await fetch(path, { method, body, signal, headers: { Authorization: `Bearer ${as}`, ...json, ...headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (answer.ok) return answer;
  throw refused(answer.status, await answer.json().catch(() => ({})), as);
}

/** Return the Problem of a refusal, and let the page ask for another key where this one opens nothing. */
export function refused(status, document, as = key()) {
  const problem = new Problem(status, document);
  if (status === 401 && as === key()) dispatchEvent(new CustomEvent("key-refused", { detail: problem.message }));
  return problem;
}

/** Return the query of an address; what is empty is left out. */
export function asked(parameters) {
  return new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
}

/** Wait, unless what it is for is over. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const over = () => {
      clearTimeout(timer);
      reject(new DOMException("No longer wanted.", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", over);
      resolve();
    }, milliseconds);
    if (signal.aborted) over();
    else signal.addEventListener("abort", over, { once: true });
  });
}
