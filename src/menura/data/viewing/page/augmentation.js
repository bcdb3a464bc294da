// What a task's augmentations make of a frame: the original beside one picture a seed, cameras in rows.

import { json } from "./api.js";
import { element } from "./dom.js";
import { drawSeries, makeArea } from "./plots.js";

const SEEDS = 7; // with the original two rows of four, or one of eight

export class Augmentation {
  constructor(target) {
    this.target = target;
    this.first = 0;
    this.asked = null;
    target.replaceChildren(element("p", { class: "quiet" }, "The way of the training is put together …"));
  }

  // One question at a time: while it is answered, only the last frame asked for is remembered.
  async show(episode, frame) {
    const busy = this.asked !== null;
    this.asked = [episode, frame, this.first];
    if (busy) return;
    for (let answered = null; this.asked !== answered;) {
      answered = this.asked;
      const [of, at, first] = answered;
      try {
        this.draw(await json("augmented", { episode: of, frame: at, first_seed: first, seeds: SEEDS }), of, at);
      } catch (error) {
        this.target.replaceChildren(element("p", { class: "bad" }, error.message));
      }
    }
    this.asked = null;
  }

  draw({ task, augmentations, cameras, state, actions }, episode, frame) {
    const again = element("button", { type: "button", onclick: () => { this.first += SEEDS; this.show(episode, frame); } }, "Other seeds");
    this.target.replaceChildren(
      element("h2", {}, task),
      element("p", { class: "quiet" }, augmentations.join(" → ") || "The task has no augmentations."),
      element("div", { class: "tools" }, again, element("span", { class: "quiet" }, `episode ${episode}, frame ${frame}, seeds ${this.first}–${this.first + SEEDS - 1}`)),
      ...cameras.flatMap(({ name, original, augmented }) => [
        element("h3", {}, name),
        element("div", { class: "tiles" }, tile(original, "as it is", "original"), ...augmented.map((picture, row) => tile(picture, `seed ${this.first + row}`)))]),
      ...(state ? [element("h3", {}, "State"), numbers(state, this.first)] : []),
      ...(actions ? [element("h3", {}, "Actions"), chunks(actions)] : []));
  }
}

const tile = (picture, caption, kind) =>
  element("figure", { class: kind ?? null }, element("img", { src: picture, alt: caption }), element("figcaption", {}, caption));

// {names, original: [D], augmented: [seed][D]}: a plot of seeds a dimension says little, so the numbers themselves.
function numbers({ names, original, augmented }, first) {
  const head = ["", "as it is", ...augmented.map((_, row) => `seed ${first + row}`)];
  const text = (value) => value.toFixed(4);
  const rows = names.map((name, column) => [name, text(original[column]), ...augmented.map((values) => text(values[column]))]);
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((value, column) => element("th", { class: column ? "n" : null }, value)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((value, column) => element("td", { class: column ? "n" : null }, value)))))));
}

// {names, original: [T][A], augmented: [seed][T][A]}
function chunks({ names, original, augmented }) {
  const column = (chunk, index) => chunk.map((row) => row[index]);
  return element("div", { class: "plots" }, ...names.map((name, index) => {
    const area = makeArea();
    drawSeries(area, [
      ...augmented.map((chunk) => ({ kind: "action", values: column(chunk, index), many: true })),
      { kind: "state", values: column(original, index) }]);
    return element("div", { class: "plot" }, element("header", {}, element("span", { class: "name" }, name)), area);
  }));
}
