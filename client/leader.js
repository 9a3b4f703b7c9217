// Who holds the connection, for one tab or for all.
//
// Here lives what the tabs of one address want together: the union of their channels,
// from where the last of them stands. A tab that needs no other is its own leader.
//
// What a leader posts, to every tab:
//   { state, detail, channels, id }   how the connection is, and where
//   { events, after, late }           events, and the id before them; a gap is told to
//                                     the tabs in `late`, or to all where that is absent
//   { tabs, refusal }                 these are refused; without a refusal, they must
//                                     connect for themselves: to see whether they are
//                                     refused, or to get a stream from its beginning

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
  #said; // The state of the connection; undefined where there is none.
  #late; // The tabs for which this connection went back; undefined where it did not.
  #newest; // The last plan: it stands in for those before.

  /**
   * @param {(message: object) => void} post tells all tabs
   * @param {number} gather turns in which tabs say what they want
   */
  constructor(base, options, post, gather) {
    this.#post = post;
    this.#gather = gather;
    this.#wire = new Wire(
      base,
      options,
      (state, detail = {}) => this.#takeState(state, detail),
      (events, after) => this.#takeEvents(events, after),
    );
  }

  /**
   * A tab joins, comes back, wants other channels than before, or has us look whether
   * it is time to connect; at once, where the page is visible again, or online.
   *
   * @returns {boolean} whether the tab is a new one
   */
  hear({ tab, channels, id, isNow }) {
    const isNew = !this.#tabs.has(tab);
    if (isNew && this.#wire.isOwn) return this.#dismiss([tab]);
    this.#tabs.set(tab, channels);
    const position = this.#rewind ?? this.#wire.position;
    if (id && (!position || isBehind(id, position))) {
      if (this.#said) {
        this.#rewind = id;
        this.#waiting.add(tab);
      } else {
        this.#wire.position = id;
      }
    }
    this.#wire.wake(isNow);
    this.#tellState();
    this.#plan();
    return isNew;
  }

  leave(tab) {
    if (this.#tabs.delete(tab)) this.#plan();
  }

  close() {
    this.#tabs.clear(); // Whatever is planned is for nobody.
    this.#wire.close();
  }

  /** A turn is one question to the browser: timers of hidden pages are a second late. */
  async #plan() {
    const plan = (this.#newest = {});
    for (let turns = this.#gather; turns--; ) await navigator.locks?.query();
    if (plan === this.#newest) this.#reconsider();
  }

  #reconsider() {
    const wire = this.#wire;
    const wanted = this.#union();
    const isSame = this.#said && `${wanted}` === `${wire.channels}`;
    if (!this.#tabs.size || (isSame && !this.#rewind)) return;
    this.#late = this.#rewind && [...this.#waiting];
    this.#waiting.clear();
    wire.position = this.#rewind ?? wire.position;
    this.#rewind = undefined;
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

  #takeEvents(events, after) {
    const { channels } = this.#wire;
    // The server names channels where there are several; an address that names none is
    // of its view's own, and its events are for all.
    if (channels.length < 2) events.forEach((event) => (event.channel = channels[0]));
    this.#post({ events, after, late: this.#late });
  }

  #takeState(state, detail) {
    this.#said = { state, detail };
    if (state === "open") this.#granted = this.#wire.channels;
    if (state === "refused") this.#share(detail);
    else this.#tellState();
  }

  #tellState() {
    const { channels, position: id } = this.#wire;
    if (this.#said) this.#post({ ...this.#said, channels, id });
  }

  /**
   * The union was refused. Tabs that all want the same are refused; otherwise those that
   * want what was never granted see for themselves.
   */
  #share(refusal) {
    const all = [...this.#tabs.keys()];
    const isOne = new Set([...this.#tabs.values()].map(String)).size < 2;
    const beyond = all.filter((tab) =>
      this.#tabs.get(tab).some((name) => !this.#granted.includes(name)),
    );
    this.#granted = [];
    this.#said = undefined;
    this.#wire.close();
    this.#plan();
    this.#dismiss(isOne || !beyond.length ? all : beyond, isOne && refusal);
  }

  #dismiss(tabs, refusal) {
    tabs.forEach((tab) => this.#tabs.delete(tab));
    this.#post({ tabs, refusal });
  }
}
