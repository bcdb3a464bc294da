// Elements made in one expression. Text is set as text: a dataset's words are never markup.

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") made.style.cssText = value;
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// A table of texts and numbers; numbers stand right.
export function table(head, rows) {
  const isNumber = head.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === "number"));
  const cell = (tag, value, column) =>
    element(tag, { class: isNumber[column] ? "n" : null }, typeof value === "number" ? short(value) : value);
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((value, column) => cell("th", value, column)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((value, column) => cell("td", value, column)))))));
}

// A number in few characters: 4 significant digits.
export function short(value) {
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

// Calls `report(share)` with where in an element's width the pointer is, 0 … 1, while it is held down.
export function onDrag(target, report) {
  const tell = (event) => {
    const { left, width } = target.getBoundingClientRect();
    report(Math.min(Math.max((event.clientX - left) / width, 0), 1));
  };
  target.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    target.setPointerCapture(event.pointerId);
    tell(event);
  });
  target.addEventListener("pointermove", (event) => target.hasPointerCapture(event.pointerId) && tell(event));
}
