// The page: which view an address means, and which key opens the API.

import { Unreachable, key, keepKey, pause } from "/assets/api.js";
import { el, fill } from "/assets/dom.js";
import { problemPanel } from "/assets/problems.js";
import { showCompare } from "/assets/compare-view.js";
import { showDatasets } from "/assets/datasets-view.js";
import { showJob } from "/assets/job-view.js";
import { showJobs } from "/assets/jobs-view.js";
import { showKey } from "/assets/key-view.js";
import { showNew } from "/assets/new-view.js";

const ROUTES = [
  [/^\/$/, showJobs],
  [/^\/jobs\/([0-9A-Za-z_-]+)$/, showJob],
  [/^\/compare$/, showCompare],
  [/^\/datasets$/, showDatasets],
  [/^\/new$/, showNew],
];

const main = document.getElementById("main");
let leaving = new AbortController();
let refusal = "";

async function show() {
  leaving.abort();
  leaving = new AbortController();
  // A question about what is no longer shown is answered with no.
  document.getElementById("dialog").close();
  const { signal } = leaving;
  const url = new URL(location.hash.slice(1) || "/", location.origin);
  header(url);
  connectionState("");
  if (key() === null) return showKey(main, { message: refusal, entered: show });
  refusal = "";
  const [, view, match] = route(url.pathname);
  fill(main, el("p", { class: "muted" }, "Loading…"));
  if (!view) return fill(main, notFound());
  await tried(() => view(main, { id: match[1], query: url.searchParams, connectionState, signal }), signal);
  if (!signal.aborted) scrollTo(0, 0);
}

function route(path) {
  for (const [pattern, view] of ROUTES) {
    const match = pattern.exec(path);
    if (match) return [pattern, view, match];
  }
  return [];
}

/** Show a view, again and again where the server does not answer; an error that stays is shown instead. */
async function tried(view, signal) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 5000)) {
    try {
      return await view();
    } catch (error) {
      if (signal.aborted) return;
      fill(main, el("h1", {}, "This does not work"), problemPanel(error, el("p", {}, el("a", { href: "#/" }, "All jobs"))));
      if (!(error instanceof Unreachable)) {
        if (error.status === undefined) console.error(error);
        return;
      }
    }
    await pause(wait, signal).catch(() => {});
    if (signal.aborted) return;
  }
}

function header(url) {
  const known = key() !== null;
  const navigation = document.getElementById("navigation");
  navigation.hidden = document.getElementById("sign-out").hidden = !known;
  for (const link of navigation.querySelectorAll("a")) {
    const here = link.getAttribute("href") === `#${url.pathname}`;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = "epochd";
}

/** Say in the bar how the connection of what is shown is: "live", "lost", "ended", or nothing. */
function connectionState(state) {
  const words = { live: "Live", lost: "Connection lost, trying again…", ended: "", "": "" };
  const place = document.getElementById("connection");
  if (place.dataset.state === state) return;
  place.dataset.state = state;
  place.textContent = words[state];
}

function notFound() {
  return [el("h1", {}, "There is nothing here"), el("p", {}, el("a", { href: "#/" }, "All jobs"))];
}

addEventListener("hashchange", async () => {
  await show();
  // As a browser does on a new page: the keyboard, and whoever listens, start at its beginning.
  if (key() !== null) main.focus({ preventScroll: true });
});
addEventListener("key-refused", ({ detail }) => {
  refusal = detail;
  keepKey(null);
  show();
});
document.getElementById("sign-out").addEventListener("click", () => {
  keepKey(null);
  show();
});
show();
