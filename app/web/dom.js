// Elements from plain data. Text goes in as text: whatever a job is called, it is never markup.

/** Return a new element. Functions become listeners of that name, true an empty attribute; null and false are left out. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return fill(element, ...children);
}

/** Replace what is in an element, and return the element. */
export function fill(element, ...children) {
  const nodes = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  element.replaceChildren(...nodes.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/** Return a function that draws its data into an element, and does nothing where they are those drawn before. */
export function drawnWhenChanged(element, draw) {
  let before;
  return (data) => {
    const now = JSON.stringify(data);
    if (now === before) return;
    before = now;
    const focused = element.contains(document.activeElement) ? nameOf(document.activeElement) : null;
    fill(element, draw(data));
    // Who moves by keyboard stays where they were, or as near as there is something.
    if (focused === null) return;
    const places = [...element.querySelectorAll("button, a, input, select")];
    (places.find((place) => nameOf(place) === focused) ?? places[0] ?? document.getElementById("main")).focus();
  };
}

function nameOf(element) {
  return element.getAttribute("aria-label") ?? element.textContent;
}

/** Return parts with a dot between each two: also for who copies or hears them. */
export function dotted(parts) {
  return parts.filter(Boolean).map((part, index) => [index ? el("span", { class: "dot" }, " · ") : null, el("span", {}, part)]);
}

/** Tell those who do not see the page. */
export function announce(text) {
  document.getElementById("announcement").textContent = text;
}

/** Ask before something that cannot be taken back; true where it is wanted. */
export function confirmed(title, text, action) {
  const dialog = document.getElementById("dialog");
  return new Promise((resolve) => {
    const answer = (value) => () => dialog.close(value);
    const cancel = el("button", { type: "button", class: "quiet", click: answer("") }, "Keep it");
    const go = el("button", { type: "button", class: "danger", click: answer("yes") }, action);
    fill(dialog, el("h2", { id: "dialog-title" }, title), el("p", {}, text), el("p", { class: "row end" }, cancel, go));
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
    cancel.focus();
  });
}

/** Return a button that copies a text. */
export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "quiet small" }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // Browsers keep the clipboard from pages that came over plain HTTP from another machine.
      button.textContent = "Select and copy by hand";
    }
    setTimeout(() => (button.textContent = label), 2000);
  });
  return button;
}

/** Return a command to copy. */
export function command(text) {
  return el("div", { class: "command" }, el("pre", {}, el("code", {}, text)), copyButton(text));
}
