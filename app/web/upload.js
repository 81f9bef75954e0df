// Sending a file: dropped or chosen, with a bar. fetch tells nothing of what is on its way, so this is the older way.

import { Unreachable, key, refused } from "/assets/api.js";
import { el, fill } from "/assets/dom.js";
import { bytes, percent, whole } from "/assets/format.js";
import { problemPanel } from "/assets/problems.js";

/** Return where datasets are dropped or chosen; `uploaded` gets each that the server has taken. */
export function datasetZone({ uploaded, signal }) {
  return dropZone({ id: "upload", words: "a file", address: (filename) => `/datasets?${new URLSearchParams({ filename })}`, report, uploaded, signal });
}

/** Return where the files of a route are dropped or chosen: `report` says what the server has made of one. */
export function dropZone({ id, words, address, report, uploaded, signal }) {
  const input = el("input", { type: "file", id, class: "visually-hidden" });
  const told = el("div", { class: "told" });
  const label = el("label", { for: id }, el("strong", {}, `Drop ${words} here`), " or choose one");
  const zone = el("div", { class: "drop" }, input, label, told);
  const take = async (file) => {
    if (!file) return;
    input.disabled = true;
    let made;
    try {
      made = await send(file, address(file.name), told, signal);
      fill(told, report(made));
      await uploaded(made);
    } catch (error) {
      // What came in has come in, even where it cannot be shown among the others.
      if (error.name !== "AbortError") fill(told, made ? report(made) : null, problemPanel(error));
    }
    input.disabled = false;
    input.value = "";
  };
  input.addEventListener("change", () => take(input.files[0]));
  const over = (inside) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", inside);
  };
  zone.addEventListener("dragover", over(true));
  zone.addEventListener("dragleave", over(false));
  zone.addEventListener("drop", (event) => {
    over(false)(event);
    take(event.dataTransfer.files[0]);
  });
  return zone;
}

function send(file, address, told, signal) {
  const bar = el("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
  const words = el("span", { class: "muted" });
  const request = new XMLHttpRequest();
  const stop = el("button", { type: "button", class: "quiet small", click: () => request.abort() }, "Stop");
  fill(told, el("p", { class: "row" }, el("strong", {}, file.name), bar, words, stop));
  return new Promise((resolve, reject) => {
    const away = () => reject(new DOMException("No longer wanted.", "AbortError"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      bar.value = total ? loaded / total : 0;
      fill(words, loaded < total ? `${percent(loaded / total, 0)} of ${bytes(total)}` : "looking through it…");
    });
    request.addEventListener("abort", () => {
      fill(told, el("p", { class: "muted" }, "Stopped: nothing was stored."));
      away();
    });
    request.addEventListener("error", () => reject(new Unreachable()));
    request.addEventListener("load", () => {
      const document = parsed(request.responseText);
      if (request.status === 200 || request.status === 201) resolve(document);
      else reject(refused(request.status, document));
    });
    request.open("POST", address);
    request.setRequestHeader("Authorization", `Bearer ${key()}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.send(file);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/** What the look through an uploaded file found. */
function report({ filename, rows, report: found }) {
  const skipped = found.skipped_rows ? `, ${whole(found.skipped_rows)} of them skipped` : "";
  return [
    el("p", { role: "status" }, `${filename}: ${whole(rows)} rows${skipped}.`),
    found.warnings.length
      ? el("ul", { class: "muted" }, found.warnings.map(({ line, message }) => el("li", {}, `line ${line}: ${message}`)))
      : null,
  ];
}
