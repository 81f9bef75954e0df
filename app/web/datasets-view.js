// What there is to train on, and how more comes.

import { get } from "/assets/api.js";
import { command, el, fill } from "/assets/dom.js";
import { ago, bytes, moment, whole } from "/assets/format.js";
import { dropZone } from "/assets/upload.js";

/** Show the datasets. */
export async function showDatasets(main, { query, signal }) {
  const list = el("section", { "aria-label": "Datasets" });
  const cursor = query.get("cursor") ?? "";
  const load = async () => {
    const page = await get(`/datasets?${new URLSearchParams({ cursor, limit: 50 })}`, { signal });
    fill(list, page.data.length ? table(page) : empty());
  };
  await load();
  fill(main, el("h1", {}, "Datasets"), dropZone({ uploaded: load, signal }), list);
}

function table({ data, next_cursor }) {
  const heads = [["File"], ["Rows", "number"], ["Size", "number"], ["Format", "wide"], ["Columns", "wide"], ["sha256", "wide"], ["Uploaded", "wide"], [""]];
  const rows = data.map((dataset) =>
    el(
      "tr",
      {},
      el("td", { class: "name", title: dataset.id }, dataset.filename),
      el("td", { class: "number" }, whole(dataset.rows)),
      el("td", { class: "number" }, bytes(dataset.bytes)),
      el("td", { class: "wide" }, dataset.format),
      el("td", { class: "wide" }, dataset.columns.join(", ")),
      el("td", { class: "wide" }, el("code", { title: dataset.sha256 }, dataset.sha256.slice(0, 12))),
      el("td", { class: "muted wide" }, el("time", { datetime: dataset.created_at, title: moment(dataset.created_at) }, ago(dataset.created_at))),
      el("td", {}, el("a", { href: `#/new?dataset=${dataset.id}` }, "Train on it")),
    ),
  );
  return [
    el(
      "div",
      { class: "scroll" },
      el("table", {}, el("thead", {}, el("tr", {}, heads.map(([head, kind]) => el("th", { scope: "col", class: kind }, head)))), el("tbody", {}, rows)),
    ),
    next_cursor ? el("p", {}, el("a", { href: `#/datasets?cursor=${next_cursor}` }, "Older datasets")) : null,
  ];
}

function empty() {
  return el(
    "div",
    { class: "panel" },
    el("h2", {}, "No datasets yet"),
    el("p", {}, "Drop a file above, or from a terminal:"),
    command(`curl -sS -H "Authorization: Bearer $(cat .epochd/key)" -F file=@corpus.txt ${location.origin}/datasets`),
  );
}
