// Single fields of a form: what is typed goes to the server as it was meant, and what makes no sense as it was typed.

import { el } from "/assets/dom.js";

/** One value: of a choice, a yes or no, or typed. Empty is none where the schema allows that. */
export function scalarField(schema, path, value) {
  const kinds = (schema.anyOf ?? [schema]).filter((kind) => kind.type !== "null");
  const optional = kinds.length < (schema.anyOf ?? [schema]).length;
  const choices = kinds.every((kind) => kind.enum) ? kinds.flatMap((kind) => kind.enum) : null;
  if (choices) return choiceField(schema, path, value, choices, optional);
  if (kinds.length === 1 && kinds[0].type === "boolean") return switchField(schema, path, value);
  const numeric = kinds.some((kind) => kind.type === "integer" || kind.type === "number");
  const input = el("input", {
    ...named(path),
    value: value ?? "",
    inputmode: numeric && kinds.length === 1 ? "decimal" : null,
    placeholder: optional ? "none" : null,
    autocomplete: "off",
    spellcheck: "false",
  });
  const read = () => {
    const text = input.value.trim();
    if (text === "") return optional ? null : numeric ? undefined : "";
    // What is no number is sent as it is: the server says what is wrong with it, at this very field.
    return numeric && Number.isFinite(Number(text)) ? Number(text) : text;
  };
  return { element: field(schema, path, input, bounds(kinds)), read };
}

function choiceField(schema, path, value, choices, optional) {
  const options = [...(optional ? [""] : []), ...choices];
  const input = el(
    "select",
    named(path),
    options.map((one) => el("option", { value: one, selected: one === (value ?? "") }, one === "" ? "none" : one)),
  );
  return { element: field(schema, path, input), read: () => (input.value === "" ? null : input.value) };
}

function switchField(schema, path, value) {
  const input = el("input", { ...named(path), type: "checkbox", checked: Boolean(value) });
  return { element: field(schema, path, input), read: () => input.checked };
}

/** Several texts, one a line. */
export function listField(schema, path, value) {
  const input = el("textarea", { ...named(path), rows: 3, placeholder: "one a line" }, (value ?? []).join("\n"));
  return { element: field(schema, path, input), read: () => linesOf(input) };
}

/** Texts under names, one `name: text` a line. */
export function mapField(schema, path, value) {
  const text = Object.entries(value ?? {}).map(([name, inner]) => `${name}: ${inner}`);
  const input = el("textarea", { ...named(path), rows: 2, placeholder: "team: docs" }, text.join("\n"));
  const pair = (line) => {
    const [name, ...rest] = line.split(":");
    return [name.trim(), rest.join(":").trim()];
  };
  return { element: field(schema, path, input), read: () => Object.fromEntries(linesOf(input).map(pair)) };
}

/** A labelled control with what the schema says of it. */
export function field(schema, path, input, hint = "") {
  const words = [schema.description ?? "", hint].filter(Boolean).join(" · ");
  const label = el("label", { for: input.id }, path[path.length - 1]);
  const kind = input.type === "checkbox" ? "field switch" : "field";
  return el("div", { class: kind }, label, input, words ? el("p", { class: "hint" }, words) : null);
}

/** The attributes by which a control is labelled, and found when something is wrong at its place. */
export function named(path) {
  return { id: `field-${path.join(".")}`, "data-loc": path.join(".") };
}

function linesOf(input) {
  return input.value.split("\n").filter((line) => line.trim() !== "");
}

function bounds([kind]) {
  const least = kind.minimum ?? kind.exclusiveMinimum;
  const most = kind.maximum ?? kind.exclusiveMaximum;
  if (least === undefined || most === undefined || most >= 2 ** 31 - 1) return "";
  return `${kind.exclusiveMinimum === undefined ? "" : "over "}${least} … ${kind.maximum === undefined ? "under " : ""}${most}`;
}
