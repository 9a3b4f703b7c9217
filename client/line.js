// What connects a tab with its leader: itself, or one of the tabs of the same address.
//
// Here lives how tabs find each other. A Web Lock chooses the leader: it goes to the
// next tab when its holder closes, crashes or is frozen. Each tab holds a lock of its
// own, by which the leader learns that the tab is gone. A BroadcastChannel carries what
// they say: a tab's { t: "want" | "leave" | "wake", tab, … }, a leader's as in leader.js,
// and { t: "hello" }, by which a new leader asks all what they want.

import { Leader } from "./leader.js";

/** Milliseconds in which a leader gathers what the tabs want. */
const GATHER = 30;

export class Line {
  #leader;
  #channel;
  #receive;
  #tab;
  #over = new AbortController();

  /**
   * @param {string | undefined} name of the group; undefined for none
   * @param {string} tab the tab's own name, which no other has
   * @param {(message: object) => void} receive gets what the leader posts, and "hello"
   */
  constructor(name, tab, base, options, receive) {
    this.#tab = tab;
    this.#receive = receive;
    if (name === undefined) {
      this.#leader = new Leader(base, options, receive, 0);
      return;
    }
    const channel = (this.#channel = new BroadcastChannel(name));
    channel.onmessage = ({ data }) => this.#take(data, name);
    // The leader asks for a tab's lock when it hears of the tab: it must be held by then.
    this.#hold(`${name} ${tab}`, () => receive({ t: "hello" }));
    this.#hold(name, () => {
      this.#leader = new Leader(base, options, (m) => this.#tell(m), GATHER);
      this.#tell({ t: "hello" });
    });
  }

  /** Tell the leader something. */
  send(message) {
    const sent = { ...message, tab: this.#tab };
    if (this.#leader) this.#obey(sent);
    else this.#channel.postMessage(sent);
  }

  /** Leave: another tab leads, if this one did. */
  close() {
    if (this.#over.signal.aborted) return;
    if (!this.#leader) this.send({ t: "leave" });
    this.#over.abort();
    this.#leader?.close();
    this.#channel?.close();
  }

  /** Hold a lock, once it is free, until the end. */
  #hold(name, held) {
    const { signal } = this.#over;
    navigator.locks
      .request(name, { signal }, () => {
        if (signal.aborted) return undefined;
        held();
        return new Promise((resolve) => signal.addEventListener("abort", resolve));
      })
      .catch(() => {}); // It was not ours yet when we left.
  }

  #tell(message) {
    this.#channel.postMessage(message);
    this.#receive(message);
  }

  #take(message, name) {
    if (!message.tab) return this.#receive(message);
    if (!this.#leader) return undefined;
    if (message.t === "want") this.#watch(name, message.tab);
    return this.#obey(message);
  }

  #obey(message) {
    if (message.t === "want") this.#leader.want(message);
    else if (message.t === "wake") this.#leader.wake(message.isNow);
    else this.#leader.leave(message.tab);
  }

  /** Learn of it when a tab is gone without a word. */
  #watch(name, tab) {
    const { signal } = this.#over;
    navigator.locks
      .request(`${name} ${tab}`, { signal }, () => this.#leader.leave(tab))
      .catch(() => {});
  }
}
