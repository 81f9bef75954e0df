// A new job: its form is the API's own schema, and its plan is shown before anything starts.

import { get, post } from "/assets/api.js";
import { announce, command, el, fill } from "/assets/dom.js";
import { bytes, whole } from "/assets/format.js";
import { plan as planFacts } from "/assets/plan.js";
import { clearFields, problemPanel, showAtFields } from "/assets/problems.js";
import { field, named } from "/assets/schema-fields.js";
import { SchemaForm } from "/assets/schema-form.js";
import { datasetZone } from "/assets/upload.js";

const OPEN = ["training"];

/** Show the form; `?dataset=` chooses one. */
export async function showNew(main, { query, signal }) {
  const [document, datasets, tokenizers] = await Promise.all([
    get("/openapi.json", { signal }),
    get("/datasets?limit=200", { signal }),
    get("/tokenizers?limit=200", { signal }),
  ]);
  const schemas = document.components.schemas;
  const special = {
    dataset: (schema, path) => datasetField(schema, path, datasets.data, query.get("dataset"), signal),
    "tokenizer.upload": (schema, path) => tokenizerField(schema, path, tokenizers.data),
  };
  const control = new SchemaForm(schemas, special, OPEN).object(schemas.JobSpec, []);
  const outcome = el("div", { class: "outcome" });
  const show = el("button", { type: "submit", class: "primary" }, "Show the plan");
  const form = el("form", { class: "job-form", novalidate: true }, control.element, el("p", { class: "row" }, show), outcome);
  // A plan of something else than what is in the form would be a trap.
  form.addEventListener("input", () => fill(outcome));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    show.disabled = true;
    await showPlan(form, outcome, control.pruned(), signal);
    show.disabled = false;
  });
  fill(main, el("h1", {}, "New job"), form);
}

async function showPlan(form, outcome, spec, signal) {
  clearFields(form);
  try {
    const made = await post("/jobs?dry_run=true", { body: spec, signal });
    fill(outcome, planPanel(form, outcome, spec, made, signal));
    announce("The plan is shown below the form.");
    outcome.querySelector("button.primary").focus();
  } catch (error) {
    if (!signal.aborted) fill(outcome, error.errors ? showAtFields(error, form) : problemPanel(error));
  }
}

function planPanel(form, outcome, spec, made, signal) {
  // The same for every click on this plan: however often it is clicked, it is one job.
  const idempotencyKey = randomKey();
  const start = el("button", { type: "button", class: "primary" }, "Start this job");
  start.addEventListener("click", async () => {
    start.disabled = true;
    try {
      const job = await post("/jobs", { body: spec, headers: { "Idempotency-Key": idempotencyKey }, signal });
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      if (signal.aborted) return;
      start.disabled = false;
      const place = outcome.querySelector(".told");
      fill(place, error.errors ? showAtFields(error, form) : problemPanel(error));
    }
  });
  return el(
    "section",
    { class: "panel", "aria-label": "Plan" },
    el("h2", {}, "Plan"),
    made.warnings.length
      ? el("div", { class: "panel warning" }, el("ul", {}, made.warnings.map((warning) => el("li", {}, warning))))
      : null,
    planFacts(made),
    el("details", {}, el("summary", {}, "The same with curl"), command(curl(spec))),
    el("p", { class: "row" }, start),
    el("div", { class: "told" }),
  );
}

function curl(spec) {
  const body = JSON.stringify(spec, null, 1).replaceAll("'", "'\\''");
  return `curl -sS -H "Authorization: Bearer $KEY" --json '${body}' ${location.origin}/jobs`;
}

function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function datasetField(schema, path, datasets, chosen, signal) {
  const option = ({ id, filename, rows, bytes: size }) =>
    el("option", { value: id, selected: id === chosen }, `${filename} · ${whole(rows)} rows · ${bytes(size)}`);
  const input = el("select", named(path), datasets.map(option));
  const uploaded = (dataset) => {
    if (![...input.options].some(({ value }) => value === dataset.id)) input.prepend(option(dataset));
    input.value = dataset.id;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const zone = datasetZone({ uploaded, signal });
  const hint = datasets.length ? "" : "None is here yet: drop one below.";
  return { element: [field(schema, path, input, hint), zone], read: () => input.value };
}

function tokenizerField(schema, path, tokenizers) {
  const option = ({ id, filename, vocab_size: tokens }) => el("option", { value: id }, `${filename} · ${whole(tokens)} tokens`);
  const input = el("select", named(path), tokenizers.map(option));
  const hint = tokenizers.length ? "" : "None is here yet: drop one on the page of the datasets.";
  return { element: field(schema, path, input, hint), read: () => input.value };
}
