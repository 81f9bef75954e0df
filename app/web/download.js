// Checkpoints to the reader's disk. The key goes in a header, so the page fetches, and then saves.

import { send } from "/assets/api.js";
import { announce, command, el, fill } from "/assets/dom.js";
import { bytes, percent } from "/assets/format.js";

// More than this a tab had better not hold on its way to the disk.
const LARGEST = 512e6;

/** Return a button that saves what is at `url`, or for what is too large for a tab the words that say how else. */
export function downloadButton(name, url, size, signal) {
  if (size > LARGEST) return el("span", { class: "muted" }, "too large for a tab: fetch it from a terminal");
  const button = el("button", { type: "button", class: "quiet small" }, "Download");
  const told = el("span", { class: "muted" });
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const answer = await send("GET", url, { signal });
      save(await received(answer, size, (share) => fill(told, percent(share, 0))), name);
      fill(told, "saved");
      announce(`${name} is saved.`);
    } catch (error) {
      fill(told, error.message);
    }
    button.disabled = false;
  });
  button.setAttribute("aria-label", `Download ${name} (${bytes(size)})`);
  return el("span", { class: "row" }, button, told);
}

async function received(answer, size, progress) {
  const parts = [];
  let got = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts);
    parts.push(value);
    got += value.length;
    progress(size ? got / size : 1);
  }
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = el("a", { href: url, download: name });
  link.click();
  // The browser has begun to read by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** The commands that fetch a checkpoint from a terminal, and take an interrupted download up again. */
export function fromATerminal(job, checkpoint) {
  const archive = `${location.origin}/jobs/${job.id}/checkpoints/${checkpoint.epoch}/archive`;
  return [
    command(`epochd pull ${job.id}@${checkpoint.epoch}`),
    command(`curl -sS -C - -o ${job.id}-epoch-${checkpoint.epoch}.tar -H "Authorization: Bearer $KEY" ${archive}`),
  ];
}
