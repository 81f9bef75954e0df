// Errors on the page: what is wrong and what to do, in the server's own words.

import { confirmed, el, fill } from "/assets/dom.js";

/** An error as a panel; what is wrong with single fields stands below it. */
export function problemPanel(error, ...more) {
  const faults = (error.errors || []).map((fault) =>
    el("li", {}, fault.loc.length ? el("code", {}, fault.loc.join(".")) : null, " ", fault.msg),
  );
  return el(
    "div",
    { class: "panel problem", role: "alert" },
    el("p", {}, error.message),
    faults.length ? el("ul", {}, faults) : null,
    more,
  );
}

/** Return a button for something that cannot be taken back; `go` is done where the reader means it. */
export function dangerButton(label, { name, warning, go, told }) {
  const button = el("button", { type: "button", class: "quiet small danger-text", "aria-label": `${label} ${name}` }, label);
  button.addEventListener("click", async () => {
    if (!(await confirmed(`${label} ${name}?`, warning, label))) return;
    button.disabled = true;
    fill(told);
    try {
      await go();
    } catch (error) {
      if (error.name !== "AbortError") fill(told, problemPanel(error));
    }
    button.disabled = false;
  });
  return button;
}

/** Put each fault at the control of its place, and return the panel for those that have none. */
export function showAtFields(error, form) {
  clearFields(form);
  const homeless = [];
  for (const fault of error.errors || []) {
    const control = controlOf(form, fault.loc);
    if (!control) homeless.push(fault);
    else showAt(control, fault.msg);
  }
  const first = form.querySelector("[aria-invalid]");
  if (first) {
    for (let up = first.closest("details"); up; up = up.parentElement.closest("details")) up.open = true;
    (first.querySelector("summary") ?? first).focus();
  }
  return problemPanel({ message: error.message, errors: homeless });
}

/** Take the faults of an earlier try away. */
export function clearFields(form) {
  for (const old of form.querySelectorAll(".fault")) old.remove();
  for (const control of form.querySelectorAll("[aria-invalid]")) {
    control.removeAttribute("aria-invalid");
    control.removeAttribute("aria-describedby");
  }
}

/** The control at a place, or the nearest around it: `["line", 3]` of a list is its list's. */
function controlOf(form, loc) {
  for (let length = loc.length; length > 0; length--) {
    const place = loc.slice(0, length).join(".");
    const control = form.querySelector(`[data-loc="${CSS.escape(place)}"]`);
    if (control) return control;
  }
  return null;
}

function showAt(control, message) {
  const id = `fault-${control.dataset.loc}`;
  const known = document.getElementById(id);
  if (known) {
    known.textContent += ` ${message}`;
    return;
  }
  control.setAttribute("aria-invalid", "true");
  control.setAttribute("aria-describedby", id);
  control.closest(".field, fieldset, details")?.append(el("p", { class: "fault", id }, message));
}
