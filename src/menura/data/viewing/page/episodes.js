// The list of episodes: searched, filtered, and drawn only where it is looked at.

import { byId, element } from "./dom.js";

const ROW = 46; // pixels, as in viewer.css
const MORE = 8; // rows drawn above and below what is seen

export class EpisodeList {
  // `lengths` of all episodes; `choose(number)` is called when one is chosen.
  constructor(lengths, choose) {
    Object.assign(this, { lengths, choose, chosen: -1, tasks: [], task: [], success: [], worst: new Map() });
    this.list = byId("list");
    this.rows = byId("rows");
    this.shown = lengths.map((_, number) => number);
    this.offer();
    this.list.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.list);
    byId("search").addEventListener("input", () => this.filter());
    byId("which").addEventListener("change", () => this.filter());
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) choose(Number(row.dataset.episode));
    });
    this.filter();
  }

  // Tasks and success of all, once they are known.
  know({ tasks, task, success }) {
    Object.assign(this, { tasks, task, success });
    this.offer();
    this.filter();
  }

  // The worst finding of each episode: number -> severity.
  found(worst) {
    this.worst = worst;
    this.offer();
    this.filter();
  }

  offer() {
    const which = byId("which");
    const before = which.value;
    const options = [["", "All episodes"]];
    if (this.success.some((value) => value !== null)) options.push(["solved", "Solved"], ["unsolved", "Not solved"]);
    if (this.worst.size) options.push(["found", "With findings"]);
    if (this.tasks.length > 1 && this.tasks.length <= 200) options.push(...this.tasks.map((task, number) => [`task ${number}`, task || "without a task"]));
    which.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
    which.value = options.some(([value]) => value === before) ? before : "";
    which.hidden = options.length === 1;
  }

  filter() {
    const words = byId("search").value.trim().toLowerCase();
    const which = byId("which").value;
    const fits = {
      "": () => true,
      solved: (number) => this.success[number] === true,
      unsolved: (number) => this.success[number] === false,
      found: (number) => this.worst.has(number),
    }[which] ?? ((number) => `task ${this.task[number]}` === which);
    const said = (number) => !words || String(number) === words || (this.tasks[this.task[number]] ?? "").toLowerCase().includes(words);
    this.shown = this.lengths.map((_, number) => number).filter((number) => fits(number) && said(number));
    const all = this.lengths.length.toLocaleString("en");
    byId("count").textContent = this.shown.length === this.lengths.length ? `${all} episodes` : `${this.shown.length.toLocaleString("en")} of ${all} episodes`;
    this.draw();
  }

  // Moves by so many rows of the list as it is shown.
  move(steps) {
    const place = this.shown.indexOf(this.chosen);
    const next = this.shown[place < 0 ? 0 : Math.min(Math.max(place + steps, 0), this.shown.length - 1)];
    if (next !== undefined && next !== this.chosen) this.choose(next);
  }

  select(number) {
    this.chosen = number;
    const top = this.shown.indexOf(number) * ROW;
    const { scrollTop, clientHeight } = this.list;
    if (top >= 0 && (top < scrollTop || top + ROW > scrollTop + clientHeight)) this.list.scrollTop = top - clientHeight / 2 + ROW / 2;
    this.draw();
  }

  draw() {
    const { scrollTop, clientHeight } = this.list;
    const first = Math.max(0, Math.floor(scrollTop / ROW) - MORE);
    const last = Math.min(this.shown.length, Math.ceil((scrollTop + clientHeight) / ROW) + MORE);
    this.rows.style.height = `${this.shown.length * ROW}px`;
    this.rows.replaceChildren(...this.shown.slice(first, last).map((number, row) => this.row(number, (first + row) * ROW)));
  }

  row(number, top) {
    const success = this.success[number] ?? null;
    const worst = this.worst.get(number);
    return element("div", { class: "row", role: "option", "data-episode": number, "aria-selected": String(number === this.chosen), style: `top:${top}px` },
      element("span", { class: "number" }, String(number),
        worst ? element("span", { class: `dot ${worst}`, title: `has findings: ${worst}` }) : null),
      element("span", { class: "length" }, `${this.lengths[number].toLocaleString("en")} `,
        success === null ? null : element("span", { class: success ? "yes" : "no", title: success ? "solved" : "not solved" }, success ? "✓" : "✕")),
      element("span", { class: "task" }, this.tasks[this.task[number]] ?? ""));
  }
}
