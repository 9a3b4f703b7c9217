// connect(): an event stream that outlives cuts, restarts and its tab. See sse.d.ts.
//
// Here lives what a page sees: events and states, as EventSource has them and beyond.
// How the connection is kept stands in wire.js, who holds it in leader.js and line.js.

import { DEFAULT_CHANNEL } from "./leader.js";
import { Line } from "./line.js";
import { Seen } from "./position.js";
import { bytesOf, fieldsOf, isPosted } from "./wire.js";

const page = globalThis.document;

/** How tabs speak to each other. A version that speaks otherwise has another name for it. */
const MANNER = "sse 1";

/** The page's events after which a stream joins, leaves, or looks again. */
const PAGE_EVENTS = "online pagehide pageshow freeze resume visibilitychange".split(" ");

const READY = { connecting: 0, waiting: 0, open: 1 };

export const connect = (url, options = {}) => new Stream(url, options);

class Stream extends EventTarget {
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
  #adding = []; // The channels that are asked for, each with its promise.
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
      this.#stored((key, storage) => storage.getItem(key)) ??
      "";
    this.#seen.add(this.#id);
    base.searchParams.delete("channel");
    base.searchParams.delete("last_event_id");
    this.#base = base;
    for (const type of ["open", "message", "error"]) {
      this.addEventListener(type, (event) => this[`on${type}`]?.(event));
    }
    const listening = { capture: true, signal: this.#over.signal };
    for (const type of PAGE_EVENTS) {
      // Those of the document pass the window, which hears them first.
      addEventListener(type, (event) => this.#notice(event), listening);
    }
    options.signal?.addEventListener("abort", () => this.close(), listening);
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

  json(type, listener, options) {
    this.addEventListener(
      type,
      (event) => listener(JSON.parse(event.data), event),
      options,
    );
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
    this.#channels.delete(name);
    if (this.#channels.size) this.#want();
    else this.close();
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

  /** Something has happened to the page. One that is kept, or frozen, hears nothing. */
  #notice({ type, target }) {
    if (target.tagName) return; // An element's own, of the same name.
    if (this.#isToPause() || type === "pagehide" || type === "freeze") this.#pause();
    // A page that is left is hidden behind its pagehide, and must not join again then.
    else if (!(page?.hidden && type === "visibilitychange")) {
      this.#join();
      this.#want(undefined, !page?.hidden || type === "online");
    }
  }

  #isToPause() {
    return this.#options.pauseWhenHidden && page?.hidden;
  }

  async #join() {
    if (this.#line || this.readyState === 2 || this.#isToPause()) return;
    const turn = ++this.#isJoining;
    const name = await this.#group().catch(() => undefined);
    // It can have been closed, or paused, in between.
    if (turn === this.#isJoining) this.#begin(name);
  }

  #begin(name) {
    const line = new Line(name, this.#tab, this.#base, this.#options, (message) => {
      if (line === this.#line) this.#take(message);
    });
    this.#line = line;
    if (!name) this.#want(this.#id);
  }

  /** The name of those who share a connection; undefined for a stream of its own. */
  async #group() {
    const { shared = true, headers } = this.#options;
    // (A page that is not from a secure place has no locks, and shares nothing.)
    if (!shared || !navigator.locks || isPosted(this.#options)) return undefined;
    const fields = [...new Headers(await fieldsOf(headers))].join("\n");
    const digest = await crypto.subtle.digest("SHA-256", bytesOf(fields));
    const key = new Uint8Array(digest);
    return [MANNER, this.#base, this.withCredentials, shared, key].join(" ");
  }

  #pause() {
    const isOn = this.#line;
    this.#stored((key, storage) => this.#id && storage.setItem(key, this.#id));
    this.#leave();
    if (isOn) this.#enter("waiting", { reason: "The page is hidden" });
  }

  #leave() {
    ++this.#isJoining;
    clearTimeout(this.#timer);
    this.#line?.close();
    this.#line = undefined;
  }

  /**
   * @param {string} [id] where this tab stands, if the leader is to see to that
   * @param {boolean} [isNow] a connection that waits is to wait no longer
   */
  #want(id, isNow) {
    this.#line?.send({ channels: this.channels, id, isNow });
  }

  // What the leader says

  #take(message) {
    if (message.events) this.#takeEvents(message);
    else if (message.state) this.#takeState(message);
    else if (!message.tabs) this.#want(this.#id);
    else if (message.tabs.includes(this.#tab)) {
      this.#leave();
      if (message.refusal) this.#refuse(message.refusal);
      else this.#begin();
    }
  }

  #takeState({ state, detail, channels, id }) {
    if (!this.#id && id) this.#advance(id);
    if (state !== this.#state) this.#enter(state, detail);
    clearTimeout(this.#timer);
    if (state === "waiting") {
      // The leader's page can be hidden, and its timers late.
      this.#timer = setTimeout(() => this.#want(), detail.delay);
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
    // It shares a connection again, if it had to see for itself.
    return this.#join();
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
    const isOwn = type.startsWith("stream-"); // The server's own.
    const heard = this.#channels;
    const isHeard = heard.size ? heard.has(channel) : channel === DEFAULT_CHANNEL;
    const isOthers = channel && !isHeard;
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

  /**
   * Events behind an id are still to come. An application's own id, on a channel that
   * this tab does not hear, is no place to resume from.
   */
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
      this.#adding.forEach(({ reject }) => reject(new Error(`The stream is ${this.#state}`)));
      this.#taps.forEach((tap) => tap());
    }
    this.#tell("statechange", { ...detail, state });
    if (state === "connecting" || state === "closed") return;
    this.#tell(state === "ended" ? "end" : state, detail);
    if (state !== "open") this.#tell("error");
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // Across a reload of the page

  /** @param {(key: string, storage: Storage) => T} access @returns {T | undefined} */
  #stored(access) {
    const { resume } = this.#options;
    try {
      return resume && access(resume, sessionStorage);
    } catch {
      return undefined; // The page must do without a storage.
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
