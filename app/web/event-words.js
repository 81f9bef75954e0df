// A job's events in words.

import { bytes, decimal, duration, percent, whole } from "/assets/format.js";

const WORDS = {
  submitted: () => "submitted",
  started: ({ attempt, from_step }) => `attempt ${attempt} starts${from_step ? ` from the checkpoint of step ${whole(from_step)}` : ""}`,
  preparing: ({ phase, done, total }) => `preparing: ${phase} ${whole(done)} of ${whole(total)}`,
  epoch: (data) =>
    [
      `epoch ${data.epoch}: loss ${decimal(data.loss)}, accuracy ${percent(data.accuracy)}`,
      data.validation_loss == null ? "" : `, validation loss ${decimal(data.validation_loss)}`,
      `, ${duration(data.seconds)}`,
    ].join(""),
  checkpoint: ({ epoch, step, bytes: size }) => `checkpoint of epoch ${epoch}, step ${whole(step)}: ${bytes(size)}`,
  warning: ({ message }) => message,
  requeued: ({ message, reason }) => `queued again: ${message || reason}`,
  paused: ({ reason }) => `paused: ${reason}`,
  resumed: () => "resumed: queued again",
  cancelled: ({ reason }) => (reason ? `cancelled: ${reason}` : "cancelled"),
  succeeded: ({ reason }) => (reason ? `succeeded: ${reason}` : "succeeded"),
  failed: ({ code, message }) => `failed (${code}): ${message}`,
};

/** The types of all events but the many: batches, and what comes with its own place on the page. */
export const NOTABLE = [...Object.keys(WORDS).filter((type) => type !== "preparing"), "sample"];

/** Return an event in words; a type that a newer server may add is shown by its name. */
export function inWords({ type, data }) {
  return WORDS[type] ? WORDS[type](data) : type;
}
