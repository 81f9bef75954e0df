// Who comes without a key: a key is entered once, and stays in this tab.

import { keepKey, send } from "/assets/api.js";
import { command, el, fill } from "/assets/dom.js";
import { problemPanel } from "/assets/problems.js";

/** Ask for a key; `entered` is called once one opens the API. `message` says why the last one was refused. */
export function showKey(main, { message, entered }) {
  const input = el("input", {
    id: "key",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    placeholder: "epochd_…",
  });
  const told = el("div", {}, message ? problemPanel({ message }) : null);
  const button = el("button", { type: "submit", class: "primary" }, "Open");
  const form = el("form", { class: "panel key" }, el("label", { for: "key" }, "Key"), input, button, told);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const presented = printable(input.value);
      await send("GET", "/jobs?limit=1", { as: presented });
      keepKey(presented);
      entered();
    } catch (error) {
      fill(told, problemPanel(error));
      button.disabled = false;
      input.select();
    }
  });
  fill(
    main,
    el("h1", {}, "Enter your key"),
    el("p", { class: "muted" }, "It stays in this tab and is forgotten when the tab is closed."),
    form,
    el("h2", {}, "Where is it?"),
    el("p", {}, "The first start left one in the data directory:"),
    command("cat .epochd/key"),
    el("p", {}, "Another is made by who runs the server:"),
    command("epochd keys create --owner NAME"),
  );
  input.focus();
}

/** Return what a header can carry; a key is nothing else. */
function printable(text) {
  const key = text.trim();
  if (/^[\x21-\x7e]+$/.test(key)) return key;
  throw new Error("This is no key: a key begins with epochd_ and has neither spaces nor other signs than ASCII.");
}
