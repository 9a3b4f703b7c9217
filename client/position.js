// Ids: which of two stands before the other. Only ids that the server numbers itself
// can be compared; an application's own id="…" says nothing of its place.

const NUMBERED = /^([0-9a-f]{16})-(\d+)/;

/** Epochs that are remembered: a server without a store draws one at each start. */
const EPOCHS = 16;

/** @returns {[epoch?: string, number: number]} NaN for an id of another form */
function numbered(id) {
  const [, epoch, number] = NUMBERED.exec(id) ?? [];
  return [epoch, +number];
}

/** Whether a client at `id` misses something that a client at `other` has. */
export function isBehind(id, other) {
  const [epoch, number] = numbered(id);
  const [otherEpoch, otherNumber] = numbered(other);
  return epoch && epoch === otherEpoch ? number < otherNumber : id !== other;
}

/** What has been seen: of each epoch, the highest number. Events come in their order. */
export class Seen {
  #highest = new Map();

  /** Whether the event of this id was there before. */
  has(id) {
    const [epoch, number] = numbered(id);
    return this.#highest.get(epoch) >= number;
  }

  /** Whether events before this id are missing, as far as can be told. */
  lacks(id) {
    const [epoch, number] = numbered(id);
    return this.#highest.get(epoch) < number;
  }

  add(id) {
    const [epoch, number] = numbered(id);
    if (!epoch || this.has(id)) return;
    this.#highest.delete(epoch); // The latest stands last.
    this.#highest.set(epoch, number);
    if (this.#highest.size > EPOCHS) {
      this.#highest.delete(this.#highest.keys().next().value);
    }
  }
}
