// What a job's state looks like, and what can be asked of a job in it.

import { el } from "/assets/dom.js";
import { duration, percent } from "/assets/format.js";

export const STATES = ["queued", "running", "paused", "succeeded", "failed", "cancelled"];
export const LIVE = ["running", "queued", "paused"];
const ASKED = { cancel: "cancelling", pause: "pausing" };

/** Whether a job has ended. */
export function ended(job) {
  return !LIVE.includes(job.status);
}

/** A job's state in a word: what was asked of it counts before it is answered. */
export function stateWord(job) {
  return (job.status === "running" && ASKED[job.stop_requested]) || job.status;
}

/** A job's state as a badge. */
export function badge(job) {
  const place = job.status === "queued" && job.queue_position ? ` #${job.queue_position}` : "";
  return el("span", { class: `badge ${job.status}` }, stateWord(job) + place);
}

/** How far a job is: a bar, and the words for it. */
export function progress(job) {
  const fraction = job.status === "succeeded" ? 1 : job.progress?.fraction;
  const bar = el("progress", { max: 1, value: fraction ?? 0, "aria-label": `Progress of ${job.name}` });
  return el("span", { class: "progress" }, bar, el("span", {}, fraction == null ? "–" : percent(fraction, 0)));
}

/** How long a job still takes, as far as that is known. */
export function timeLeft(job) {
  const eta = job.progress?.eta_seconds;
  return job.status === "running" && eta != null ? `${duration(eta)} left` : "";
}

/** What can be asked of a job now, each with its words; `confirm` asks before what cannot be taken back. */
export function actions(job) {
  const pausing = job.status === "running" && job.stop_requested === "pause";
  const cancelling = job.status === "running" && job.stop_requested === "cancel";
  const running = job.status === "running" && !pausing && !cancelling;
  const all = {
    resume: job.status === "paused" || pausing,
    pause: job.status === "queued" || running,
    save: running && !job.save_requested,
    retry: job.status === "failed" || job.status === "cancelled",
    cancel: !ended(job) && !cancelling,
    delete: ended(job),
  };
  return ACTIONS.filter(({ name }) => all[name]);
}

const ACTIONS = [
  { name: "resume", label: "Resume", method: "POST", path: "/resume" },
  { name: "pause", label: "Pause", method: "POST", path: "/pause" },
  { name: "save", label: "Save now", method: "POST", path: "/checkpoints" },
  { name: "retry", label: "Retry", method: "POST", path: "/retry" },
  {
    name: "cancel",
    label: "Cancel",
    method: "POST",
    path: "/cancel",
    confirm: "The run stops for good with a checkpoint of where it is. Its checkpoints stay, and it can be retried.",
  },
  {
    name: "delete",
    label: "Delete",
    method: "DELETE",
    path: "",
    confirm: "The job, its log and all of its checkpoints are deleted. This cannot be taken back.",
  },
];
