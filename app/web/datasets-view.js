// What there is to train on, and how more comes: datasets, and tokenizers that were made elsewhere.

import { asked, call, get } from "/assets/api.js";
import { command, el, fill } from "/assets/dom.js";
import { ago, bytes, moment, whole } from "/assets/format.js";
import { dangerButton } from "/assets/problems.js";
import { datasetZone, dropZone } from "/assets/upload.js";

const DATASETS = [["File"], ["Rows", "number"], ["Size", "number"], ["Format", "wide"], ["Columns", "wide"], ["sha256", "wide"], ["Uploaded", "wide"], [""]];
const TOKENIZERS = [["File"], ["Tokens", "number"], ["Size", "number"], ["End of text", "wide"], ["Format", "wide"], ["Uploaded", "wide"], [""]];

/** Show the datasets, and below them the tokenizers. */
export async function showDatasets(main, { query, signal }) {
  const datasets = listed({ path: "/datasets", name: "Datasets", cursor: query.get("cursor") ?? "", signal }, datasetTable, noDatasets);
  const tokenizers = listed({ path: "/tokenizers", name: "Tokenizers", cursor: query.get("tokenizers") ?? "", signal }, tokenizerTable, noTokenizers);
  await Promise.all([datasets.load(), tokenizers.load()]);
  fill(
    main,
    el("h1", {}, "Datasets"),
    datasetZone({ uploaded: datasets.load, signal }),
    datasets.element,
    el("h2", {}, "Tokenizers"),
    tokenizerZone({ uploaded: tokenizers.load, signal }),
    tokenizers.element,
  );
}

function listed({ path, name, cursor, signal }, table, empty) {
  const list = el("div", {});
  const told = el("div", {});
  const remove = (id, filename, warning) =>
    dangerButton("Delete", {
      name: filename,
      warning,
      told,
      go: async () => {
        await call("DELETE", `${path}/${id}`, { signal });
        await load();
      },
    });
  async function load() {
    const page = await get(`${path}?${asked({ cursor, limit: 50 })}`, { signal });
    fill(list, page.data.length ? table(page, remove) : empty());
  }
  return { element: el("section", { "aria-label": name }, told, list), load };
}

function datasetTable({ data, next_cursor }, remove) {
  const warning = "Jobs that have ended keep what they made of it, but cannot be retried. This cannot be taken back.";
  const rows = data.map((dataset) => [
    el("td", { class: "name", title: dataset.id }, dataset.filename),
    el("td", { class: "number" }, whole(dataset.rows)),
    el("td", { class: "number" }, bytes(dataset.bytes)),
    el("td", { class: "wide" }, dataset.format),
    el("td", { class: "wide" }, dataset.columns.join(", ")),
    el("td", { class: "wide" }, el("code", { title: dataset.sha256 }, dataset.sha256.slice(0, 12))),
    uploadedCell(dataset),
    el("td", { class: "row end" }, el("a", { href: `#/new?dataset=${dataset.id}` }, "Train on it"), remove(dataset.id, dataset.filename, warning)),
  ]);
  return tableOf(DATASETS, rows, next_cursor ? el("a", { href: `#/datasets?cursor=${next_cursor}` }, "Older datasets") : null);
}

function tokenizerTable({ data, next_cursor }, remove) {
  const warning = "The checkpoints that were trained with it hold a copy. This cannot be taken back.";
  const rows = data.map((tokenizer) => [
    el("td", { class: "name", title: tokenizer.id }, tokenizer.filename),
    el("td", { class: "number" }, whole(tokenizer.vocab_size)),
    el("td", { class: "number" }, bytes(tokenizer.bytes)),
    el("td", { class: "wide" }, el("code", {}, tokenizer.end_of_text)),
    el("td", { class: "wide" }, tokenizer.format),
    uploadedCell(tokenizer),
    el("td", { class: "row end" }, remove(tokenizer.id, tokenizer.filename, warning)),
  ]);
  return tableOf(TOKENIZERS, rows, next_cursor ? el("a", { href: `#/datasets?tokenizers=${next_cursor}` }, "Older tokenizers") : null);
}

function uploadedCell({ created_at }) {
  return el("td", { class: "muted wide" }, el("time", { datetime: created_at, title: moment(created_at) }, ago(created_at)));
}

function tableOf(heads, rows, older) {
  return [
    el(
      "div",
      { class: "scroll" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, heads.map(([head, kind]) => el("th", { scope: "col", class: kind }, head)))),
        el("tbody", {}, rows.map((cells) => el("tr", {}, cells))),
      ),
    ),
    older ? el("p", {}, older) : null,
  ];
}

function tokenizerZone({ uploaded, signal }) {
  const end = el("input", { id: "end-of-text", placeholder: "as the file says", size: 16, spellcheck: "false", autocomplete: "off" });
  const address = (filename) => {
    const more = end.value.trim() ? { end_of_text: end.value.trim() } : {};
    return `/tokenizers?${new URLSearchParams({ filename, ...more })}`;
  };
  const words = "a tokenizer.json or a SentencePiece model";
  const zone = dropZone({ id: "upload-tokenizer", words, address, report: tokenizerReport, uploaded, signal });
  return [zone, el("p", { class: "row" }, el("label", { for: "end-of-text" }, "Token that ends a text"), end)];
}

function tokenizerReport({ filename, vocab_size, lossless }) {
  return [
    el("p", { role: "status" }, `${filename}: ${whole(vocab_size)} tokens.`),
    lossless ? null : el("p", { class: "muted" }, "What it reads does not all come back: spaces or characters are changed on the way."),
  ];
}

function noTokenizers() {
  return el("p", { class: "muted" }, "None is needed: a job learns its own from its dataset, unless it is given one that was made elsewhere.");
}

function noDatasets() {
  return el(
    "div",
    { class: "panel" },
    el("h2", {}, "No datasets yet"),
    el("p", {}, "Drop a file above, or from a terminal:"),
    command(`curl -sS -H "Authorization: Bearer $(cat .epochd/key)" -F file=@corpus.txt ${location.origin}/datasets`),
  );
}
