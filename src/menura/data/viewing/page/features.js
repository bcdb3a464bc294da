// What the numbers of a dataset mean, as tables.

import { element, table } from "./dom.js";

export function drawFeatures(target, features) {
  const words = { joint: "joints", ee: "end effector", abs: "absolute", delta: "delta" };
  const facts = [
    ["rate", `${features.fps} Hz`],
    ["robot", features.robot],
    ["control space", words[features.control_space]],
    ["control type", words[features.control_type]],
    ["language", features.language ? "yes" : "no"],
  ].map(([name, value]) => [name, value ?? element("span", { class: "quiet" }, "not said")]);
  const cameras = Object.entries(features.cameras).map(([name, { height, width, render }]) => [name, `${height} × ${width}`, render ?? ""]);
  target.replaceChildren(
    element("h3", {}, "Dataset"), table(["", ""], facts),
    ...(cameras.length ? [element("h3", {}, "Cameras"), table(["", "height × width", "render"], cameras)] : []),
    ...["state", "action"].filter((kind) => features[kind]).flatMap((kind) => vector(kind, features[kind])));
}

function vector(kind, { names, units, rotations, grippers, object_names }) {
  const meaning = (name) => {
    const rotation = rotations.find((each) => each.names.includes(name));
    const gripper = grippers[name];
    return [
      rotation ? `rotation, ${rotation.representation}` : "",
      gripper ? `gripper, closed ${gripper[0]}, open ${gripper[1]}` : "",
      object_names.includes(name) ? "of the object or goal" : "",
    ].filter(Boolean).join("; ");
  };
  const title = `${kind[0].toUpperCase()}${kind.slice(1)}, ${names.length} dimensions`;
  return [element("h3", {}, title), table(["", "name", "unit", "meaning"], names.map((name, row) => [String(row), name, units?.[row] ?? "", meaning(name)]))];
}
