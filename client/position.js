// Ids: which of two stands before the other. Only ids that the server numbers itself
// can be compared; an application's own id="…" says nothing of its place.

const NUMBERED = /^(\w{16})-(\d+)/;

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
    // (Of another form, there is no number, and none that is higher.)
    if (!this.has(id)) this.#highest.set(epoch, number);
  }
}
