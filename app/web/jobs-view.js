// What runs and waits, and what there was: found by status and tag, a page at a time.

import { asked, get } from "/assets/api.js";
import { command, dotted, drawnWhenChanged, el, fill } from "/assets/dom.js";
import { ago, decimal, moment, whole } from "/assets/format.js";
import { keepFresh } from "/assets/fresh.js";
import { LIVE, STATES, badge, ended, progress, timeLeft } from "/assets/status.js";

const PAGE = 25;

/** Show the jobs; the filter and the page stand in the address. */
export async function showJobs(main, { query, connectionState, signal }) {
  const chosen = new Set();
  const filter = { status: query.get("status") ?? "", tag: query.get("tag") ?? "", cursor: query.get("cursor") ?? "" };
  const live = el("section", { "aria-label": "Live jobs" });
  const history = el("section", { "aria-label": "Jobs" });
  const compare = el("a", { class: "button", href: "#/compare", hidden: true });
  const draw = {
    live: drawnWhenChanged(live, (jobs) => liveSection(jobs)),
    history: drawnWhenChanged(history, (page) => historySection(page, filter, chosen, showChosen)),
  };
  function showChosen() {
    compare.hidden = chosen.size < 2;
    compare.textContent = `Compare ${chosen.size} jobs`;
    compare.href = `#/compare?jobs=${[...chosen].join(",")}`;
  }
  async function refresh() {
    const found = await fetched(filter, signal);
    draw.live(found.live);
    draw.history(found.page);
  }
  const first = await fetched(filter, signal);
  fill(main, el("div", { class: "title" }, el("h1", {}, "Jobs"), compare), filterForm(filter), live, history);
  draw.live(first.live);
  draw.history(first.page);
  keepFresh(refresh, connectionState, signal);
}

async function fetched({ status, tag, cursor }, signal) {
  const narrowed = status || tag || cursor;
  // All at once and waited for together: one that fails alone, when nobody waits for it yet, would be nobody's error.
  const [{ data, next_cursor }, ...lists] = await Promise.all([
    get(`/jobs?${asked({ status, tag, cursor, limit: PAGE })}`, { signal }),
    ...(narrowed ? [] : LIVE.map((state) => get(`/jobs?status=${state}&limit=50`, { signal }))),
  ]);
  const live = lists.flatMap((list) => list.data);
  // What is live stands above; only where nothing is asked for is there an above.
  const shown = narrowed ? data : data.filter(ended);
  // Drawn again at least once a minute: the page says how long ago things were.
  const minute = Math.floor(Date.now() / 60_000);
  return { live, page: { data: shown, next_cursor, any: live.length + data.length > 0, minute } };
}

function filterForm({ status, tag }) {
  const states = el(
    "select",
    { id: "filter-status" },
    el("option", { value: "" }, "any"),
    STATES.map((state) => el("option", { value: state, selected: state === status }, state)),
  );
  const tags = el("input", { id: "filter-tag", value: tag, placeholder: "team:docs", size: 16, spellcheck: "false" });
  const form = el(
    "form",
    { class: "filter", "aria-label": "Filter" },
    el("label", { for: "filter-status" }, "Status"),
    states,
    el("label", { for: "filter-tag" }, "Tag"),
    tags,
    el("button", { type: "submit", class: "quiet" }, "Find"),
    status || tag ? el("a", { href: "#/" }, "Show all") : null,
  );
  const go = (event) => {
    event.preventDefault();
    location.hash = `#/?${asked({ status: states.value, tag: tags.value.trim() })}`;
  };
  form.addEventListener("submit", go);
  states.addEventListener("change", go);
  return form;
}

function liveSection(jobs) {
  if (!jobs.length) return [];
  const cards = jobs.map((job) =>
    el(
      "li",
      { class: "card" },
      el("div", { class: "row" }, badge(job), jobLink(job), el("span", { class: "muted end" }, timeLeft(job))),
      progress(job),
      el(
        "p",
        { class: "muted numbers" },
        dotted([
          `loss ${decimal(job.latest?.loss)}`,
          `epoch ${job.progress?.epoch ?? "–"} of ${job.spec.training.epochs}`,
          job.started_at ? `started ${ago(job.started_at)}` : `queued ${ago(job.created_at)}`,
        ]),
      ),
    ),
  );
  return [el("h2", {}, "Live"), el("ul", { class: "cards" }, cards)];
}

function jobLink(job) {
  return el("a", { class: "name", href: `#/jobs/${job.id}` }, job.name);
}

function historySection(page, filter, chosen, showChosen) {
  if (!page.any) return empty(filter);
  const title = el("h2", {}, filter.status || filter.tag ? "Found" : "History");
  if (!page.data.length) return [title, el("p", { class: "muted" }, "Nothing has ended yet.")];
  const pages = el(
    "p",
    { class: "row" },
    filter.cursor ? el("a", { href: `#/?${asked({ ...filter, cursor: "" })}` }, "Newest") : null,
    page.next_cursor ? el("a", { href: `#/?${asked({ ...filter, cursor: page.next_cursor })}` }, "Older jobs") : null,
  );
  return [title, table(page.data, chosen, showChosen), pages];
}

function table(jobs, chosen, showChosen) {
  const heads = ["", "Status", "Name", "Loss", "Validation", "Steps", "Tags", "Created"];
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { class: "jobs" },
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head || el("span", { class: "visually-hidden" }, "Compare"))))),
      el("tbody", {}, jobs.map((job) => row(job, chosen, showChosen))),
    ),
  );
}

function row(job, chosen, showChosen) {
  const choose = el("input", { type: "checkbox", "aria-label": `Compare ${job.name}`, checked: chosen.has(job.id) });
  choose.addEventListener("change", () => {
    if (choose.checked) chosen.add(job.id);
    else chosen.delete(job.id);
    showChosen();
  });
  const tags = Object.entries(job.spec.tags).map(([key, value]) =>
    el("a", { class: "tag", href: `#/?${new URLSearchParams({ tag: `${key}:${value}` })}` }, `${key}:${value}`),
  );
  return el(
    "tr",
    {},
    el("td", {}, choose),
    el("td", {}, badge(job)),
    el("td", {}, jobLink(job)),
    el("td", { class: "number", "data-name": "loss" }, decimal(job.latest?.loss)),
    el("td", { class: "number", "data-name": "validation" }, decimal(job.latest?.validation_loss)),
    el("td", { class: "number wide" }, whole(job.progress?.step)),
    el("td", { class: "wide" }, tags),
    el("td", { class: "muted" }, el("time", { datetime: job.created_at, title: moment(job.created_at) }, ago(job.created_at))),
  );
}

function empty({ status, tag }) {
  if (status || tag) return el("p", { class: "muted" }, "No job is like that.");
  return el(
    "div",
    { class: "panel" },
    el("h3", {}, "No jobs yet"),
    el("p", {}, el("a", { href: "#/new" }, "Start one here"), ", or from a terminal:"),
    command(
      [
        `KEY=$(cat .epochd/key)`,
        `DATASET=$(curl -sS -H "Authorization: Bearer $KEY" -F file=@corpus.txt ${location.origin}/datasets |`,
        `  python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')`,
        `curl -sS -H "Authorization: Bearer $KEY" --json '{"dataset": "'$DATASET'"}' ${location.origin}/jobs`,
      ].join("\n"),
    ),
  );
}
