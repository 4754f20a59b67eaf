/**
 * Calls `callback` whenever what the page shows may be older than what the service knows.
 *
 * ```js
 * import { onRefresh } from 'sse-push-client'
 *
 * const stop = onRefresh('/events?merchant_id=42', async () => {
 *   const response = await fetch('/seats')
 *   if (!response.ok) throw new Error(`seats: ${response.status}`) // called again, later
 *   show(await response.json())
 * })
 * ```
 *
 * **When it calls.** At the first connection, so that it may serve as the page's first load; at
 * each change; and after a gap in which something may have been missed. The service decides
 * what was missed by comparing IDs: a reconnection that missed nothing makes no call.
 *
 * **One call at a time.** If `callback` returns a promise, the next call waits until it settles.
 * Refreshes that arrive meanwhile become exactly one call, merged. A promise that never settles
 * therefore ends all calls: give a fetch an end, `{ signal: AbortSignal.timeout(30_000) }`.
 *
 * **A failed call is repeated.** If `callback` throws or rejects, the error goes to
 * `reportError` (in Node to `console.error`), and the call is made again after a random wait, at
 * most 1 s after the first failure, 2 s after the second, and so on up to 30 s, merged with what
 * has arrived meanwhile. `fetch` resolves for a 500: throw for it, as above.
 *
 * **The connection.** The browser reconnects by itself where it can. This module opens a new
 * EventSource where it can't or doesn't:
 *
 * - it gave up (any status but 200; Firefox also when refused): after a random wait, at most
 *   1 s, 2 s, 4 s ... 30 s, until a `ready` event arrives;
 * - nothing arrived for 3 heartbeats: after the same wait;
 * - the page becomes visible, is shown, or is online again after more than 1.5 silent
 *   heartbeats, or comes out of the back/forward cache: at once.
 *
 * While connecting there are no heartbeats to count. A first attempt has 45 s. A browser that is
 * retrying by itself has 60 s, counted again from each failure: a busy service may ask it to
 * wait up to 30 s, and it needs time to connect after that.
 *
 * **A token that expires.** With the option `token`, each EventSource that this module opens has
 * a new one in its URL. The service says `expiring` before the token is too old: a new one is
 * asked for, and takes the old one's place without losing the last event ID. A refused token (401
 * or 403, which a HEAD request tells) is replaced once; if the next is refused as well, that is
 * final, and the state `refused`. Any other failure is not. Without the option, a status of 401
 * or 403 is retried like any other, and no other request is sent.
 *
 * @param url of the event stream; may be relative. A `last_event_id` in its query says what the
 * page was rendered with. Later openings say the last one seen there and keep all else.
 * @param callback fetches and shows what changed. It may ignore its argument and fetch everything.
 * @returns its undo. After it no call starts, nothing is sent, no timer or listener is left. A
 * call that is running is not interrupted, and is not repeated. Calling it twice does no harm.
 * @throws what `new EventSource(url)` throws, such as a SyntaxError for a URL that can't be parsed;
 * with the option `token` that is reported, not thrown.
 *
 * https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function onRefresh(
  url: string | URL,
  callback: (refresh: Refresh) => unknown,
  options?: Options,
): () => void

/** What one call is about. */
export interface Refresh {
  /**
   * Which parts of the data changed, each once; `undefined` if all of them may have.
   *
   * ```js
   * onRefresh(url, ({ topics }) => {
   *   if (!topics || topics.includes('seats')) return loadSeats()
   * })
   * ```
   */
  readonly topics: readonly string[] | undefined
  /**
   * What the sender of the change said about it. `undefined` if nothing, or if more than one
   * refresh stands behind this call: then fetch. After a failed call the same `data` may come
   * again, so apply it so that twice is as good as once.
   */
  readonly data: any
  /**
   * Why, if not for an ordinary change; of merged refreshes the strongest.
   *
   * - `connected`: a connection without a last event ID; the page may be older
   * - `missed`: something changed while the connection was away
   * - `resync`: the service can't tell what was missed
   */
  readonly reason: 'connected' | 'missed' | 'resync' | undefined
}

/**
 * - `connecting`: the browser connects or waits to, or this module does
 * - `open`: the service has said `ready`; what changes now arrives
 * - `refused`: the service has refused two tokens in a row (only with the option `token`); the
 *   reason went to `reportError`. All has ended as if the undo had been called, and nothing but
 *   another `onRefresh` starts it again: neither time, nor the page becoming visible or online
 * - `closed`: the undo was called
 */
export type State = 'connecting' | 'open' | 'refused' | 'closed'

export interface Options {
  /**
   * The name under which this page's own changes are sent as `by`. Their refreshes are not
   * passed on, as the page knows them already, unless they stand for more (have a reason).
   *
   * ```js
   * const by = crypto.randomUUID()
   * onRefresh(url, load, { by })
   * await fetch('/seats/7', { method: 'PUT', headers: { 'X-Changed-By': by } }) // for /notify
   * ```
   */
  by?: string
  /**
   * Is told each change of state, the first one before `onRefresh` returns. What it throws is
   * reported and has no other effect.
   *
   * ```js
   * onRefresh(url, load, { onState: state => { document.body.dataset.stream = state } })
   * ```
   */
  onState?: (state: State) => unknown
  /**
   * Gets a token from the page's own backend. It goes into the URL as `token`, in the place of
   * one that is there.
   *
   * ```js
   * onRefresh('/events?merchant_id=42', load, {
   *   token: async () => {
   *     const response = await fetch('/push-token', { method: 'POST' })
   *     if (!response.ok) throw new Error(`push token: ${response.status}`) // asked again, later
   *     return response.text()
   *   },
   *   onState: state => {
   *     if (state === 'refused') location.assign('/login')
   *   },
   * })
   * ```
   *
   * It is asked before each opening, so it must not return one that it has kept. If it throws or
   * rejects, or has not settled after 45 s, that is reported, and it is asked again after the
   * same waits as between connections; a stream that is still open stays so, and it is asked
   * again at its end. Where there will never be one again, call the undo.
   *
   * A token should live for minutes. A stream that ends within 5 × `waitBaseMs` after `ready`
   * counts as a failure, so that a token which is old when it comes is not renewed in a loop.
   */
  token?: () => Promise<string>
  /** Longest wait after the first failure in a row; doubles with each. Default: 1 000. */
  waitBaseMs?: number
  /** Longest wait after any number of failures. Default: 30 000. */
  waitCapMs?: number
  /** Sends cookies to another origin, too. Default: false. */
  withCredentials?: boolean
  /** A class to use in the place of the browser's, for tests and for Node. */
  EventSource?: new (url: string, init?: { withCredentials?: boolean }) => EventSourceLike
  /** The same for `fetch`. It is called only with the option `token`, and only for HEAD. */
  fetch?: (url: string, init: RequestInit) => Promise<{ readonly status: number }>
}

/** The part of an EventSource that is used. */
export interface EventSourceLike {
  readonly readyState: number
  addEventListener(type: string, listener: (event: MessageEvent) => void): void
  close(): void
}
