/** Types of sse.js: an event stream that outlives cuts, restarts and its tab. */

export type StreamState =
  | "connecting" // a request is under way
  | "open" // events arrive as they are published
  | "waiting" // cut; the next request is due, see WaitingDetail
  | "refused" // the server does not serve this client: for good
  | "ended" // the channels are closed, or the run is over: for good
  | "closed"; // close() was called

export interface StreamOptions {
  /** One connection for all tabs (the default); false: this page's own. A text sets
   * tabs apart that must not share, such as those of another user. */
  shared?: boolean | string;
  /** Where the page's data stands: what was published behind it comes first. */
  lastEventId?: string;
  /** A key of sessionStorage: a page that is reloaded goes on where it was, unless it
   * says where its data stands. */
  resume?: string;
  /** Headers of each request; a function is asked anew for each. */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  method?: string;
  /** Sent once. A stream that is cut goes on at the answer's Content-Location or
   * Location; without one it is refused. */
  body?: BodyInit;
  /** No connection while the page is hidden. */
  pauseWhenHidden?: boolean;
  /** Cookies for another origin, too. */
  withCredentials?: boolean;
  /** Closes the stream. */
  signal?: AbortSignal;
}

export interface WaitingDetail {
  /** Milliseconds until the next request. A page that is kept for later has none. */
  delay?: number;
  /** Of the answer, where there was one that says to come back. */
  status?: number;
  reason?: string;
}

export interface RefusedDetail {
  /** Of the answer, where there was one. */
  status?: number;
  reason?: string;
}

export interface EndDetail {
  /** Why a generator or a run has failed, if it has. */
  reason?: string;
}

export interface GapDetail {
  /** The id that the client came with. */
  since: string;
  /** The channels that have lost events. */
  channels: string[];
}

export interface StreamEvent extends MessageEvent<string> {
  /** Which channel it is of, where the address names channels. */
  readonly channel?: string;
}

export interface StreamEventMap {
  open: Event;
  error: Event;
  message: StreamEvent;
  statechange: CustomEvent<{ state: StreamState } & WaitingDetail>;
  waiting: CustomEvent<WaitingDetail>;
  refused: CustomEvent<RefusedDetail>;
  end: CustomEvent<EndDetail>;
  gap: CustomEvent<GapDetail>;
}

export interface Stream extends EventTarget, AsyncIterable<StreamEvent> {
  readonly url: string;
  readonly withCredentials: boolean;
  /** EventSource.CONNECTING, .OPEN or .CLOSED. */
  readonly readyState: 0 | 1 | 2;
  readonly state: StreamState;
  readonly lastEventId: string;
  readonly channels: string[];
  onopen: ((this: Stream, event: Event) => unknown) | null;
  onmessage: ((this: Stream, event: StreamEvent) => unknown) | null;
  onerror: ((this: Stream, event: Event) => unknown) | null;

  addEventListener<K extends keyof StreamEventMap>(
    type: K,
    listener: (this: Stream, event: StreamEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: (this: Stream, event: StreamEvent) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;

  /** Listen to events of a type, their data parsed. The options are those of
   * addEventListener. */
  json<T = unknown>(
    type: string,
    listener: (data: T, event: StreamEvent) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  /** Listen to one more channel. Rejected where the server refuses it. */
  add(channel: string): Promise<void>;
  /** Listen to it no longer. The stream closes with its last channel. */
  drop(channel: string): Promise<void>;
  close(): void;
  /** All published events, of any type, from the first turn of the loop on. It ends with
   * the stream, and throws where that was refused. */
  [Symbol.asyncIterator](): AsyncIterableIterator<StreamEvent>;
}

export function connect(url: string | URL, options?: StreamOptions): Stream;
