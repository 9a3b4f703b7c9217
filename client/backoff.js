// How long a client waits before it comes back. Nothing here waits.

import { LONGEST } from "./limits.js";

/**
 * Exponential backoff with full jitter: the clients of a server that restarts come
 * back one after the other.
 *
 * @param {number} retry milliseconds that the server asked for
 * @param {number} attempt how many attempts have failed since the last block
 */
export function backoff(retry, attempt) {
  const doubled = Math.min(LONGEST, Math.max(retry, 1) * 2 ** attempt);
  return Math.random() * Math.max(retry, doubled);
}

/**
 * @param {string | null} value of the header Retry-After: seconds, or a date
 * @returns {number | undefined} milliseconds from now, if it says any
 */
export function retryAfter(value) {
  const wait = /^\d+$/.test(value) ? value * 1000 : Date.parse(value) - Date.now();
  return wait > 0 ? wait : undefined;
}
