// Findings of the check and statistics: fetched until all is there, then shown.

import { json } from "./api.js";
import { element, short, table } from "./dom.js";

const POLL_MS = 400;
const MOST_PLACES = 24;
const SEVERITIES = ["error", "warning", "note"];

// Calls `arrived(state)` with every change until nothing more is being done.
export async function examine(arrived) {
  for (;;) {
    const state = await json("examination");
    arrived(state);
    if (!state.doing) return;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

// Episode -> severity of the worst finding in it.
export function worstOf(report) {
  const worst = new Map();
  for (const { severity, places } of report.findings) {
    for (const { episode } of places) if (!worst.has(episode)) worst.set(episode, severity); // they come worst first
  }
  return worst;
}

// The findings in one episode, each with the frames: [{…finding, frames}].
export function findingsIn(report, episode) {
  if (!report) return [];
  return report.findings.flatMap((finding) =>
    finding.places.filter((place) => place.episode === episode).map(({ frames }) => ({ ...finding, frames })));
}

const subject = ({ feature, camera, dimensions }) =>
  [feature ?? (camera ? `camera ${camera}` : ""), dimensions.length ? `${feature ? ": " : ""}${dimensions.join(", ")}` : ""].join("");

const placeText = ({ episode, frames }) =>
  `episode ${episode}${frames ? (frames[1] - frames[0] > 1 ? `, frames ${frames[0]}–${frames[1] - 1}` : `, frame ${frames[0]}`) : ""}`;

export const framesText = (frames) => (!frames ? "" : frames[1] - frames[0] > 1 ? `frames ${frames[0]}–${frames[1] - 1}` : `frame ${frames[0]}`);

// One line: severity, what, where. `go()` is called when it is clicked.
export function findingLine(finding, where, go) {
  return element("button", { class: `finding ${finding.severity}`, type: "button", onclick: go, title: finding.remedy },
    element("span", { class: "severity" }, finding.severity),
    element("span", { class: "what" }, sentence(finding)),
    element("span", { class: "sure" }, where));
}

const sentence = (finding) => `${finding.kind.replaceAll("_", " ")}${subject(finding) ? ` · ${subject(finding)}` : ""}: ${finding.message}`;

// `go(place)` is called with {episode, frames} when a finding or one of its places is clicked.
export function drawFindings(target, { report, errors, doing }, go) {
  if (!report) {
    target.replaceChildren(waiting(errors.report, doing));
    return;
  }
  const counts = SEVERITIES.map((severity) => [severity, report.findings.filter((finding) => finding.severity === severity).length]);
  const said = report.findings.length
    ? counts.filter(([, count]) => count).map(([severity, count]) => `${count} ${severity}${count > 1 ? "s" : ""}`).join(", ")
    : "Nothing was found.";
  target.replaceChildren(
    element("h2", {}, said),
    element("p", { class: "quiet" }, `Looked at: all tables${report.seen.map((each) => `; ${each}`).join("")}.`),
    element("h3", {}, ""),
    element("div", { class: "list" }, ...report.findings.map((finding) => findingBlock(finding, go))));
}

function findingBlock(finding, go) {
  const [first] = finding.places;
  const places = finding.places.slice(0, MOST_PLACES).map((place) =>
    element("button", { type: "button", onclick: (event) => { event.stopPropagation(); go(place); } }, placeText(place)));
  if (finding.places.length > MOST_PLACES) places.push(element("span", { class: "quiet" }, `and ${finding.places.length - MOST_PLACES} more`));
  return element("div", { class: `finding ${finding.severity}`, role: "button", tabindex: "0",
    onclick: () => first && go(first), onkeydown: (event) => event.key === "Enter" && first && go(first) },
    element("span", { class: "severity" }, finding.severity),
    element("span", { class: "what" }, sentence(finding)),
    element("span", { class: "sure" }, `${Math.round(100 * finding.confidence)} % sure`),
    element("span", { class: "remedy" }, finding.remedy),
    element("span", { class: "places" }, ...(places.length ? places : [element("span", { class: "quiet" }, "the whole dataset")])));
}

export function drawStatistics(target, { statistics, errors, doing }, features) {
  if (!statistics) {
    target.replaceChildren(waiting(errors.statistics, doing));
    return;
  }
  const head = ["", "unit", "mean", "std", "min", "1 %", "99 %", "max"];
  const blocks = ["state", "action"].filter((kind) => statistics[kind]).flatMap((kind) => {
    const found = statistics[kind];
    const rows = features[kind].names.map((name, row) => [
      name, features[kind].units?.[row] ?? "", ...["mean", "std", "min", "q01", "q99", "max"].map((field) => short(found[field][row]))]);
    return [element("h3", {}, `${kind[0].toUpperCase()}${kind.slice(1)}, ${found.count.toLocaleString("en")} frames`), table(head, rows)];
  });
  target.replaceChildren(...blocks);
  target.querySelectorAll("tr").forEach((row) => [...row.children].slice(2).forEach((cell) => cell.classList.add("n")));
}

function waiting(error, doing) {
  if (error) return element("p", { class: "bad" }, error);
  const share = doing?.share ?? null;
  return element("p", { class: "quiet" }, doing ? `${doing.what} …` : "", element("progress", share === null ? {} : { value: share }));
}
