// A form from a JSON schema: every field of the API's own description, under the API's own name, with its default.
//
// A control is {element, read, pruned}: `read` gives its whole value, `pruned` leaves out what is the default anyway.

import { el, fill } from "/assets/dom.js";
import { listField, mapField, scalarField } from "/assets/schema-fields.js";

/** The controls of one schema; `components` are what its references mean, `special` controls of single places. */
export class SchemaForm {
  constructor(components, special = {}, open = []) {
    this.components = components;
    this.special = special;
    this.open = new Set(open);
  }

  /** Return the control of an object's schema. */
  object(schema, path, value) {
    const properties = Object.entries(this.#resolved(schema).properties ?? {});
    const controls = new Map(
      properties.map(([name, property]) => {
        // A default that is an object stands apart in the API's document.
        const unset = "default" in property ? property.default : property["x-default"];
        const initial = value && name in value ? value[name] : unset;
        return [name, { default: unset, ...this.#control(property, [...path, name], initial) }];
      }),
    );
    const entries = (take) => [...controls].map(([name, control]) => [name, take(control)]);
    const known = ([, given]) => given !== undefined;
    return {
      // Single fields side by side first, then the groups.
      element: [
        el("div", { class: "fields" }, [...controls.values()].filter((control) => !control.group).map((control) => control.element)),
        [...controls.values()].filter((control) => control.group).map((control) => control.element),
      ],
      read: () => Object.fromEntries(entries((control) => control.read()).filter(known)),
      pruned: () =>
        Object.fromEntries(
          entries((control) => (same(control.read(), control.default) ? undefined : control.pruned())).filter(known),
        ),
    };
  }

  #control(schema, path, value) {
    const place = path.join(".");
    const resolved = this.#resolved(schema);
    if (this.special[place]) return whole(this.special[place](resolved, path, value));
    const alternatives = resolved.anyOf ?? resolved.oneOf;
    if (alternatives) {
      const some = alternatives.map((one) => this.#resolved(one));
      return some.every(isPlain) && some.some((one) => !("const" in one)) ? whole(scalarField(resolved, path, value)) : this.#union(resolved, some, path, value);
    }
    if (resolved.properties) return this.#group(resolved, path, this.object(resolved, path, value));
    if (resolved.type === "object") return whole(mapField(resolved, path, value));
    if (resolved.type === "array") return whole(listField(resolved, path, value));
    return "const" in resolved ? constant(resolved.const) : whole(scalarField(resolved, path, value));
  }

  #group(schema, path, control, choice = null) {
    const words = (schema.description ?? "").split("\n\n")[0];
    const summary = el("summary", {}, el("code", {}, path[path.length - 1]), el("span", { class: "muted" }, words));
    // What has to be filled in is not hidden away.
    const needed = (schema.required ?? []).some((name) => !("const" in schema.properties[name]));
    const open = needed || this.open.has(path.join("."));
    const element = el("details", { class: "group", "data-loc": path.join("."), open }, summary, choice, control.element);
    return { ...control, element, group: true };
  }

  /** One of several forms: the reader chooses which. */
  #union(schema, alternatives, path, value) {
    const id = `choice-${path.join(".")}`;
    const inside = el("div", {});
    let chosen;
    const choice = el(
      "select",
      { id },
      alternatives.map((one, index) => el("option", { value: index }, nameOf(one))),
    );
    const choose = (initial) => {
      const one = alternatives[Number(choice.value)];
      chosen = one.properties ? this.object(one, path, initial) : constant(one.type === "null" ? null : one.const);
      fill(inside, one.description ? el("p", { class: "muted" }, one.description.split("\n\n")[0]) : null, chosen.element);
    };
    choice.value = String(Math.max(0, alternatives.findIndex((one) => fits(one, value))));
    choice.addEventListener("change", () => choose(undefined));
    choose(value);
    const label = el("p", { class: "row" }, el("label", { for: id }, "kind"), choice);
    const control = { element: inside, read: () => chosen.read(), pruned: () => chosen.read() };
    return this.#group(schema, path, control, label);
  }

  #resolved(schema) {
    if (!schema.$ref) return schema;
    const { $ref, ...beside } = schema;
    return { ...this.components[$ref.split("/").pop()], ...beside };
  }
}

function whole(control) {
  return { pruned: control.read, ...control };
}

function constant(value) {
  return { element: null, read: () => value, pruned: () => value };
}

function isPlain(schema) {
  return !schema.properties && !schema.anyOf && !schema.oneOf && schema.type !== "object" && schema.type !== "array";
}

function fits(schema, value) {
  if (value === null || value === undefined) return schema.type === "null";
  if (!schema.properties) return schema.const === value;
  return (
    typeof value === "object" &&
    Object.keys(value).every((name) => name in schema.properties) &&
    Object.entries(schema.properties).every(([name, { const: fixed }]) => fixed === undefined || value[name] === fixed)
  );
}

function nameOf(schema) {
  if (schema.type === "null") return "none";
  if ("const" in schema) return String(schema.const);
  const fixed = Object.values(schema.properties ?? {}).find((property) => "const" in property);
  return fixed ? fixed.const : schema.title.replace(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase();
}

/** Whether two values are the same JSON, however their keys are ordered. */
export function same(one, other) {
  return canonical(one) === canonical(other);
}

function canonical(value) {
  return JSON.stringify(value, (_, inner) =>
    inner && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
