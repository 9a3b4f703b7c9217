// One connection to the server, made anew whenever it is cut.
//
// Here lives when to connect, to wait and to give up, and what a silence means. A wire
// knows where it stands (`position`) and no listener: the leader hears from it.

import { backoff, retryAfter } from "./backoff.js";
import { parser } from "./parser.js";

/** Milliseconds to wait where the server does not say how long. */
const RETRY = 3000;

/** Seconds between a server's signs of life, until it says how many. */
const HEARTBEAT = 15;

/** Heartbeats without a byte that are a cut. */
const SILENT_HEARTBEATS = 2.5;

/** Milliseconds that a timer can take. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** Statuses of a server that has not done what it was asked to do. */
const NOT_DONE = [408, 429, 503];

/** How the first block of a stream says how often the server gives a sign of life. */
const HEARTBEAT_COMMENT = /^heartbeat ([\d.]+)$/;

export class Wire {
  /** The channels that are asked for; none where the address says all. */
  channels = [];
  /** The id to resume from. */
  position = "";
  state;
  detail;

  #base;
  #options;
  #hooks;
  #sends; // The next request carries the body.
  #retry = RETRY;
  #attempts = 0;
  #abort;
  #timer;
  #due; // When the wait ends.
  #isBound; // Retry-After: the wait is not cut short.
  #heardAt;
  #patience; // Milliseconds without a byte that are a cut; 0 where nobody can tell.

  /**
   * @param {URL} base the address without its channels
   * @param {{ state: Function, events: Function }} hooks
   */
  constructor(base, options, hooks) {
    this.#base = base;
    this.#options = options;
    this.#hooks = hooks;
    this.#sends = isPosted(options);
  }

  /** Connect now, whatever there was before. */
  open(channels = this.channels) {
    this.#stop();
    this.channels = channels;
    const abort = (this.#abort = new AbortController());
    // A body is worked on before its answer begins, which takes as long as it takes.
    this.#suspect(this.#sends ? 0 : HEARTBEAT);
    this.#tell("connecting");
    this.#attempt(abort.signal)
      .catch((error) => ({ reason: `${error}` }))
      .then((outcome) => {
        if (abort === this.#abort) this.#settle(outcome);
      });
  }

  /** Let go of everything. Nothing is told of that. */
  close() {
    this.#stop();
    this.state = undefined;
  }

  /**
   * Look whether it is time to do something: timers of hidden pages are late.
   *
   * @param {boolean} isNow the page is visible again, or online: do not wait longer
   */
  wake(isNow) {
    if (this.state === "waiting") {
      if ((isNow && !this.#isBound) || Date.now() >= this.#due) this.open();
    } else if (this.#abort) {
      this.#watch();
    }
  }

  async #attempt(signal) {
    const response = await this.#ask(signal);
    const { status } = response;
    const type = response.headers.get("Content-Type");
    if (status === 204) return { state: "ended", status };
    if (status > 499 || NOT_DONE.includes(status)) {
      return { status, after: retryAfter(response.headers.get("Retry-After")) };
    }
    if (status !== 200 || !/^text\/event-stream\s*(;|$)/i.test(type)) {
      const after = response.redirected ? " after a redirect" : "";
      const reason = `No event stream: ${status} ${type} from ${response.url}${after}`;
      console.error(reason);
      return { state: "refused", status, reason };
    }
    return this.#read(response, signal);
  }

  /** Ask for the stream; where that is not allowed, once more with fresh headers. */
  async #ask(signal) {
    const { headers, method, body, withCredentials } = this.#options;
    for (let isSecond = false; ; isSecond = true) {
      const fields = new Headers(await ask(headers));
      if (!fields.has("Accept")) fields.set("Accept", "text/event-stream");
      const url = new URL(this.#base);
      this.channels.forEach((name) => url.searchParams.append("channel", name));
      if (this.position) {
        if (url.origin === location.origin) {
          fields.set("Last-Event-ID", asHeader(this.position));
        } else {
          // Another origin would have to allow the header.
          url.searchParams.set("last_event_id", this.position);
        }
      }
      const response = await fetch(url, {
        ...(this.#sends && { method: method ?? "POST", body }),
        headers: fields,
        signal,
        cache: "no-store",
        credentials: withCredentials ? "include" : "same-origin",
      });
      const isRefused = response.status === 401 || response.status === 403;
      if (!isRefused || isSecond || typeof headers !== "function") return response;
      response.body?.cancel();
    }
  }

  async #read(response, signal) {
    const place =
      response.headers.get("Content-Location") ?? response.headers.get("Location");
    const isWhole = this.#sends && !place;
    if (this.#sends && place) {
      // What was begun by the body goes on at an address of its own.
      this.#base = new URL(place, response.url);
      this.#sends = false;
      this.channels = [];
    }
    this.#suspect(0);
    this.#tell("open");
    let blocks = [];
    let hasEnded = false;
    const feed = parser(this.position, {
      onBlock: (block) => blocks.push(block),
      onRetry: (milliseconds) => (this.#retry = milliseconds),
      onComment: (text) => {
        const match = HEARTBEAT_COMMENT.exec(text);
        if (match) this.#suspect(+match[1]);
      },
    });
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (let piece; !hasEnded && !(piece = await reader.read()).done; ) {
      if (signal.aborted) return;
      this.#heardAt = Date.now();
      feed(decoder.decode(piece.value, { stream: true }));
      if (blocks.length) {
        const after = this.position;
        const taken = blocks;
        blocks = [];
        this.#attempts = 0;
        for (const { id, type, marked } of taken) {
          // What a stream begins with repeats the id that it was asked for.
          if (marked && !(type === "stream-open" && after)) this.position = id;
          hasEnded ||= type === "stream-end";
        }
        this.#hooks.events(taken, after);
      }
    }
    return hasEnded || isWhole ? { state: "ended" } : { reason: "The stream ended" };
  }

  #settle(outcome) {
    this.#stop();
    // A body is sent once: whatever it began must not begin twice.
    if (this.#sends && !NOT_DONE.includes(outcome.status)) outcome.state ??= "refused";
    const { state, after } = outcome;
    if (state) return this.#tell(state, outcome);
    const delay = Math.min(
      after ?? backoff(this.#retry, this.#attempts++),
      LONGEST_TIMER,
    );
    this.#isBound = after !== undefined;
    this.#due = Date.now() + delay;
    this.#timer = setTimeout(() => this.open(), delay);
    this.#tell("waiting", { ...outcome, delay });
  }

  /** From now on, so many seconds are a heartbeat. */
  #suspect(heartbeat) {
    this.#heardAt = Date.now();
    this.#patience = heartbeat * SILENT_HEARTBEATS * 1000;
    this.#watch();
  }

  #watch() {
    clearTimeout(this.#timer);
    if (!this.#patience) return;
    const left = this.#heardAt + this.#patience - Date.now();
    if (left > 0) {
      this.#timer = setTimeout(() => this.#watch(), Math.min(left, LONGEST_TIMER));
    } else {
      this.#settle({ reason: "The server is silent" });
    }
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = undefined;
  }

  #tell(state, detail = {}) {
    this.state = state;
    this.detail = detail;
    this.#hooks.state(state, detail);
  }
}

export const ask = (headers) => (typeof headers === "function" ? headers() : headers);

/** Whether a stream is one that a body begins: nobody else's is the same. */
export const isPosted = ({ method = "GET", body }) =>
  method !== "GET" || body !== undefined;

/** A header takes bytes, each as a character: here, those of UTF-8. */
const asHeader = (text) => String.fromCharCode(...new TextEncoder().encode(text));
