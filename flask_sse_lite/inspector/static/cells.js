// Tables that change under the reader's eyes: how numbers are written, and how a row
// stays the same element while its cells change, so that no focus is lost.

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** A count, as people write it; a dash for what nobody knows. */
export const count = (number) =>
  number === null || number === undefined ? "–" : number.toLocaleString("en");

export const rate = (number) =>
  number >= 100 || !number ? count(Math.round(number)) : number.toFixed(number < 1 ? 2 : 1);

export const bytes = (number) => {
  if (number === null || number === undefined) return "–";
  let unit = 0;
  for (; number >= 1000 && unit < UNITS.length - 1; ++unit) number /= 1000;
  return `${unit && number < 100 ? number.toFixed(1) : Math.round(number)} ${UNITS[unit]}`;
};

export const age = (seconds) => {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d`;
};

/** An element with its text and attributes. */
export const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
};

/**
 * A table whose rows have keys. Each column is {title, cell(row)}; with
 * {isNumber}, its cells are aligned to the right. A cell is a text, or {label, name,
 * isDanger, act(row)}: a button, which is made once.
 *
 * (On a telephone, the style shows each row as a card. Browsers then take the table for
 * none, and so the roles are written.)
 */
export class Table {
  #body = element("tbody", { role: "rowgroup" });
  #rows = new Map();
  #empty;
  #columns;

  constructor(parent, caption, columns, nothing) {
    this.#columns = columns;
    const heads = columns.map(({ title, isNumber }) =>
      element(
        "th",
        { scope: "col", role: "columnheader", class: isNumber && "number" },
        title,
      ),
    );
    const head = element("tr", { role: "row" }, ...heads);
    this.#empty = element("p", { class: "note" }, nothing);
    const table = element(
      "table",
      { role: "table" },
      element("caption", { class: "unseen" }, caption),
      element("thead", { role: "rowgroup" }, head),
      this.#body,
    );
    parent.append(table, this.#empty);
  }

  /** @param {Map<string, object>} rows what each row shows, by its key */
  show(rows) {
    for (const [key, row] of this.#rows) {
      if (rows.has(key)) continue;
      row.line.remove();
      this.#rows.delete(key);
    }
    let last = null;
    for (const [key, value] of rows) {
      if (!this.#rows.has(key)) this.#rows.set(key, this.#made());
      const row = this.#rows.get(key);
      row.value = value;
      row.update();
      const next = last ? last.nextSibling : this.#body.firstChild;
      if (next !== row.line) this.#body.insertBefore(row.line, next);
      last = row.line;
    }
    this.#empty.hidden = rows.size > 0;
    this.#body.parentElement.hidden = !rows.size;
  }

  #made() {
    const row = { line: element("tr", { role: "row" }), value: undefined };
    const updates = this.#columns.map((column) => this.#cell(row, column));
    row.update = () => updates.forEach((update) => update());
    return row;
  }

  #cell(row, { title, isNumber, cell }) {
    const place = element("td", {
      role: "cell",
      "data-title": title,
      class: isNumber && "number",
    });
    row.line.append(place);
    let button;
    return () => {
      const content = cell(row.value);
      if (content === undefined || typeof content === "string") {
        if (place.textContent !== (content ?? "")) place.textContent = content ?? "";
        return;
      }
      if (!button) {
        button = element("button", { type: "button" });
        button.addEventListener("click", () => cell(row.value).act(row.value));
        place.append(button);
      }
      button.className = content.isDanger ? "danger" : "";
      if (button.textContent !== content.label) button.textContent = content.label;
      if (button.getAttribute("aria-label") !== content.name) {
        button.setAttribute("aria-label", content.name);
      }
    };
  }
}
