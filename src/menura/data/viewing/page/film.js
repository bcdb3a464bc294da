// The frames of one episode: fetched in strips of all cameras, ahead of what is shown, and kept as decoded pictures.

import { bytes } from "./api.js";

const KEPT_BYTES = 400e6; // of decoded pictures, 4 bytes a pixel
const AHEAD = 3; // strips

export class Film {
  // `cameras`: [{height, width}, …]; `strip`: frames of a strip; `arrived(error)` is called when more can be shown.
  constructor(episode, length, cameras, strip, arrived) {
    Object.assign(this, { episode, length, cameras, strip, arrived });
    this.strips = new Map(); // number -> {pictures: [frame][camera] or null, leaving}; in the order of their use
    this.errors = cameras.map(() => null);
    const pixels = cameras.reduce((sum, camera) => sum + camera.height * camera.width, 0);
    this.kept = Math.max(AHEAD + 2, Math.floor(KEPT_BYTES / Math.max(1, 4 * pixels * strip)));
  }

  // The pictures of a frame, one a camera (null where a camera is damaged); null until they are there.
  at(frame) {
    const found = this.strips.get(Math.floor(frame / this.strip));
    return found?.pictures ? found.pictures[frame % this.strip] : null;
  }

  // Fetches a frame's strip, and those that follow.
  want(frame) {
    const first = Math.floor(frame / this.strip);
    const last = Math.floor((this.length - 1) / this.strip);
    for (let number = first; number <= Math.min(first + AHEAD, last); number++) this.load(number);
    for (const [number, { pictures }] of [...this.strips]) {
      const passed = number < first || number > first + AHEAD;
      if (passed && (!pictures || this.strips.size > this.kept)) this.drop(number);
    }
  }

  close() {
    for (const number of [...this.strips.keys()]) this.drop(number);
  }

  drop(number) {
    const { pictures, leaving } = this.strips.get(number);
    leaving.abort();
    for (const row of pictures ?? []) for (const picture of row) picture?.close();
    this.strips.delete(number);
  }

  async load(number) {
    const known = this.strips.get(number);
    if (known) {
      this.strips.delete(number); // used last
      this.strips.set(number, known);
      return;
    }
    const made = { pictures: null, leaving: new AbortController() };
    this.strips.set(number, made);
    try {
      const answer = await bytes("strip", { episode: this.episode, number }, made.leaving.signal);
      const pictures = await this.decode(answer);
      if (made.leaving.signal.aborted) for (const row of pictures) for (const picture of row) picture?.close();
      else made.pictures = pictures;
      this.arrived(null);
    } catch (error) {
      if (made.leaving.signal.aborted) return;
      this.strips.delete(number);
      this.arrived(error);
    }
  }

  async decode(answer) {
    const head = new DataView(answer).getUint32(0, true);
    const { start, stop, cameras } = JSON.parse(new TextDecoder().decode(new Uint8Array(answer, 4, head)));
    let place = 4 + head;
    const columns = cameras.map(({ sizes, error }, camera) => {
      this.errors[camera] = error ?? this.errors[camera];
      return Array.from({ length: stop - start }, (_, row) => {
        if (!sizes) return null;
        const jpeg = new Blob([new Uint8Array(answer, place, sizes[row])], { type: "image/jpeg" });
        place += sizes[row];
        return createImageBitmap(jpeg);
      });
    });
    const decoded = await Promise.all(columns.map((column) => Promise.all(column)));
    return Array.from({ length: stop - start }, (_, row) => decoded.map((column) => column[row]));
  }
}
