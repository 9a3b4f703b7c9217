// Who holds the connection, for one tab or for all.
//
// Here lives what the tabs of one address want together: the union of their channels,
// from where the last of them stands. A tab that needs no other is its own leader.
//
// What a leader posts, to every tab:
//   { t: "state", state, detail, channels, id }   how the connection is, and where
//   { t: "events", events, after, late }          events, and the id before them;
//                                                 a gap is told to the tabs in `late`
//   { t: "refused", tabs, detail }                these must go without
//   { t: "alone", tabs }                          these must see for themselves

import { isBehind } from "./position.js";
import { Wire } from "./wire.js";

/** The channel of an address that names none. */
export const DEFAULT_CHANNEL = "sse";

export class Leader {
  #wire;
  #post;
  #gather;
  #tabs = new Map(); // Each tab's channels.
  #granted = []; // The channels that the server let us have last.
  #rewind; // The id that a tab needs, behind ours.
  #waiting = new Set(); // The tabs that wait for that.
  #late; // The tabs for which this connection went back; undefined where it did not.
  #timer;

  /**
   * @param {(message: object) => void} post tells all tabs
   * @param {number} gather milliseconds in which tabs say what they want
   */
  constructor(base, options, post, gather) {
    this.#post = post;
    this.#gather = gather;
    this.#wire = new Wire(base, options, {
      state: (state, detail) => this.#heardState(state, detail),
      events: (events, after) => this.#heardEvents(events, after),
    });
  }

  /** A tab joins, comes back, or wants other channels than before. */
  want({ tab, channels, id }) {
    this.#tabs.set(tab, channels);
    const wire = this.#wire;
    const position = this.#rewind ?? wire.position;
    if (id && (!position || isBehind(id, position))) {
      if (wire.state) {
        this.#rewind = id;
        this.#waiting.add(tab);
      } else {
        wire.position = id;
      }
    }
    if (wire.state) this.#tellState(wire.state, wire.detail);
    this.#plan();
  }

  leave(tab) {
    if (this.#tabs.delete(tab)) this.#plan();
  }

  wake(isNow) {
    this.#wire.wake(isNow);
  }

  close() {
    clearTimeout(this.#timer);
    this.#wire.close();
  }

  #plan() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#reconsider(), this.#gather);
  }

  #reconsider() {
    const wire = this.#wire;
    const wanted = this.#union();
    const isSame = `${wanted}` === `${wire.channels}`;
    if (!this.#tabs.size || (wire.state && isSame && this.#rewind === undefined)) return;
    this.#late = undefined;
    if (this.#rewind !== undefined) {
      wire.position = this.#rewind;
      this.#late = [...this.#waiting];
      this.#waiting.clear();
      this.#rewind = undefined;
    }
    wire.open(wanted);
  }

  #union() {
    const sets = [...this.#tabs.values()];
    const names = new Set(sets.flat());
    if (names.size && sets.some((channels) => !channels.length)) {
      names.add(DEFAULT_CHANNEL);
    }
    return [...names].sort();
  }

  #heardEvents(events, after) {
    const { channels } = this.#wire;
    for (const event of events) {
      // Our own events, and those of an address that names no channels, are for all.
      if (!channels.length) event.channel = undefined;
      else if (channels.length === 1 && !isOurOwn(event)) event.channel = channels[0];
    }
    this.#post({ t: "events", events, after, late: this.#late });
  }

  #heardState(state, detail) {
    if (state === "open") this.#granted = this.#wire.channels;
    if (state === "refused") this.#share(detail);
    else this.#tellState(state, detail);
  }

  #tellState(state, detail) {
    const { channels, position: id } = this.#wire;
    this.#post({ t: "state", state, detail, channels, id });
  }

  /** The union was refused: find out whose channels are to blame. */
  #share(detail) {
    const granted = this.#granted;
    this.#granted = [];
    const all = [...this.#tabs.keys()];
    const isOne = new Set([...this.#tabs.values()].map(String)).size < 2;
    const beyond = all.filter((tab) =>
      this.#tabs.get(tab).some((name) => !granted.includes(name)),
    );
    const isTheirs = isOne || (beyond.length && beyond.length < all.length);
    const tabs = isOne || !isTheirs ? all : beyond;
    this.#wire.close();
    tabs.forEach((tab) => this.#tabs.delete(tab));
    this.#plan();
    this.#post({ t: isTheirs ? "refused" : "alone", tabs, detail });
  }
}

export const isOurOwn = ({ type }) => type.startsWith("stream-");
