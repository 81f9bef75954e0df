// What a run will do and take, as far as that is known before it runs.

import { el } from "/assets/dom.js";
import { bytes, count, percent, scientific, whole } from "/assets/format.js";

const MEMORY = ["weights", "gradients", "optimizer", "activations", "logits"];

/** What the run comes to. */
export function plan(made) {
  const left = [
    ["Skipped rows", made.skipped_rows],
    ["Windows too short", made.dropped_sequences],
    ["Windows without loss", made.silent_sequences],
  ];
  const all = [
    ["Parameters", count(made.parameters)],
    ["Vocabulary", whole(made.vocab_size)],
    ["Rows", whole(made.rows)],
    ["Validation rows", whole(made.validation_rows)],
    ...left.filter(([, number]) => number).map(([name, number]) => [name, whole(number)]),
    ["Batches per epoch", whole(made.batches_per_epoch)],
    ["Steps", whole(made.steps)],
    ["Tokens per epoch", whole(made.tokens_per_epoch)],
    ["Padding", percent(made.padding)],
  ];
  return [
    el("div", { class: "plan" }, part("Size", all), rates(made.learning_rates), memory(made.memory), disk(made.disk)),
    el("p", { class: "hint" }, exactness(made)),
  ];
}

function part(title, all) {
  const facts = all.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  return el("div", {}, el("h3", {}, title), el("dl", { class: "facts" }, facts));
}

function rates(milestones) {
  if (!milestones.length) return null;
  return part("Learning rate", milestones.map(({ at, step, learning_rate: rate }) => [`${at} (${whole(step)})`, scientific(rate)]));
}

function memory(taken) {
  if (!taken) return null;
  const parts = MEMORY.map((name) => [name, bytes(taken[name])]);
  return part(`Memory, on the ${taken.device}`, [...parts, ["together at most", bytes(taken.total)]]);
}

function disk(taken) {
  if (!taken) return null;
  return part("Disk", [
    ["a checkpoint", bytes(taken.model)],
    ["its state, for a resume", bytes(taken.state)],
    ["kept at most", whole(taken.checkpoints)],
    ["together at most", bytes(taken.total)],
  ]);
}

function exactness({ exact, sample_rows: rows }) {
  if (exact) return "Exact: every token was counted.";
  if (rows) return `An estimate, from ${whole(rows)} of the rows: the trainer counts them all.`;
  return "Nothing was counted yet: what is missing is known once a trainer has read the data.";
}
