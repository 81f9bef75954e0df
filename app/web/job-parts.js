// The parts of a job's page, each drawn from data alone.

import { copyButton, dotted, el } from "/assets/dom.js";
import { downloadButton, fromATerminal } from "/assets/download.js";
import { inWords } from "/assets/event-words.js";
import { bytes, clock, decimal, duration, moment, percent, scientific, whole } from "/assets/format.js";
import { progress, timeLeft } from "/assets/status.js";

/** Where the run is: a bar, and the words. `preparing` is the last event of that type while there are no batches. */
export function runLine({ job, preparing }) {
  const at = job.progress;
  const parts = [
    at?.epoch ? `epoch ${at.epoch} of ${job.spec.training.epochs}` : null,
    at?.step ? `step ${whole(at.step)}${job.plan.steps ? ` of ${whole(job.plan.steps)}` : ""}` : null,
    job.status === "running" && at?.tokens_per_second ? `${whole(at.tokens_per_second)} tokens/s` : null,
    timeLeft(job) || null,
    job.status === "running" && preparing && !at?.step ? inWords({ type: "preparing", data: preparing }) : null,
    job.save_requested ? "saving a checkpoint…" : null,
    job.status === "queued" && job.queue_position ? `number ${job.queue_position} in the queue` : null,
    job.failures ? `${job.failures} of ${job.spec.max_failures} failures` : null,
  ];
  return [progress(job), el("span", { class: "numbers muted" }, dotted(parts))];
}

/** The newest numbers. */
export function numbers(latest) {
  const all = [
    ["Loss", decimal(latest.loss)],
    ["Validation loss", decimal(latest.validation_loss)],
    ["Accuracy", percent(latest.accuracy)],
    ["Learning rate", scientific(latest.learning_rate)],
    ["Gradient norm", decimal(latest.grad_norm, 2)],
  ];
  return all.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
}

/** Why a job failed, and what to do about it. */
export function failure(error) {
  if (!error) return [];
  return el(
    "div",
    { class: "panel problem", role: "alert" },
    el("p", {}, el("strong", {}, error.message), " ", el("code", {}, error.code)),
    el("p", {}, error.hint),
  );
}

/** What the plan and the run warn of. */
export function warnings({ planned, told }) {
  const all = [...planned, ...told];
  if (!all.length) return [];
  return el("div", { class: "panel warning" }, el("h2", {}, "Warnings"), el("ul", {}, all.map((text) => el("li", {}, text))));
}

/** What the model wrote, newest epoch first. */
export function samples(list) {
  const epochs = [...new Set(list.map((sample) => sample.epoch))].sort((a, b) => b - a);
  if (!epochs.length) return el("p", { class: "muted" }, "Given samples.prompts, the model writes at the end of each epoch.");
  return epochs.map((epoch, index) =>
    el(
      "details",
      { open: index === 0 },
      el("summary", {}, `Epoch ${epoch}`),
      list
        .filter((sample) => sample.epoch === epoch)
        .map(({ prompt, text }) => el("p", { class: "sample" }, el("strong", {}, prompt), text)),
    ),
  );
}

/** The table of the epochs. */
export function epochs(list) {
  if (!list.length) return el("p", { class: "muted" }, "No epoch is over yet.");
  const heads = ["Epoch", "Loss", "Accuracy", "Validation", "Perplexity", "Time"];
  const rows = list.map((data) => [
    data.epoch,
    decimal(data.loss),
    percent(data.accuracy),
    decimal(data.validation_loss),
    decimal(data.perplexity, 1),
    duration(data.seconds),
  ]);
  return numbersTable(heads, rows);
}

function numbersTable(heads, rows) {
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", class: "number" }, head)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value) => el("td", { class: "number" }, value))))),
    ),
  );
}

/** The checkpoints, with sizes, hashes and downloads. */
export function checkpoints({ job, list }, signal) {
  if (!list.length) return el("p", { class: "muted" }, "The first one comes at the end of an epoch, or with Save now.");
  return list.map((checkpoint, index) =>
    el(
      "details",
      { open: index === 0 },
      el(
        "summary",
        {},
        `Epoch ${checkpoint.epoch} · step ${whole(checkpoint.step)} · ${bytes(checkpoint.bytes)}`,
        checkpoint.best ? el("span", { class: "badge best" }, "best") : null,
      ),
      el(
        "p",
        { class: "numbers muted" },
        dotted([
          `loss ${decimal(checkpoint.metrics.loss)}`,
          `validation ${decimal(checkpoint.metrics.validation_loss)}`,
          moment(checkpoint.created_at),
        ]),
      ),
      el(
        "p",
        { class: "row" },
        el("span", {}, "All of it (.tar)"),
        downloadButton(`${job.id}-epoch-${checkpoint.epoch}.tar`, checkpoint.archive_url, checkpoint.bytes, signal),
      ),
      el("ul", { class: "files" }, checkpoint.files.map((file) => fileLine(file, signal))),
      el("details", { class: "inner" }, el("summary", {}, "From a terminal"), fromATerminal(job, checkpoint)),
    ),
  );
}

function fileLine(file, signal) {
  return el(
    "li",
    {},
    el("span", { class: "row" }, el("code", {}, file.name), el("span", { class: "muted number" }, bytes(file.bytes))),
    downloadButton(file.name, file.url, file.bytes, signal),
    el("code", { class: "hash", title: "sha256" }, file.sha256),
  );
}

/** The request with every default filled in. */
export function spec(document) {
  const text = JSON.stringify(document, null, 2);
  return [copyButton(text), el("pre", { class: "spec" }, el("code", {}, text))];
}

/** What the trainers of the last attempts wrote, newest first. */
export function output(attempts) {
  if (attempts === null) return []; // the panel is folded, or just opened
  if (!attempts.length) return el("p", { class: "muted" }, "Its trainers have written nothing: all that they had to tell stands above.");
  return attempts.map(({ attempt, lines, text }) => {
    const left = lines - text.split("\n").length;
    return [
      el("p", { class: "muted row" }, `Attempt ${attempt}${left > 0 ? `, without its first ${whole(left)} lines` : ""}`, copyButton(text)),
      el("pre", { class: "output", tabindex: "0" }, text),
    ];
  });
}

/** The log without its batches, newest first. */
export function log(events) {
  return el(
    "ol",
    { class: "log" },
    events
      .filter((event) => event.type !== "sample")
      .reverse()
      .map((event) =>
        el(
          "li",
          { class: event.type },
          el("time", { datetime: event.at, title: moment(event.at) }, clock(event.at)),
          el("span", {}, inWords(event)),
        ),
      ),
  );
}
