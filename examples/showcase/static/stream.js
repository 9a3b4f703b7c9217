// An EventSource: its state, its last id, and its cuts. No DOM in here.
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
//   "resumed" { count, ms, ordered, gap }    once what was missed has come back

const OWN = ["stream-open", "stream-position", "stream-gap", "stream-error", "stream-end"];
const REMEMBERED = 2000; // ids; more than the server retains of our channels
const SETTLED = 300; // ms without another missed event: then the last one has come
const REFUSED = 5000; // ms; EventSource gives up on a 502, so we come back ourselves

export class Stream extends EventTarget {
  #url;
  #types;
  #skew; // this clock minus the server's, in milliseconds
  #source = null;
  #timer = 0;
  #lastId = "";
  #seen = new Set();
  #asked = null; // when the current attempt to connect began
  #opened = 0; // when it succeeded
  #resumed = null; // what came back since then
  #settling = 0;

  constructor(url, types, skew) {
    super();
    this.#url = url;
    this.#types = types;
    this.#skew = skew;
  }

  open() {
    clearTimeout(this.#timer);
    this.#asked = performance.now();
    this.#source = new EventSource(this.#address());
    this.#source.addEventListener("open", () => this.#onOpen());
    this.#source.addEventListener("error", () => this.#onError());
    for (const type of [...OWN, ...this.#types]) {
      this.#source.addEventListener(type, (message) => this.#onEvent(message));
    }
    this.#enter(this.#lastId ? "reconnecting" : "connecting");
  }

  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
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

  #onOpen() {
    this.#opened = Date.now();
    if (this.#lastId) {
      const from = this.#asked ?? performance.now();
      this.#resumed = { from, count: 0, ms: 0, ordered: true, sequence: -1, gap: null };
      this.#settleIn(SETTLED * 2);
    }
    this.#enter("open");
  }

  #onError() {
    this.#settle();
    this.#asked = null;
    if (this.#source.readyState === EventSource.CLOSED) this.#askWhy(this.#source);
    this.#enter(this.#lastId ? "reconnecting" : "connecting");
  }

  // EventSource does not tell the status of the server's answer.
  async #askWhy(source) {
    const { status } = await fetch(this.#address(), { method: "HEAD" }).catch(() => ({}));
    if (source !== this.#source) return;
    if (status === 204) this.#enter("ended");
    else if (status === 404) this.#enter("gone");
    else this.#timer = setTimeout(() => this.open(), REFUSED);
  }

  // A new EventSource cannot send the header Last-Event-ID: hence the query. When the
  // browser reconnects by itself it sends the header, which the server prefers.
  #address() {
    const url = new URL(this.#url, location.href);
    if (this.#lastId) url.searchParams.set("last_event_id", this.#lastId);
    return url;
  }

  #onEvent({ type, data: text, lastEventId: id }) {
    this.#lastId = id;
    const data = text ? JSON.parse(text) : null;
    if (type.startsWith("stream-")) {
      if (type === "stream-gap" && this.#resumed) this.#resumed.gap = data;
      this.#tell("event", { type, id, text, data, time: Date.now(), kind: "own" });
      if (type === "stream-end") this.finish("ended");
    } else if (this.#isNew(id)) {
      const time = this.#localTime(data.time);
      this.#tell("event", { type, id, text, data, time, ...this.#classify(id, time) });
    }
  }

  #classify(id, time) {
    if (time > this.#opened) return { kind: "live" };
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

  // After a gap the server sends all that it retains: some of it we have already.
  #isNew(id) {
    if (this.#seen.has(id)) return false;
    this.#seen.add(id);
    if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.keys().next().value);
    return true;
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
    clearTimeout(this.#settling);
    if (this.#resumed) this.#tell("resumed", this.#resumed);
    this.#resumed = null;
  }

  #enter(state, until = null) {
    this.#tell("state", { state, until });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
