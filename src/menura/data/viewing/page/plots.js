// State and action over an episode: one small plot a dimension, those of one name together, under one cursor.

import { element, onDrag, short } from "./dom.js";

const COLUMNS = 600; // more points than this are drawn as the lowest and the highest of each column
const HEIGHT = 100;

// Which dimensions share a plot: [{name, unit, series: [{kind, column}]}], columns of the table (T, D + A).
export function arrange(features) {
  const state = features.state?.names ?? [];
  const plots = state.map((name, column) => ({ name, unit: features.state.units?.[column] ?? "", series: [{ kind: "state", column }] }));
  features.action.names.forEach((name, index) => {
    const series = { kind: "action", column: state.length + index };
    const shared = plots.find((plot) => plot.name === name && plot.series.length === 1 && plot.series[0].kind === "state");
    if (shared) shared.series.push(series);
    else plots.push({ name, unit: features.action.units?.[index] ?? "", series: [series] });
  });
  return plots;
}

export class Plots {
  // `target` gets a `--at`, where the cursor is; `seek(share)` is called when it is dragged.
  constructor(target, features, seek) {
    this.target = target;
    this.plots = arrange(features).map((plot) => makePlot(plot, seek));
    const kinds = [...new Set(this.plots.flatMap((plot) => plot.series.map(({ kind }) => kind)))];
    const keys = kinds.map((kind) => element("span", { class: `key ${kind}` }, kind));
    target.replaceChildren(element("p", { class: "keys" }, ...keys), element("div", { class: "plots" }, ...this.plots.map(({ node }) => node)));
  }

  // `values`: Float32Array, `length` rows of `width` columns.
  show(values, length, width) {
    Object.assign(this, { values, length, width });
    for (const plot of this.plots) drawSeries(plot.area, plot.series.map(({ kind, column }) => ({ kind, values: pick(values, length, width, column) })));
  }

  // Shades the frames of findings: [{dimensions, feature, severity, frames}].
  mark(marks) {
    for (const plot of this.plots) {
      plot.area.querySelectorAll(".mark").forEach((old) => old.remove());
      for (const { dimensions, feature, severity, frames } of marks) {
        const meant = plot.series.some(({ kind }) => kind === feature) && (!dimensions.length || dimensions.includes(plot.name));
        if (meant && frames) plot.area.prepend(element("i", { class: `mark ${severity}`, style: extent(frames, this.length) }));
      }
    }
  }

  at(frame) {
    this.target.style.setProperty("--at", `${(100 * frame) / Math.max(1, this.length - 1)}%`);
    for (const plot of this.plots) {
      for (const { column, value } of plot.series) value.textContent = short(this.values[frame * this.width + column]);
    }
  }
}

// Where frames `start … stop - 1` lie along an axis, as CSS.
export function extent([start, stop], length) {
  const last = Math.max(1, length - 1);
  return `left:${(100 * start) / last}%;width:${(100 * (stop - 1 - start)) / last}%`;
}

function makePlot({ name, unit, series }, seek) {
  const shown = series.map((each) => ({ ...each, value: element("span", { class: `value ${each.kind}`, title: each.kind }) }));
  const area = makeArea();
  area.append(element("div", { class: "cursor" }));
  onDrag(area, seek);
  const label = element("span", { class: "name", title: name }, name, unit && unit !== "1" ? element("span", { class: "unit" }, ` ${unit}`) : null);
  return { name, area, series: shown, node: element("div", { class: "plot" }, element("header", {}, label, ...shown.map(({ value }) => value)), area) };
}

export function makeArea() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("preserveAspectRatio", "none");
  return element("div", { class: "area" }, svg, element("span", { class: "bound high" }), element("span", { class: "bound low" }));
}

// `series`: [{kind, values, many}]: lines of one length, on one scale.
export function drawSeries(area, series) {
  let [low, high] = [Infinity, -Infinity];
  for (const { values } of series) {
    for (const value of values) {
      if (!Number.isFinite(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  const svg = area.querySelector("svg");
  const last = Math.max(1, series[0].values.length - 1);
  svg.setAttribute("viewBox", `0 0 ${last} ${HEIGHT}`);
  const [bottom, top] = high > low ? [low, high] : [low - 1, low + 1];
  const y = (value) => (HEIGHT * (0.92 - (0.84 * (value - bottom)) / (top - bottom))).toFixed(2);
  svg.replaceChildren(...series.map(({ kind, values, many }) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", many ? `${kind} many` : kind);
    path.setAttribute("d", line(values, y));
    return path;
  }));
  area.querySelector(".high").textContent = Number.isFinite(high) ? short(high) : "";
  area.querySelector(".low").textContent = Number.isFinite(low) && high > low ? short(low) : "";
}

// Numbers that are none leave a gap.
function line(values, y) {
  const stride = Math.max(1, Math.ceil(values.length / COLUMNS));
  let [path, pen] = ["", "M"];
  const point = (frame) => {
    path += `${pen}${frame} ${y(values[frame])}`;
    pen = "L";
  };
  for (let start = 0; start < values.length; start += stride) {
    let [low, high] = [-1, -1];
    for (let frame = start; frame < Math.min(start + stride, values.length); frame++) {
      if (!Number.isFinite(values[frame])) continue;
      if (low < 0 || values[frame] < values[low]) low = frame;
      if (high < 0 || values[frame] > values[high]) high = frame;
    }
    if (low < 0) pen = "M";
    else for (const frame of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) point(frame);
  }
  return path;
}

const pick = (values, length, width, column) => Float32Array.from({ length }, (_, frame) => values[frame * width + column]);
