// A stream of the module sse.js, and what the page tells of it. No DOM in here.
//
// A Stream dispatches
//
//   "state"   { state, until }    connecting, open, cut (until a time) or reconnecting;
//             for good: ended, or gone (the server does not know what was asked for)
//   "event"   { type, id, text, data, time, kind, after }
//             time is when it was published, by this browser's clock (milliseconds);
//             kind is "own" (a stream-… event of flask_sse_lite), "history" (older
//             than this page), "missed" (published while we were away, replayed
//             `after` so many milliseconds) or "live"
//   "resumed" { count, ms, ordered, gap }    once what was missed has come back; again
//             where more of it comes late

import { connect } from "../sse.js";

const OWN = ["stream-open", "stream-position", "stream-gap", "stream-error", "stream-end"];
const SETTLED = 300; // ms without another missed event: then the last one has come

export class Stream extends EventTarget {
  #url;
  #types;
  #skew; // this clock minus the server's, in milliseconds
  #source = null;
  #timer = 0;
  #lastId = "";
  #asked = null; // when the current attempt to connect began
  #opened = 0; // when it succeeded
  #resumed = null; // what came back; null before a reconnection, and once it is live again
  #settling = 0; // the timer of its telling; 0 when it has been told
  #isOpen = false;
  #moving = false; // to another address, of which the page sees nothing

  constructor(url, types, skew) {
    super();
    this.#url = url;
    this.#types = types;
    this.#skew = skew;
  }

  open() {
    clearTimeout(this.#timer);
    this.#asked = performance.now();
    // This page shows its own connection: other tabs have theirs.
    const source = connect(this.#url, { lastEventId: this.#lastId || undefined, shared: false });
    this.#source = source;
    source.addEventListener("statechange", ({ detail }) => this.#onState(source, detail));
    for (const type of [...OWN, ...this.#types]) {
      source.addEventListener(type, (message) => this.#onEvent(message));
    }
    if (!this.#moving) this.#enter(this.#lastId ? "reconnecting" : "connecting");
  }

  // Go on at another address. To the page it is the same connection: nothing is missed.
  move(url) {
    this.#url = url;
    if (!this.#isOpen) return; // The next connection goes there.
    this.close();
    this.#moving = true;
    this.open();
  }

  close() {
    this.#isOpen = this.#moving = false;
    clearTimeout(this.#timer);
    const source = this.#source;
    this.#source = null;
    source?.close();
    this.#settle();
  }

  // There is nothing more to come: ended, or gone.
  finish(state) {
    this.close();
    this.#enter(state);
  }

  cut(seconds) {
    this.close();
    this.#timer = setTimeout(() => this.open(), seconds * 1000);
    this.#enter("cut", Date.now() + seconds * 1000);
  }

  #onState(source, { state }) {
    if (source !== this.#source) return; // We have closed it.
    if (state === "open") this.#onOpen();
    else if (state === "ended") this.finish("ended");
    else if (state === "refused") this.finish("gone");
    else if (state === "connecting") this.#asked = performance.now();
    else if (state === "waiting") {
      this.#isOpen = this.#moving = false;
      this.#settle();
      this.#enter(this.#lastId ? "reconnecting" : "connecting");
    }
  }

  #onOpen() {
    this.#isOpen = true;
    if (this.#moving) {
      this.#moving = false;
      return;
    }
    this.#opened = Date.now();
    if (this.#lastId) {
      this.#resumed = { from: this.#asked, count: 0, ms: 0, ordered: true, sequence: -1, gap: null };
      this.#settleIn(SETTLED * 2);
    }
    this.#enter("open");
  }

  #onEvent({ type, data: text, lastEventId: id }) {
    this.#lastId = id;
    const data = text ? JSON.parse(text) : null;
    if (type.startsWith("stream-")) {
      if (type === "stream-gap" && this.#resumed) {
        this.#resumed.gap = data;
        this.#settleIn(SETTLED);
      }
      this.#tell("event", { type, id, text, data, time: Date.now(), kind: "own" });
    } else {
      const time = this.#localTime(data.time);
      this.#tell("event", { type, id, text, data, time, ...this.#classify(id, time) });
    }
  }

  #classify(id, time) {
    if (time > this.#opened) {
      // What was missed comes before it.
      this.#settle();
      this.#resumed = null;
      return { kind: "live" };
    }
    const resumed = this.#resumed;
    if (!resumed) return { kind: "history" };
    const sequence = Number(id.slice(id.lastIndexOf("-") + 1));
    resumed.ordered &&= sequence > resumed.sequence;
    resumed.sequence = sequence;
    resumed.count += 1;
    resumed.ms = performance.now() - resumed.from;
    this.#settleIn(SETTLED);
    return { kind: "missed", after: resumed.ms };
  }

  // No event arrives before it was published: the fastest event shows how far apart the
  // clocks are at most.
  #localTime(seconds) {
    this.#skew = Math.min(this.#skew, Date.now() - seconds * 1000);
    return seconds * 1000 + this.#skew;
  }

  #settleIn(ms) {
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => this.#settle(), ms);
  }

  #settle() {
    if (!this.#settling) return;
    clearTimeout(this.#settling);
    this.#settling = 0;
    this.#tell("resumed", this.#resumed);
  }

  #enter(state, until = null) {
    this.#tell("state", { state, until });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
