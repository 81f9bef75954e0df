// Plots in the page's own colours, drawn no more often than the machine can bear.

const SERIES = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"];
const SOONEST = 250; // milliseconds between two drawings; more where drawing takes long
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset", scrollZoom: false };

let loading;

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.documentElement.dataset.plotly;
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => {
      loading = undefined;
      reject(new Error("The plots could not be loaded."));
    });
    document.head.append(script);
  });
  return loading;
}

/** The colour of the n-th series, or of a token of style.css. */
export function colour(which) {
  const token = typeof which === "number" ? SERIES[which % SERIES.length] : which;
  return getComputedStyle(document.documentElement).getPropertyValue(token).trim();
}

/** A line to plot; `extra` goes to plotly as it is. */
export function line(name, x, y, which, extra = {}) {
  const { line: shape, ...rest } = extra;
  return {
    type: "scatter",
    mode: "lines",
    name,
    x,
    y,
    line: { color: colour(which), width: 1.6, ...shape },
    ...rest,
  };
}

/** The span between two lines, faint. */
export function band(x, low, high, which) {
  const edge = { type: "scatter", mode: "lines", x, line: { width: 0 }, hoverinfo: "skip", showlegend: false };
  return [
    { ...edge, y: low },
    { ...edge, y: high, fill: "tonexty", fillcolor: translucent(colour(which), 0.16) },
  ];
}

function translucent(hex, share) {
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${parts.join(",")},${share})`;
}

/**
 * Return a function that has a plot drawn soon in `element`.
 *
 * `traces` gives what to draw, and is asked when it is drawn; `axis` are plotly's options of the y axis. The plot
 * follows the colour scheme until `signal` says that nobody looks any more.
 */
export function plot(element, { traces, axis, title, signal }) {
  let timer;
  let drawnIn = 0;
  let dead = false;
  const draw = async () => {
    timer = undefined;
    const library = await plotly().catch(() => null);
    if (dead) return;
    if (!library) {
      element.textContent = "The plots could not be loaded. They are tried again with the next numbers.";
      return;
    }
    if (!element.data) element.textContent = "";
    const began = performance.now();
    await library.react(element, traces(), layout(title, axis()), CONFIG);
    drawnIn = performance.now() - began;
  };
  const soon = () => {
    if (timer === undefined && !dead) timer = setTimeout(draw, Math.max(SOONEST, 6 * drawnIn));
  };
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", soon);
  signal.addEventListener("abort", () => {
    dead = true;
    clearTimeout(timer);
    scheme.removeEventListener("change", soon);
    if (window.Plotly) window.Plotly.purge(element);
  });
  timer = setTimeout(draw, 0);
  return soon;
}

function layout(title, axis) {
  const faint = colour("--line");
  const lines = { gridcolor: faint, zeroline: false, linecolor: faint, automargin: true, fixedrange: false };
  return {
    autosize: true,
    margin: { l: 48, r: 8, t: 8, b: 32 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "inherit", size: 11, color: colour("--muted") },
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("--surface"), bordercolor: faint, font: { color: colour("--text") }, namelength: -1 },
    showlegend: false,
    // Zooming survives the next drawing.
    uirevision: title,
    xaxis: { ...lines, unifiedhovertitle: { text: "step %{x:,d}" }, tickformat: ",~f", rangemode: "tozero" },
    yaxis: { ...lines, ...axis },
  };
}
