// Numbers, sizes and times as people read them.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** A whole number with its thousands apart. */
export function whole(value) {
  return known(value) ? WHOLE.format(value) : "–";
}

/** A loss, or what is like one. */
export function decimal(value, digits = 3) {
  return known(value) ? value.toFixed(digits) : "–";
}

/** A share. */
export function percent(value, digits = 1) {
  return known(value) ? `${(100 * value).toFixed(digits)} %` : "–";
}

/** A learning rate. */
export function scientific(value) {
  return known(value) ? value.toExponential(2).replace("e+0", "e0") : "–";
}

/** A size in bytes. */
export function bytes(value) {
  if (!known(value)) return "–";
  const power = value < 1000 ? 0 : Math.min(Math.floor(Math.log10(value) / 3), UNITS.length - 1);
  return `${(value / 1000 ** power).toFixed(power ? 1 : 0)} ${UNITS[power]}`;
}

/** A count such as of parameters, in millions where there are any. */
export function count(value) {
  if (!known(value)) return "–";
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)} B`;
  return value >= 1e6 ? `${(value / 1e6).toFixed(1)} M` : whole(value);
}

/** A length of time in seconds. */
export function duration(seconds) {
  if (!known(seconds)) return "–";
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A moment, as the reader's clock shows it. */
export function moment(text) {
  return text ? new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : "–";
}

/** The time of day of a moment. */
export function clock(text) {
  return new Date(text).toLocaleTimeString(undefined, { hour12: false });
}

/** How long ago a moment is. */
export function ago(text) {
  const seconds = (Date.now() - Date.parse(text)) / 1000;
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return seconds < 30 * 86400 ? `${Math.floor(seconds / 86400)} d ago` : new Date(text).toLocaleDateString();
}

function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}
