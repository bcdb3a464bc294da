// The page: which episode and frame is shown, and everything that follows from it.

import { bytes, json } from "./api.js";
import { Augmentation } from "./augmentation.js";
import { byId, element, onDrag } from "./dom.js";
import { EpisodeList } from "./episodes.js";
import { drawFindings, drawStatistics, examine, findingLine, findingsIn, framesText, worstOf } from "./examination.js";
import { drawFeatures } from "./features.js";
import { Film } from "./film.js";
import { extent, Plots } from "./plots.js";

const HASH_MS = 300; // browsers refuse more frequent changes of the address

class Page {
  constructor(dataset) {
    this.dataset = dataset;
    this.features = dataset.features;
    this.cameras = Object.entries(this.features.cameras);
    this.width = (this.features.state?.names.length ?? 0) + this.features.action.names.length;
    Object.assign(this, { episode: -1, frame: 0, shown: -1, length: 1, playing: false, clock: 0, speed: 1, report: null, film: null, hashTimer: null });
    this.list = new EpisodeList(dataset.lengths, (episode) => this.open(episode, 0));
    this.plots = new Plots(byId("plots"), this.features, (share) => this.seekShare(share));
    this.augmentation = new Augmentation(section("augmentation"));
    this.drawHead();
    this.makeCameras();
    drawFeatures(section("features"), this.features);
    this.listen();
  }

  // What is shown

  async open(episode, frame) {
    this.pause();
    this.film?.close();
    Object.assign(this, { episode, film: null, shown: -1 });
    this.list.select(episode);
    trouble(null);
    let facts, table;
    try {
      [facts, table] = await Promise.all([json("episode", { episode }), bytes("table", { episode })]);
    } catch (error) {
      if (this.episode === episode) this.drawBroken(episode, error);
      return;
    }
    if (this.episode !== episode) return; // another was chosen meanwhile
    this.length = facts.length;
    const shapes = this.cameras.map(([, camera]) => camera);
    const film = new Film(episode, this.length, shapes, this.dataset.strip, (error) => this.film === film && this.arrived(error));
    this.film = film;
    section("episode").classList.remove("broken");
    this.drawFacts(facts);
    this.plots.show(new Float32Array(table), this.length, this.width);
    this.drawMarks();
    this.seek(frame);
  }

  seek(frame) {
    if (!this.film) return;
    this.frame = Math.min(Math.max(Math.round(frame), 0), this.length - 1);
    this.clock = this.frame;
    this.film.want(this.frame);
    this.show();
  }

  seekShare(share) {
    this.pause();
    this.seek(share * (this.length - 1));
  }

  // Cursor and numbers at once; the cameras together, with them when they are there and otherwise as soon as they are.
  show() {
    this.plots.at(this.frame);
    const timeline = byId("timeline");
    timeline.style.setProperty("--at", `${(100 * this.frame) / Math.max(1, this.length - 1)}%`);
    timeline.setAttribute("aria-valuenow", this.frame);
    timeline.setAttribute("aria-valuemax", this.length - 1);
    byId("position").replaceChildren(element("b", {}, String(this.frame)), ` / ${this.length - 1} · ${(this.frame / this.features.fps).toFixed(2)} s`);
    this.drawPictures();
    this.hashTimer ??= setTimeout(() => this.writeHash(), HASH_MS);
    if (this.view === "augmentation") this.augmentation.show(this.episode, this.frame);
  }

  drawPictures() {
    const pictures = this.film.at(this.frame);
    byId("cameras").classList.toggle("waiting", !pictures);
    if (!pictures || this.shown === this.frame) return;
    this.shown = this.frame;
    pictures.forEach((picture, camera) => {
      const { canvas, pen } = this.screens[camera];
      if (picture) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
      else pen.clearRect(0, 0, canvas.width, canvas.height);
      Object.assign(canvas.dataset, { episode: this.episode, frame: this.frame });
    });
  }

  arrived(error) {
    if (error) this.pause();
    const damaged = this.film.errors.find((each) => each);
    trouble(error?.message ?? damaged ?? null);
    this.drawPictures();
  }

  // Playing: the clock waits where frames are not there yet, so that all stay in step.

  play() {
    if (!this.film) return;
    if (this.frame === this.length - 1) this.seek(0);
    this.playing = true;
    byId("play").classList.add("playing");
    byId("play").setAttribute("aria-label", "Pause");
    let before = performance.now();
    const tick = (now) => {
      if (!this.playing) return;
      const clock = this.clock + ((now - before) / 1000) * this.features.fps * this.speed;
      before = now;
      this.advance(clock);
      if (this.playing) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  advance(clock) {
    const next = Math.min(Math.floor(clock), this.length - 1);
    if (next > this.frame && this.cameras.length && !this.film.at(next)) {
      this.film.want(next);
      return;
    }
    this.clock = clock;
    if (next > this.frame) {
      this.frame = next;
      this.film.want(next);
      this.show();
    }
    if (next === this.length - 1) this.pause();
  }

  pause() {
    this.playing = false;
    byId("play").classList.remove("playing");
    byId("play").setAttribute("aria-label", "Play");
  }

  // Drawing what stays while an episode plays

  drawHead() {
    const frames = this.dataset.lengths.reduce((sum, length) => sum + length, 0);
    const seconds = frames / this.features.fps;
    const time = seconds < 120 ? `${seconds.toFixed(0)} s` : seconds < 7200 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
    document.title = `${this.dataset.name} · Menura`;
    byId("name").textContent = this.dataset.name;
    byId("summary").textContent = `${this.dataset.lengths.length.toLocaleString("en")} episodes · ${frames.toLocaleString("en")} frames · ${this.features.fps} Hz · ${time}`;
    tab("augmentation").hidden = !this.dataset.augmented;
  }

  makeCameras() {
    this.screens = this.cameras.map(([name, { height, width }]) => {
      const canvas = element("canvas", { width, height, "data-camera": name });
      const caption = element("figcaption", {}, element("span", {}, name), element("span", {}, `${height} × ${width}`));
      byId("cameras").append(element("figure", { style: `--shape:${width / height}` }, canvas, caption));
      return { canvas, pen: canvas.getContext("2d") };
    });
  }

  drawFacts({ episode, length, task, success, seed, extra }) {
    byId("task").textContent = task || `Episode ${episode}`;
    const facts = [
      `episode ${episode}`, `${length} frames`, `${(length / this.features.fps).toFixed(1)} s`,
      ...(success === null ? [] : [success ? "solved" : "not solved"]),
      ...(seed === null ? [] : [`seed ${seed}`]),
      ...Object.entries(extra).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`),
    ];
    byId("facts").replaceChildren(...facts.map((fact) => element("span", {}, fact)));
  }

  drawBroken(episode, error) {
    section("episode").classList.add("broken");
    byId("task").textContent = `Episode ${episode}`;
    byId("facts").replaceChildren();
    byId("here").replaceChildren();
    trouble(error.message);
    this.writeHash();
  }

  drawMarks() {
    const found = findingsIn(this.report, this.episode);
    const marks = found.filter(({ frames }) => frames);
    this.plots.mark(marks);
    byId("timeline").querySelector(".found").replaceChildren(
      ...marks.map(({ severity, frames }) => element("i", { class: severity, style: extent(frames, this.length) })));
    byId("here").replaceChildren(...found.map((finding) => findingLine(finding, framesText(finding.frames), () => this.seekShown(finding.frames?.[0] ?? 0))));
  }

  seekShown(frame) {
    this.pause();
    this.seek(frame);
  }

  drawExamination(state) {
    drawStatistics(section("statistics"), state, this.features);
    if (state.report && this.report) return;
    this.report = state.report;
    drawFindings(section("findings"), state, ({ episode, frames }) => this.visit(episode, frames?.[0] ?? 0));
    if (!this.report) return;
    const badge = byId("worst");
    badge.textContent = String(this.report.findings.length || "");
    badge.className = this.report.findings[0]?.severity ?? "";
    this.list.found(worstOf(this.report));
    if (this.film) this.drawMarks();
  }

  visit(episode, frame) {
    this.choose("episode");
    if (episode === this.episode && this.film) this.seekShown(frame);
    else this.open(episode, frame);
  }

  choose(view) {
    this.view = view;
    document.querySelectorAll("[role=tab]").forEach((each) => each.setAttribute("aria-selected", String(each.dataset.view === view)));
    document.querySelectorAll("main > section").forEach((each) => { each.hidden = each.dataset.view !== view; });
    if (view === "augmentation") this.augmentation.show(this.episode, this.frame);
  }

  // The address holds what is shown, so that it can be passed on

  writeHash() {
    this.hashTimer = null;
    const hash = `#episode=${this.episode}&frame=${this.frame}`;
    if (location.hash !== hash) history.replaceState(null, "", hash);
  }

  readHash() {
    const given = new URLSearchParams(location.hash.slice(1));
    const number = (name, last) => {
      const value = Number.parseInt(given.get(name) ?? "0", 10);
      return Number.isInteger(value) ? Math.min(Math.max(value, 0), last) : 0;
    };
    const episode = number("episode", this.dataset.lengths.length - 1);
    const frame = number("frame", this.dataset.lengths[episode] - 1);
    if (episode !== this.episode) this.open(episode, frame);
    else if (frame !== this.frame) this.seekShown(frame);
  }

  listen() {
    document.querySelectorAll("[role=tab]").forEach((each) => each.addEventListener("click", () => this.choose(each.dataset.view)));
    byId("play").addEventListener("click", () => (this.playing ? this.pause() : this.play()));
    byId("speed").addEventListener("change", (event) => { this.speed = Number(event.target.value); event.target.blur(); });
    onDrag(byId("timeline"), (share) => this.seekShare(share));
    window.addEventListener("hashchange", () => this.readHash());
    document.addEventListener("keydown", (event) => this.key(event));
    // A button that was clicked would take the space bar.
    document.addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
    const typing = event.target.closest("input");
    if (event.key === " " && event.target.closest("button, [role=button]")) return;
    const step = event.shiftKey ? 10 : 1;
    const keys = {
      ArrowUp: () => this.list.move(-1),
      ArrowDown: () => this.list.move(1),
      ...(typing ? {} : {
        ArrowLeft: () => this.seekShown(this.frame - step),
        ArrowRight: () => this.seekShown(this.frame + step),
        Home: () => this.seekShown(0),
        End: () => this.seekShown(this.length - 1),
        " ": () => (this.playing ? this.pause() : this.play()),
      }),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
}

const section = (view) => document.querySelector(`main > section[data-view=${view}]`);
const tab = (view) => document.querySelector(`[role=tab][data-view=${view}]`);

function trouble(message) {
  byId("trouble").hidden = !message;
  byId("trouble").textContent = message ?? "";
}

try {
  const episodes = json("episodes"); // asked at once, needed second
  episodes.catch(() => null);
  const page = new Page(await json("dataset"));
  page.readHash();
  page.list.know(await episodes);
  await examine((state) => page.drawExamination(state));
} catch (error) {
  trouble(error.message);
  throw error;
}
