// The plots of one job: loss, accuracy and learning rate, from its first batch to the newest.

import { Curves } from "/assets/curves.js";
import { el } from "/assets/dom.js";
import { band, colour, line, plot } from "/assets/plots.js";

const MOST_MARKERS = 40;

/** The curves of one job on the page. */
export class JobCurves {
  constructor(metrics, signal) {
    this.curves = new Curves();
    this.curves.load(metrics);
    // By epoch: of one that was run again the last run counts.
    this.validation = new Map(metrics.validation.map((point) => [point.epoch, point]));
    this.logarithmic = false;
    this.element = el("div", { class: "curves" });
    this.redraws = [
      this.#panel("Loss", "wide", () => this.#loss(), () => ({ type: this.logarithmic ? "log" : "linear" }), signal),
      this.#panel("Accuracy", "", () => this.#accuracy(), () => ({ tickformat: ".0%", rangemode: "tozero" }), signal),
      this.#panel("Learning rate", "", () => this.#learningRate(), () => ({ exponentformat: "e", rangemode: "tozero" }), signal),
    ];
  }

  /** Take in a `batch` or an `epoch` event. */
  hear({ type, data }) {
    if (type === "batch") this.curves.add(data);
    else if (type === "epoch" && data.validation_loss !== null) {
      const { epoch, step, validation_loss: loss, validation_accuracy: accuracy } = data;
      this.validation.set(epoch, { epoch, step, loss, accuracy });
    } else return;
    this.redraw();
  }

  /** Draw what there is now, soon. */
  redraw() {
    for (const redraw of this.redraws) redraw();
  }

  #panel(title, kind, traces, axis, signal) {
    const place = el("div", { class: "plot", role: "img", "aria-label": `${title} by step` });
    const head = el("div", { class: "row" }, el("h3", {}, title), el("span", { class: "muted small" }, "by step"));
    if (title === "Loss") head.append(this.#scaleButton());
    this.element.append(el("figure", { class: `panel ${kind}` }, head, place));
    return plot(place, { traces, axis, title, signal });
  }

  #scaleButton() {
    const button = el("button", { type: "button", class: "quiet small end", "aria-pressed": "false" }, "Log scale");
    button.addEventListener("click", () => {
      this.logarithmic = !this.logarithmic;
      button.setAttribute("aria-pressed", String(this.logarithmic));
      this.redraw();
    });
    return button;
  }

  #loss() {
    const { step, loss, low, high } = this.curves.columns();
    const traces = [...band(step, low, high, 0), line("training", step, loss, 0, { hovertemplate: "%{y:.4f}" })];
    return [...traces, this.#validationLine("loss", "%{y:.4f}")];
  }

  #accuracy() {
    const { step, accuracy } = this.curves.columns();
    const training = line("training", step, accuracy, 0, { hovertemplate: "%{y:.2%}" });
    return [training, this.#validationLine("accuracy", "%{y:.2%}")];
  }

  #learningRate() {
    const { step, learning_rate: rate } = this.curves.columns();
    return [line("learning rate", step, rate, 2, { hovertemplate: "%{y:.3e}" })];
  }

  #validationLine(quantity, hovertemplate) {
    const points = [...this.validation.values()].sort((one, other) => one.step - other.step);
    return line(
      "validation",
      points.map((point) => point.step),
      points.map((point) => point[quantity]),
      1,
      {
        mode: points.length > MOST_MARKERS ? "lines" : "lines+markers",
        line: { dash: "dot" },
        marker: { size: 6, color: colour("--series-2") },
        hovertemplate,
      },
    );
  }
}

/** The words for the colours. */
export function legend() {
  const one = (series, text) => el("span", { class: `key-${series}` }, text);
  return el("p", { class: "legend" }, one(1, "training (mean, and its span)"), one(2, "validation"));
}
