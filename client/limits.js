// How long things take, and how often they are done. Nothing here does anything: the
// build puts the numbers where they are used, which an own module lets it do.

/** Milliseconds that a client waits at most, unless its server asks for more. */
export const LONGEST = 30_000;

/** Milliseconds to wait where the server does not say how long. */
export const RETRY = 3000;

/** Seconds between a server's signs of life, until it says how many. */
export const HEARTBEAT = 15;

/** Milliseconds without a byte that are a cut, for each second of a heartbeat. */
export const SILENCE = 2500;

/** Milliseconds that a timer can take: a little less than 2 ** 31. */
export const LONGEST_TIMER = 2e9;

/** Turns in which a leader gathers what the tabs want: some hundredths of a second. */
export const GATHER = 100;
