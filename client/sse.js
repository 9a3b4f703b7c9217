// connect(): an event stream that outlives cuts, restarts and its tab. See sse.d.ts.
//
// Here lives what a page sees: events and states, as EventSource has them and beyond.
// How the connection is kept stands in wire.js, who holds it in leader.js and line.js.

import { DEFAULT_CHANNEL, isOurOwn } from "./leader.js";
import { Line } from "./line.js";
import { Seen } from "./position.js";
import { ask, isPosted } from "./wire.js";

const page = globalThis.document;

const READY = { connecting: 0, waiting: 0, open: 1 };

export const connect = (url, options = {}) => new Stream(url, options);

export class Stream extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;
  CONNECTING = 0;
  OPEN = 1;
  CLOSED = 2;
  onopen = null;
  onmessage = null;
  onerror = null;

  #options;
  #base;
  #channels;
  #id;
  #state = "connecting";
  #tab = `${Math.random()}`;
  #line;
  #isJoining = 0; // Counts: a newer attempt to join stands in for those before.
  #seen = new Seen();
  #hasAsked = false; // The leader knows what this tab lacks.
  #fault; // What the last stream-error said.
  #adding = []; // Each channels that are asked for, with its promise.
  #taps = new Set(); // The loops that iterate.
  #timer;
  #over = new AbortController();

  constructor(url, options) {
    super();
    const base = new URL(url, page?.baseURI ?? location.href);
    this.url = base.href;
    this.withCredentials = !!options.withCredentials;
    this.#options = options;
    this.#channels = new Set(base.searchParams.getAll("channel"));
    this.#id =
      options.lastEventId ??
      base.searchParams.get("last_event_id") ??
      this.#stored() ??
      "";
    this.#seen.add(this.#id);
    base.searchParams.delete("channel");
    base.searchParams.delete("last_event_id");
    this.#base = base;
    for (const type of ["open", "message", "error"]) {
      this.addEventListener(type, (event) => this[`on${type}`]?.(event));
    }
    this.#follow(options.signal, "abort", () => this.close());
    this.#follow(globalThis, "online", () => this.#wake(true));
    // A page that is kept for the way back, or frozen, is no listener meanwhile.
    this.#follow(globalThis, "pagehide", () => this.#pause());
    this.#follow(globalThis, "pageshow", () => this.#join());
    this.#follow(page, "freeze", () => this.#pause());
    this.#follow(page, "resume", () => this.#join());
    this.#follow(page, "visibilitychange", () => {
      if (!page.hidden) {
        this.#join();
        this.#wake(true);
      } else if (options.pauseWhenHidden) this.#pause();
    });
    if (options.signal?.aborted) this.close();
    this.#join();
  }

  get state() {
    return this.#state;
  }

  get readyState() {
    return READY[this.#state] ?? 2;
  }

  get lastEventId() {
    return this.#id;
  }

  get channels() {
    return [...this.#channels];
  }

  json(type, listener) {
    const parsed = (event) => listener(JSON.parse(event.data), event);
    this.addEventListener(type, parsed);
    return () => this.removeEventListener(type, parsed);
  }

  /** Listen to one more channel, from here on. Rejected where the server refuses it. */
  add(name) {
    return new Promise((resolve, reject) => {
      if (this.readyState === 2) throw new Error(`The stream is ${this.#state}`);
      if (!this.#channels.size) this.#channels.add(DEFAULT_CHANNEL);
      const isNew = !this.#channels.has(name);
      this.#channels.add(name);
      this.#adding.push({ name, isNew, resolve, reject });
      this.#want();
    });
  }

  async drop(name) {
    if (this.channels.every((other) => other === name)) {
      throw new Error("No channel would be left");
    }
    this.#channels.delete(name);
    this.#want();
  }

  close() {
    if (this.readyState < 2) this.#enter("closed", {});
  }

  async *[Symbol.asyncIterator]() {
    const events = [];
    let wake;
    const tap = (event) => {
      if (event) events.push(event);
      wake?.();
    };
    this.#taps.add(tap);
    try {
      for (;;) {
        while (events.length) yield events.shift();
        if (this.#state === "refused") throw new Error(this.#fault.reason);
        if (this.readyState === 2) return;
        await new Promise((resolve) => (wake = resolve));
      }
    } finally {
      this.#taps.delete(tap);
    }
  }

  // Joining the others, and leaving them

  async #join() {
    const { pauseWhenHidden } = this.#options;
    if (this.#line || this.readyState === 2 || (pauseWhenHidden && page?.hidden)) return;
    const turn = ++this.#isJoining;
    const name = await this.#group().catch(() => undefined);
    // It may have been closed, or paused, in between.
    if (turn === this.#isJoining) this.#begin(name);
  }

  #begin(name) {
    const line = new Line(name, this.#tab, this.#base, this.#options, (message) => {
      if (line === this.#line) this.#take(message);
    });
    this.#line = line;
    if (name === undefined) this.#want(this.#id);
  }

  /** The name of those who share a connection; undefined for a stream of its own. */
  async #group() {
    const { shared = true, headers } = this.#options;
    const isAble = globalThis.navigator?.locks && globalThis.BroadcastChannel;
    if (!shared || !isAble || isPosted(this.#options)) return undefined;
    let key = "";
    if (headers) {
      const fields = [...new Headers(await ask(headers))].join("\n");
      const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(fields));
      key = new Uint8Array(digest).join("");
    }
    return ["sse", this.#base, this.withCredentials, shared, key].join(" ");
  }

  #pause() {
    const isOn = this.#line;
    this.#store();
    this.#leave();
    if (isOn) this.#enter("waiting", { reason: "The page is hidden" });
  }

  #leave() {
    this.#isJoining += 1;
    clearTimeout(this.#timer);
    this.#line?.close();
    this.#line = undefined;
  }

  /** @param {string} [id] where this tab stands, if the leader is to see to that */
  #want(id) {
    this.#line?.send({ t: "want", channels: this.channels, id });
  }

  #wake(isNow) {
    this.#line?.send({ t: "wake", isNow });
  }

  // What the leader says

  #take({ t, ...message }) {
    if (t === "hello") this.#want(this.#id);
    else if (t === "events") this.#takeEvents(message);
    else if (t === "state") this.#takeState(message);
    else if (message.tabs.includes(this.#tab)) {
      if (t === "refused") this.#refuse(message.detail);
      else {
        this.#leave();
        this.#begin();
      }
    }
  }

  #takeState({ state, detail, channels, id }) {
    if (!this.#id && id) this.#advance(id);
    if (state !== this.#state) this.#enter(state, detail);
    clearTimeout(this.#timer);
    if (state === "waiting") {
      // The leader's page may be hidden, and its timers late.
      this.#timer = setTimeout(() => this.#wake(false), detail.delay);
    } else if (state === "open") {
      this.#adding = this.#adding.filter(({ name, resolve }) => {
        return !channels.includes(name) || resolve();
      });
    }
  }

  #refuse(detail) {
    const adding = this.#adding;
    if (!adding.length) return this.#enter("refused", detail);
    this.#adding = [];
    for (const { name, isNew, reject } of adding) {
      if (isNew) this.#channels.delete(name);
      reject(new Error(detail.reason));
    }
    return this.#want(this.#id);
  }

  #takeEvents({ events, after, late }) {
    if (this.#seen.lacks(after)) {
      // A leader that began elsewhere is ahead of this tab: have it go back.
      if (!this.#hasAsked) this.#want(this.#id);
      this.#hasAsked = true;
      return;
    }
    this.#hasAsked = false;
    for (const event of events) {
      if (this.readyState === 2) return;
      this.#takeEvent(event, late);
    }
  }

  #takeEvent(event, late) {
    const { type, data, id, marked, channel } = event;
    const isOwn = isOurOwn(event);
    const isOthers = channel !== undefined && !this.#hears(channel);
    if (marked && !isOwn && this.#seen.has(id)) return;
    if (type === "stream-gap" && late && !late.includes(this.#tab)) return;
    if (marked && !(type === "stream-open" && this.#id)) this.#advance(id, isOthers);
    if (isOthers || data === undefined) return;
    if (type === "stream-error") this.#fault = parsed(data);
    if (type === "stream-gap") this.#tell("gap", parsed(data));
    const message = new MessageEvent(type, {
      data,
      lastEventId: id,
      origin: this.#base.origin,
    });
    message.channel = channel;
    this.dispatchEvent(message);
    if (!isOwn) this.#taps.forEach((tap) => tap(message));
  }

  #hears(channel) {
    return this.#channels.size
      ? this.#channels.has(channel)
      : channel === DEFAULT_CHANNEL;
  }

  /** What is behind an id is still to come. Another channel's own id helps nobody here. */
  #advance(id, isOthers) {
    this.#seen.add(id);
    if (!isOthers || this.#seen.has(id)) this.#id = id;
  }

  // What the page is told

  #enter(state, detail) {
    this.#state = state;
    if (state === "ended") detail = { ...detail, ...this.#fault };
    if (state === "refused") this.#fault = detail;
    if (this.readyState === 2) {
      this.#leave();
      this.#over.abort();
      this.#adding.forEach(({ reject }) => reject(new Error(`The stream is ${state}`)));
      this.#taps.forEach((tap) => tap());
    }
    this.#tell("statechange", { ...detail, state });
    if (state === "open") this.dispatchEvent(new Event("open"));
    else if (state !== "connecting" && state !== "closed") {
      this.#tell(state === "ended" ? "end" : state, detail);
      this.dispatchEvent(new Event("error"));
    }
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #follow(target, type, listener) {
    target?.addEventListener?.(type, listener, { signal: this.#over.signal });
  }

  // Across a reload of the page

  #store() {
    const { resume } = this.#options;
    try {
      if (resume && this.#id) sessionStorage.setItem(resume, this.#id);
    } catch {
      // The page must do without a storage.
    }
  }

  #stored() {
    try {
      return sessionStorage.getItem(this.#options.resume ?? "");
    } catch {
      return undefined;
    }
  }
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return { data };
  }
}
