// The curves of several jobs in one plot.

import { Problem, get } from "/assets/api.js";
import { Curves } from "/assets/curves.js";
import { drawnWhenChanged, el, fill } from "/assets/dom.js";
import { decimal, percent, scientific, whole } from "/assets/format.js";
import { keepFresh } from "/assets/fresh.js";
import { line, plot } from "/assets/plots.js";
import { badge, ended } from "/assets/status.js";

const POINTS = 400;
const MOST = 6;
const PANELS = [
  { title: "Loss", quantity: "loss", axis: {}, hover: "%{y:.4f}", kind: "wide" },
  { title: "Validation loss", quantity: "validation", axis: {}, hover: "%{y:.4f}", kind: "wide" },
  { title: "Accuracy", quantity: "accuracy", axis: { tickformat: ".0%", rangemode: "tozero" }, hover: "%{y:.2%}", kind: "" },
  { title: "Learning rate", quantity: "learning_rate", axis: { exponentformat: "e", rangemode: "tozero" }, hover: "%{y:.3e}", kind: "" },
];

/** Show the jobs that the address names, and what could be added to them. */
export async function showCompare(main, { query, connectionState, signal }) {
  const ids = [...new Set((query.get("jobs") ?? "").split(",").filter(Boolean))].slice(0, MOST);
  const others = await get("/jobs?limit=100", { signal });
  let shown = await Promise.all(ids.map((id) => loaded(id, null, signal)));
  const table = el("div", {});
  const drawTable = drawnWhenChanged(table, (jobs) => jobsTable(jobs, ids));
  const plots = el("div", { class: "curves" });
  fill(main, el("div", { class: "title" }, el("h1", {}, "Compare")), adder(others.data, ids), table, plots);
  if (!ids.length) return void fill(table, el("p", { class: "muted" }, "Choose two jobs or more, here or in the list."));
  const redraws = PANELS.map((panel) => panelPlot(plots, panel, () => shown, signal));
  drawTable(shown.map(({ job }) => job));
  keepFresh(refresh, connectionState, signal);

  async function refresh() {
    if (shown.every(({ job }) => ended(job))) return;
    shown = await Promise.all(shown.map((one) => (ended(one.job) ? one : loaded(one.job.id, one, signal))));
    drawTable(shown.map(({ job }) => job));
    for (const redraw of redraws) redraw();
  }
}

async function loaded(id, before, signal) {
  try {
    const [metrics, job] = await Promise.all([
      get(`/jobs/${id}/metrics?points=${POINTS}`, { signal }),
      get(`/jobs/${id}`, { signal }),
    ]);
    const curves = new Curves(POINTS);
    curves.load(metrics);
    return { job, columns: curves.columns(), validation: metrics.validation };
  } catch (error) {
    if (before && error instanceof Problem && error.status === 404) return before; // deleted while it was shown
    throw error;
  }
}

function panelPlot(plots, { title, quantity, axis, hover, kind }, shown, signal) {
  const place = el("div", { class: "plot", role: "img", "aria-label": `${title} by step` });
  plots.append(el("figure", { class: `panel ${kind}` }, el("h3", {}, title), place));
  const traces = () =>
    shown().map(({ job, columns, validation }, index) => {
      const name = shortened(job.name);
      if (quantity !== "validation") return line(name, columns.step, columns[quantity], index, { hovertemplate: hover });
      const [x, y] = [validation.map((point) => point.step), validation.map((point) => point.loss)];
      return line(name, x, y, index, { mode: "lines+markers", hovertemplate: hover });
    });
  return plot(place, { traces, axis: () => axis, title, signal });
}

/** plotly reads a few tags in names, so what could begin one is shown as it is written. */
function shortened(name) {
  const text = name.length > 28 ? `${name.slice(0, 27)}…` : name;
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

function jobsTable(jobs, ids) {
  const numbers = ["Loss", "Validation", "Accuracy", "Learning rate", "Batch size", "Steps"];
  const heads = ["Job", "Status", ...numbers, ""];
  const rows = jobs.map((job, index) => {
    const { learning_rate: rate, batch_size: size, gradient_accumulation_steps: times } = job.spec.training;
    const rest = ids.filter((id) => id !== job.id);
    return el(
      "tr",
      {},
      el("td", { class: "name" }, el("span", { class: `key-${index + 1}` }, el("a", { href: `#/jobs/${job.id}` }, job.name))),
      el("td", {}, badge(job)),
      el("td", { class: "number" }, decimal(job.latest?.loss)),
      el("td", { class: "number" }, decimal(job.latest?.validation_loss)),
      el("td", { class: "number" }, percent(job.latest?.accuracy)),
      el("td", { class: "number" }, scientific(rate)),
      el("td", { class: "number" }, times > 1 ? `${size} × ${times}` : size),
      el("td", { class: "number" }, whole(job.progress?.step)),
      el("td", {}, el("a", { href: `#/compare?jobs=${rest.join(",")}`, "aria-label": `Leave ${job.name} out` }, "Leave out")),
    );
  });
  return el(
    "div",
    { class: "scroll panel" },
    el("table", {}, el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", class: numbers.includes(head) && "number" }, head)))), el("tbody", {}, rows)),
  );
}

function adder(jobs, ids) {
  const left = jobs.filter((job) => !ids.includes(job.id));
  if (!left.length || ids.length >= MOST) return null;
  const choice = el(
    "select",
    { id: "add-job" },
    el("option", { value: "" }, "choose…"),
    left.map((job) => el("option", { value: job.id }, `${job.name} · ${job.status}`)),
  );
  choice.addEventListener("change", () => {
    if (choice.value) location.hash = `#/compare?jobs=${[...ids, choice.value].join(",")}`;
  });
  return el("p", { class: "row" }, el("label", { for: "add-job" }, "Add a job"), choice);
}
