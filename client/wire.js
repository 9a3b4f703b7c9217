// One connection to the server, made anew whenever it is cut.
//
// Here lives when to connect, to wait and to give up, and what a silence means. A wire
// knows where it stands (`position`) and no listener: the leader hears from it.

import { backoff, retryAfter } from "./backoff.js";
import { HEARTBEAT, LONGEST_TIMER, RETRY, SILENCE } from "./limits.js";
import { parser } from "./parser.js";

/** Statuses of a server that has not done what it was asked to do. */
const NOT_DONE = [408, 429, 503];

/**
 * How the first block of a stream says how often the server gives a sign of life, and
 * that a newcomer begins at the present: a tab that shares the stream later misses nothing.
 */
const OPENING_COMMENT = /^heartbeat (\S+)(.*)/;

export class Wire {
  /** The channels that are asked for; none where the address says all. */
  channels = [];
  /** The id to resume from. */
  position = "";
  /** Whether a newcomer gets a stream from its beginning; undefined until it is known. */
  isOwn;

  #base;
  #options;
  #tell;
  #give;
  #sends; // The next request carries the body.
  #retry = RETRY;
  #attempts = 0;
  #abort;
  #timer;
  #due; // When the wait ends, where there is one.
  #soonest; // When the wait can end early: after Retry-After, only at its end.
  #heardAt;
  #patience; // Milliseconds without a byte that are a cut; 0 where nobody can tell.

  /**
   * @param {URL} base the address without its channels
   * @param {(state: string, detail?: object) => void} tell
   * @param {(events: object[], after: string) => void} give
   */
  constructor(base, options, tell, give) {
    this.#base = base;
    this.#options = options;
    this.#tell = tell;
    this.#give = give;
    this.#sends = isPosted(options);
  }

  /** Connect now, whatever there was before. */
  open(channels = this.channels) {
    this.close();
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

  /**
   * Look whether it is time to do something: timers of hidden pages are late.
   *
   * @param {boolean} isNow the page is visible again, or online: do not wait longer
   */
  wake(isNow) {
    if (this.#abort) this.#watch();
    else if (Date.now() >= (isNow ? this.#soonest : this.#due)) this.open();
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
      // The address is where redirects have led to.
      const reason = `No event stream: ${status} ${type} from ${response.url}`;
      console.error(reason);
      return { state: "refused", status, reason };
    }
    return this.#read(response, signal);
  }

  /**
   * Ask for the stream; where that is not allowed, once more with fresh headers.
   *
   * @param {number[]} refusals the statuses that have it ask once more
   */
  async #ask(signal, refusals = [401, 403]) {
    const { headers, method = "POST", body, withCredentials } = this.#options;
    const fields = new Headers(await fieldsOf(headers));
    fields.set("Accept", "text/event-stream");
    const url = new URL(this.#base);
    this.channels.forEach((name) => url.searchParams.append("channel", name));
    if (this.position) {
      // Another origin would have to allow the header.
      const isOurs = url.origin === location.origin;
      // A header takes bytes, each as a character.
      const asHeader = String.fromCharCode(...bytesOf(this.position));
      if (isOurs) fields.set("Last-Event-ID", asHeader);
      else url.searchParams.set("last_event_id", this.position);
    }
    const response = await fetch(url, {
      ...(this.#sends && { method, body }),
      headers: fields,
      signal,
      cache: "no-store",
      credentials: withCredentials ? "include" : "same-origin",
    });
    const isToRepeat = refusals.includes(response.status) && typeof headers === "function";
    return isToRepeat ? this.#ask(signal, []) : response;
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
    let hasEnded, isOpen;
    const feed = parser(this.position);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let piece; !hasEnded && !(piece = await reader.read()).done; ) {
      if (signal.aborted) return;
      this.#heardAt = Date.now();
      const after = this.position;
      const blocks = feed(piece.value);
      for (const { id, type, data, marked, retry, comment } of blocks) {
        this.#attempts = 0;
        // A stream without a position could not be connected anew without a loss: it is
        // not open yet. A block of neither is a proxy's, which says when to come back.
        if (!isOpen && (data ?? comment) !== undefined) {
          isOpen = true;
          this.#tell("open");
        }
        // What a stream begins with repeats the id that it was asked for.
        if (marked && !(type === "stream-open" && after)) this.position = id;
        hasEnded ||= type === "stream-end";
        this.#retry = retry ?? this.#retry;
        const [, heartbeat, shareable] = OPENING_COMMENT.exec(comment) ?? [];
        if (heartbeat) this.#suspect(heartbeat);
        if (data !== undefined) this.isOwn ??= !shareable;
      }
      if (blocks.length) this.#give(blocks, after);
    }
    return hasEnded || isWhole ? { state: "ended" } : { reason: "The stream is over" };
  }

  #settle(outcome) {
    this.close();
    // A body is sent once: whatever it began must not begin twice.
    if (this.#sends && !NOT_DONE.includes(outcome.status)) outcome.state ??= "refused";
    const { state, after } = outcome;
    if (state) return this.#tell(state, outcome);
    const delay = after ?? backoff(this.#retry, this.#attempts++);
    this.#due = Date.now() + delay;
    this.#soonest = after ? this.#due : 0;
    this.#later(delay, () => this.open());
    this.#tell("waiting", { ...outcome, delay });
  }

  /** From now on, so many seconds are a heartbeat. */
  #suspect(heartbeat) {
    this.#heardAt = Date.now();
    this.#patience = heartbeat * SILENCE;
    this.#watch();
  }

  #watch() {
    clearTimeout(this.#timer);
    if (!this.#patience) return;
    const now = Date.now();
    // A clock that was set back would have us trust a silence for as long.
    this.#heardAt = Math.min(this.#heardAt, now);
    const left = this.#heardAt + this.#patience - now;
    if (left > 0) this.#later(left, () => this.#watch());
    else this.#settle({ reason: "The stream is silent" });
  }

  #later(milliseconds, act) {
    this.#timer = setTimeout(act, Math.min(milliseconds, LONGEST_TIMER));
  }

  /** Let go of everything. Nothing is told of that. */
  close() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = this.#due = this.#soonest = undefined;
  }
}

/** Options give headers, or a function that is asked for them. */
export const fieldsOf = (headers) => (typeof headers === "function" ? headers() : headers);

/** Whether a stream is one that a body begins: nobody else's is the same. */
export const isPosted = ({ method = "GET", body }) => method !== "GET" || body;

export const bytesOf = (text) => new TextEncoder().encode(text);
