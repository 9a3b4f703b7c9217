// What connects a tab with its leader: itself, or one of the tabs of the same address.
//
// Here lives how tabs find each other. A Web Lock chooses the leader: it goes to the
// next tab when its holder closes, crashes or is frozen. Each tab holds a lock of its
// own, by which the leader learns that the tab is gone. A BroadcastChannel carries what
// they say: a tab's { tab, channels, id, isNow }, a leader's messages as in leader.js,
// and an empty one, by which a new leader asks all what they want.

import { Leader } from "./leader.js";
import { GATHER } from "./limits.js";

export class Line {
  #tab;
  #receive;
  #leader;
  #channel;
  #over = new AbortController();

  /**
   * @param {string | undefined} name of the group; undefined for none
   * @param {string} tab the tab's own name, which no other has
   * @param {(message: object) => void} receive gets what the leader posts
   */
  constructor(name, tab, base, options, receive) {
    this.#tab = tab;
    this.#receive = receive;
    if (!name) {
      this.#leader = new Leader(base, options, receive, 1);
      return;
    }
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => {
      if (!data.tab) receive(data);
      else if (this.#leader?.hear(data)) {
        this.#lock(`${name} ${data.tab}`, () => this.#leader.leave(data.tab));
      }
    };
    const end = new Promise((resolve) => (this.#over.signal.onabort = resolve));
    // The leader asks for a tab's lock when it hears of the tab: it must be held by then.
    this.#lock(`${name} ${tab}`, () => {
      receive({});
      return end;
    });
    this.#lock(name, () => {
      this.#leader = new Leader(base, options, (said) => this.#tell(said), GATHER);
      this.#tell({});
      return end;
    });
  }

  /** Tell the leader something. */
  send(message) {
    message.tab = this.#tab;
    if (this.#leader) this.#leader.hear(message);
    else this.#channel.postMessage(message);
  }

  /** Leave. The locks that are let go tell the others: another tab leads, if this did. */
  close() {
    this.#over.abort();
    this.#leader?.close();
    this.#channel?.close();
  }

  /** Tell all tabs something, this one as well. */
  #tell(message) {
    this.#channel.postMessage(message);
    this.#receive(message);
  }

  /** Do something once a lock is free, unless we have left by then. */
  #lock(name, act) {
    const { signal } = this.#over;
    navigator.locks
      .request(name, { signal }, () => !signal.aborted && act())
      .catch(() => {}); // It was not free yet when we left.
  }
}
