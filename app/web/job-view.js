// One job: its curves while they grow, what it wrote and saved, and what can be asked of it.

import { call, get, pause } from "/assets/api.js";
import { announce, confirmed, copyButton, drawnWhenChanged, el, fill } from "/assets/dom.js";
import { NOTABLE, inWords } from "/assets/event-words.js";
import { JobCurves, legend } from "/assets/job-curves.js";
import * as parts from "/assets/job-parts.js";
import { plan } from "/assets/plan.js";
import { problemPanel } from "/assets/problems.js";
import { actions, badge, ended, stateWord } from "/assets/status.js";
import { follow } from "/assets/stream.js";

const POINTS = 600;
// The row knows what no event tells: how far the run is, and what others asked of it.
const LOOK_AGAIN = 3000;
const LOOK_AGAIN_AT_THE_END = 15000;

/** Show a job, and follow it for as long as it is shown. */
export async function showJob(main, { id, connectionState, signal }) {
  const metrics = await get(`/jobs/${id}/metrics?points=${POINTS}`, { signal });
  // Read after the curves: whatever lies behind `metrics.after` comes over the stream too, and is known by its id.
  const [job, events, list] = await Promise.all([
    get(`/jobs/${id}`, { signal }),
    notableEvents(id, signal),
    checkpointList(id, signal),
  ]);
  new JobPage(main, { job, metrics, events, list, connectionState, signal }).live();
}

async function notableEvents(id, signal) {
  const found = new Map();
  for (let after = "0-0", more = true; more; ) {
    const query = new URLSearchParams([...NOTABLE.map((type) => ["type", type]), ["after", after], ["limit", 5000]]);
    const page = await get(`/jobs/${id}/events?${query}`, { signal });
    for (const event of page.events) found.set(event.id, event);
    more = page.events.length === 5000;
    after = page.next_after;
  }
  return found;
}

async function checkpointList(id, signal) {
  return (await get(`/jobs/${id}/checkpoints`, { signal })).data;
}

class JobPage {
  constructor(main, { job, metrics, events, list, connectionState, signal }) {
    Object.assign(this, { job, events, list, connectionState, signal });
    this.asked = this.answered = 0;
    this.cursor = metrics.after;
    this.latest = { ...job.latest };
    this.preparing = this.written = null;
    this.curves = new JobCurves(metrics, signal);
    this.told = el("div", {});
    this.draws = this.#layOut(main);
    this.#draw();
    document.title = `${job.name} · epochd`;
  }

  /** Follow the log, and look at the row now and then. */
  live() {
    this.#follow();
    this.#lookAgain();
  }

  async #follow() {
    this.following = true;
    try {
      this.cursor = await follow(this.job.id, this.cursor, {
        onEvents: (events) => this.#hear(events),
        onState: (state) => this.connectionState(state),
        signal: this.signal,
      });
      await this.#refresh();
    } catch (error) {
      if (!this.signal.aborted) fill(this.told, problemPanel(error));
    }
    this.following = false;
  }

  async #lookAgain() {
    while (!this.signal.aborted) {
      try {
        await pause(ended(this.job) ? LOOK_AGAIN_AT_THE_END : LOOK_AGAIN, this.signal);
        if (!document.hidden) await this.#refresh();
        // Someone else has retried it.
        if (!this.following && !ended(this.job)) this.#follow();
      } catch {
        // The stream says so where the server is away.
      }
    }
  }

  #hear(events) {
    let more = false;
    for (const event of events) {
      this.cursor = event.id;
      this.curves.hear(event);
      if (event.type === "batch") {
        this.preparing = null;
        Object.assign(this.latest, event.data);
        this.job.progress = progressAt(event.data, this.job);
      } else if (event.type === "preparing") this.preparing = event.data;
      else if (!this.events.has(event.id)) {
        this.events.set(event.id, event);
        more = true;
        if (event.type === "started") this.job.attempt = event.data.attempt;
        if (event.type === "epoch") this.latest.validation_loss = event.data.validation_loss;
        if (event.type !== "sample") announce(`${this.job.name}: ${inWords(event)}`);
      }
    }
    if (!more) return this.#drawNumbers();
    this.#draw();
    this.#refresh().catch(() => {});
  }

  async #refresh() {
    const { id } = this.job;
    const number = this.#ask();
    const [job, list, written] = await Promise.all([
      get(`/jobs/${id}`, { signal: this.signal }),
      checkpointList(id, this.signal),
      // Rarely looked at, and up to 64 kB for each attempt.
      this.output.open ? get(`/jobs/${id}/logs`, { signal: this.signal }) : null,
    ]);
    if (this.#take(job, number)) this.list = list;
    if (written) this.written = written.data;
    this.#draw();
  }

  #ask() {
    this.asked += 1;
    return this.asked;
  }

  /** Show the row as the server has it, unless a later question was answered first; say whether it is shown. */
  #take(job, number) {
    if (number < this.answered) return false;
    this.answered = number;
    const before = this.job;
    this.job = job;
    if (ended(job)) this.latest = { ...job.latest };
    // The events are ahead of the row.
    else if (job.attempt <= before.attempt && (before.progress?.step ?? 0) > (job.progress?.step ?? 0)) {
      const { epoch, step, fraction } = before.progress;
      this.job.progress = { ...job.progress, epoch, step, fraction };
      this.job.attempt = before.attempt;
    }
    return true;
  }

  #layOut(main) {
    const places = Object.fromEntries(
      ["state", "actions", "run", "numbers", "failure", "warnings", "samples", "epochs", "checkpoints", "plan", "spec", "log", "output"].map(
        (name) => [name, el(name === "numbers" ? "dl" : "div", { class: `part-${name}` })],
      ),
    );
    const section = (title, place, kind = "") => el("section", { class: `panel ${kind}` }, el("h2", {}, title), place);
    const folded = (title, place) => el("details", { class: "panel" }, el("summary", {}, el("h2", {}, title)), place);
    this.output = folded("Trainer output", places.output);
    this.output.addEventListener("toggle", () => this.#refresh().catch(() => {}));
    fill(
      main,
      el("div", { class: "title" }, el("h1", {}, this.job.name), places.state, places.actions),
      el("p", { class: "muted row" }, el("code", {}, this.job.id), copyButton(this.job.id), tags(this.job)),
      this.told,
      places.failure,
      places.run,
      places.numbers,
      places.warnings,
      this.curves.element,
      legend(),
      el(
        "div",
        { class: "columns" },
        el("div", {}, section("Samples", places.samples), section("Epochs", places.epochs), section("Plan", places.plan)),
        el("div", {}, section("Checkpoints", places.checkpoints)),
      ),
      folded("Log", places.log),
      this.output,
      folded("Spec", places.spec),
    );
    return {
      state: drawnWhenChanged(places.state, badge),
      actions: drawnWhenChanged(places.actions, (job) => actions(job).map((action) => this.#button(action))),
      run: drawnWhenChanged(places.run, parts.runLine),
      numbers: drawnWhenChanged(places.numbers, parts.numbers),
      failure: drawnWhenChanged(places.failure, parts.failure),
      warnings: drawnWhenChanged(places.warnings, parts.warnings),
      samples: drawnWhenChanged(places.samples, parts.samples),
      epochs: drawnWhenChanged(places.epochs, parts.epochs),
      checkpoints: drawnWhenChanged(places.checkpoints, (data) => parts.checkpoints(data, this.signal)),
      plan: drawnWhenChanged(places.plan, plan),
      spec: drawnWhenChanged(places.spec, parts.spec),
      log: drawnWhenChanged(places.log, parts.log),
      output: drawnWhenChanged(places.output, parts.output),
    };
  }

  #draw() {
    const { job, draws } = this;
    const events = [...this.events.values()];
    const { status, stop_requested, save_requested, queue_position } = job;
    draws.state({ status, stop_requested, queue_position });
    draws.actions({ status, stop_requested, save_requested });
    this.#drawNumbers();
    draws.failure(job.error);
    draws.warnings({ planned: job.plan.warnings, told: distinct(events, "warning") });
    draws.samples(newestRun(events, "sample", ({ epoch, prompt }) => `${epoch} ${prompt}`));
    draws.epochs(newestRun(events, "epoch", ({ epoch }) => epoch));
    draws.checkpoints({ job: { id: job.id }, list: this.list });
    draws.plan(job.plan);
    draws.spec(job.spec);
    draws.log(events);
    draws.output(this.written);
  }

  /** What every batch changes. */
  #drawNumbers() {
    this.draws.run({ job: shownInRun(this.job), preparing: this.preparing });
    this.draws.numbers(this.latest);
  }

  #button({ name, label, method, path, confirm }) {
    const kind = confirm ? "quiet danger-text" : "quiet";
    const button = el("button", { type: "button", class: kind, "data-action": name }, label);
    button.addEventListener("click", async () => {
      if (confirm && !(await confirmed(`${label} ${this.job.name}?`, confirm, `${label} the job`))) return;
      button.disabled = true;
      fill(this.told);
      try {
        const number = this.#ask();
        const job = await call(method, `/jobs/${this.job.id}${path}`, { signal: this.signal });
        if (job === null) {
          location.hash = "#/";
          return;
        }
        this.#take(job, number);
        this.#draw();
        announce(`${job.name}: ${stateWord(job)}`);
        if (!this.following && !ended(job)) this.#follow();
      } catch (error) {
        fill(this.told, problemPanel(error));
        this.#refresh().catch(() => {});
      }
      button.disabled = false;
    });
    return button;
  }
}

/** How far a run is at a batch; how long it still takes, only its row says. */
function progressAt({ epoch, step, tokens_per_second: speed }, { progress, plan: { steps } }) {
  const known = { ...progress, epoch, step };
  if (steps) known.fraction = step / steps;
  if (speed) known.tokens_per_second = speed;
  return known;
}

function shownInRun(job) {
  const { status, name, progress, plan, queue_position, failures, save_requested } = job;
  const { training, max_failures } = job.spec;
  return { status, name, progress, plan: { steps: plan.steps }, queue_position, failures, save_requested, spec: { training: { epochs: training.epochs }, max_failures } };
}

function tags(job) {
  return Object.entries(job.spec.tags).map(([key, value]) =>
    el("a", { class: "tag", href: `#/?${new URLSearchParams({ tag: `${key}:${value}` })}` }, `${key}:${value}`),
  );
}

function distinct(events, type) {
  return [...new Set(events.filter((event) => event.type === type).map((event) => event.data.message))];
}

/** What events of a type say last of each thing: after a resume some things come again. */
function newestRun(events, type, of) {
  const found = new Map();
  for (const event of events) if (event.type === type) found.set(of(event.data), event.data);
  return [...found.values()];
}
