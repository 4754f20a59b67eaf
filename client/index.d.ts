/**
 * Calls `callback` whenever the data that the page shows may be out of date.
 *
 * ```js
 * import { onRefresh } from 'sse-push-client'
 *
 * const stop = onRefresh('/events?merchant_id=42', async () => {
 *   const response = await fetch('/seats')
 *   if (!response.ok) throw new Error(`seats: ${response.status}`) // the call is repeated later
 *   show(await response.json())
 * })
 * ```
 *
 * **When the callback is called.** At the first connection, so that the callback can also be the
 * first load of the page; after each change; and after a gap in which the page may have missed a
 * change. The service finds out what was missed by comparing event IDs: a reconnection that missed
 * nothing makes no call. A page that has heard nothing for 3 s is called for its first load
 * nevertheless, and again by the first connection.
 *
 * **One call at a time**, for each merchant of the stream. If `callback` returns a promise, the next
 * call for this merchant waits until the promise settles. All refreshes that arrive meanwhile are
 * merged into exactly one call. A promise that never settles therefore stops all further calls for
 * the merchant: give each fetch a time limit, such as `{ signal: AbortSignal.timeout(30_000) }`.
 *
 * **A failed call is repeated.** If `callback` throws or rejects, the error goes to `reportError`
 * (in Node to `console.error`), and the call is repeated after a random wait: at most 1 s after the
 * first failure, 2 s after the second, and so on, up to 30 s. The repeated call is merged with the
 * refreshes that have arrived meanwhile. `fetch` also resolves for a status of 500: throw an error
 * for it, as above.
 *
 * **The connection.** The browser reconnects by itself after most failures. This module opens a new
 * EventSource where the browser cannot reconnect, or does not:
 *
 * - The browser has given up, as it does for any status but 200 (Firefox also if another origin
 *   refuses the connection): a new EventSource is opened after a random wait of at most 1 s, 2 s,
 *   4 s ... 30 s, until a `ready` event arrives.
 * - No event has arrived for 3 heartbeats: after the same wait.
 * - The page becomes visible, is shown, or is online again, and no event has arrived for more than
 *   1.5 heartbeats; or the page comes out of the back/forward cache: at once.
 *
 * There are no heartbeats while the browser connects. A new EventSource has 45 s to connect. A
 * browser that reconnects by itself has 60 s, counted again from each failed attempt: a busy
 * service may ask the browser to wait up to 30 s, and connecting takes time as well.
 *
 * **Tokens that expire.** With the option `token`, each EventSource that this module opens has a
 * new token in its URL. The service sends `expiring` before a token expires. This module then
 * requests a new token and replaces the EventSource, and keeps the last event ID.
 *
 * **A refused page.** After a status other than 200, this module learns the status from a HEAD
 * request for the same URL. If that is 401 or 403, it tries once more: with a new token at once, or
 * without the option `token` after a wait. A second refusal without a `ready` in between is final,
 * and the state becomes `refused`, so that a page that is logged out gets to its login. No other
 * failure is final. No HEAD request is sent with an `EventSource` of your own without a `token` and
 * without a `fetch` of your own, since such a class may send headers that the global `fetch` does
 * not.
 *
 * **Pages that nobody sees.** A page that is being prerendered opens nothing before it is shown.
 * The EventSource is closed when the page is left, so that the page can go into the back/forward
 * cache, and opened again if it is shown again. `whileHidden` says what a hidden page does.
 *
 * @param url The URL of the event stream; may be relative. It names one merchant, several, or none:
 * then the stream is of all merchants of the token, or of the proxy's header. A page that was
 * rendered by a server can put the last event ID that it was rendered with into the query, as
 * `last_event_id`, once for each merchant: the `id` of an event, or of an answer to `/notify`, as it
 * is. Unless the URL names exactly one merchant, an ID must name its merchant, as the IDs of events
 * do then: put `42@` before that of an answer to `/notify`. Later openings replace `last_event_id` by
 * the last ones received, and leave the rest of the query as it is.
 * @param callback Fetches and shows the changed data. It may ignore its argument and fetch
 * everything.
 * @returns A function that undoes `onRefresh`. After it has been called, no call of `callback`
 * starts, nothing is sent, and no timer or listener remains. A call that is running is neither
 * interrupted nor repeated. Calling the function twice does no harm.
 * @throws Any error of `new EventSource(url)`, such as a SyntaxError for a URL that cannot be
 * parsed. With the option `token`, such an error goes to `reportError` instead.
 *
 * https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function onRefresh(
  url: string | URL,
  callback: (refresh: Refresh) => unknown,
  options?: Options,
): () => void

/** The reason for one call: one refresh, or several that were merged; always of one merchant. */
export interface Refresh {
  /**
   * The merchant whose data has changed. `undefined` only if the URL names no merchant and the
   * service has not said yet whose stream it is: all of the page may be out of date then.
   *
   * ```js
   * onRefresh('/events?merchant_id=42&merchant_id=43', ({ merchantId }) => loadShop(merchantId))
   * ```
   */
  readonly merchantId: string | undefined
  /**
   * The newest event ID of the merchant when the call starts, as it is; `undefined` before the first. The data that
   * is fetched must be at least as new. IDs can only be compared for equality: after Redis has lost
   * data, a newer ID may be the lesser one.
   */
  readonly id: string | undefined
  /**
   * The parts of the data that have changed, each once; `undefined` if any part may have changed.
   *
   * ```js
   * onRefresh(url, ({ topics }) => {
   *   if (!topics || topics.includes('seats')) return loadSeats()
   * })
   * ```
   */
  readonly topics: readonly string[] | undefined
  /**
   * The `data` of the notification, as the backend sent it. `undefined` if the backend sent none,
   * if this call has a `reason`, or if it stands for more than one refresh: fetch the data then. A
   * call that is repeated after a failure may have the same `data` again, so applying `data` twice
   * must have the same result as applying it once.
   *
   * ```js
   * onRefresh(url, ({ data }) => (data ? showSeat(data) : loadSeats()))
   * ```
   */
  readonly data: any
  /**
   * The reason for the call, `undefined` for an ordinary change. Merged refreshes have the
   * strongest of their reasons; the last of this list is the strongest.
   *
   * - `unconfirmed`: nothing has arrived for `firstCallMs`, so that this is the first load
   * - `connected`: the connection started without a last event ID; the page may be out of date
   * - `missed`: a change happened while the page was not connected
   * - `resync`: the service cannot determine what the page has missed
   */
  readonly reason: 'unconfirmed' | 'connected' | 'missed' | 'resync' | undefined
}

/**
 * The state of the connection. index.js has the table of all transitions.
 *
 * - `connecting`: the browser or this module is connecting, or waits before the next attempt, or
 *   until the page is shown
 * - `open`: the service has said where the page stands, of each merchant; changes arrive from now on
 * - `polling`: something on the way lets no event through, and the service is asked every 5 to 15 s
 * - `refused`: the service has answered 401 or 403 twice in a row, and the error has gone to
 *   `reportError`. Everything has ended as after the undo. Neither time nor a page that becomes
 *   visible or online starts it again; only another `onRefresh` does
 * - `closed`: the page has called the undo
 */
export type State = 'connecting' | 'open' | 'polling' | 'refused' | 'closed'

export interface Options {
  /**
   * The name under which this page's own changes are sent as `by`. A refresh for the page's own
   * change makes no call, as the page shows that change already. A refresh with a reason always
   * makes a call, as it stands for other changes as well.
   *
   * ```js
   * const by = crypto.randomUUID()
   * onRefresh(url, load, { by })
   * // The backend copies the header into `by` of its notification.
   * await fetch('/seats/7', { method: 'PUT', headers: { 'X-Changed-By': by } })
   * ```
   */
  by?: string
  /**
   * Called at each change of the state, for the first time before `onRefresh` returns. Its errors
   * go to `reportError` and have no other effect.
   *
   * ```js
   * onRefresh(url, load, { onState: state => { document.body.dataset.stream = state } })
   * ```
   */
  onState?: (state: State) => unknown
  /**
   * Returns a new token from the page's own backend. The token goes into the URL as `token`, and
   * replaces a `token` that the URL already has.
   *
   * ```js
   * const stop = onRefresh('/events?merchant_id=42', load, {
   *   token: async () => {
   *     const response = await fetch('/push-token', { method: 'POST' })
   *     if (response.status === 401) leave() // logged out: no token will ever come
   *     if (!response.ok) throw new Error(`push token: ${response.status}`) // called again later
   *     return response.text()
   *   },
   *   onState: state => state === 'refused' && leave(),
   * })
   *
   * function leave() {
   *   stop() // what `token` throws afterwards is dropped
   *   location.assign('/login')
   * }
   * ```
   *
   * `token` is called before each opening and must not return a token that it has stored. If it
   * throws, rejects, or has not settled after 45 s, the error goes to `reportError`, and `token` is
   * called again after the same waits as between connections. A stream that is still open stays
   * open meanwhile, and `token` is called again when the stream ends. If the page can never get a
   * token again, call the undo.
   *
   * A token should be valid for minutes. A stream that ends within 5 × `waitBaseMs` after `ready`
   * counts as a failure, so that a token that is almost expired when it arrives is not renewed in a
   * loop.
   */
  token?: () => Promise<string>
  /**
   * The longest wait after the first failure of a connection or a call, in milliseconds. It doubles
   * with each further failure in a row. Default: 1 000.
   *
   * ```js
   * onRefresh(url, load, { waitBaseMs: 500 }) // at most 0.5 s, 1 s, 2 s ... 30 s
   * ```
   */
  waitBaseMs?: number
  /**
   * The longest wait after any number of failures, in milliseconds. Default: 30 000.
   *
   * ```js
   * onRefresh(url, load, { waitCapMs: 120_000 }) // at most 1 s, 2 s, 4 s ... 120 s
   * ```
   */
  waitCapMs?: number
  /**
   * How long the first load waits for the event stream, in milliseconds. If neither a refresh nor
   * the news that nothing was missed has arrived by then, the callback is called with the reason
   * `unconfirmed`. `Infinity`: the first load always waits. Default: 3 000.
   *
   * ```js
   * onRefresh(url, load, { firstCallMs: 0 }) // loads now, and again when the stream is open
   * ```
   */
  firstCallMs?: number
  /**
   * The shortest time from the start of a call to the start of the next one, in milliseconds. The
   * first refresh is called for at once, and those that arrive within this time become one call at
   * its end. Default: 0.
   *
   * ```js
   * onRefresh(url, load, { minIntervalMs: 2_000 }) // at most one call in 2 s
   * ```
   */
  minIntervalMs?: number
  /**
   * What a hidden page does. Default: `'call'`, the same as a visible one.
   *
   * With `'defer'`, a hidden page starts no call after its first load; it makes one call for all
   * that has arrived, when it is shown. A repeated call waits as well. Workers count as visible,
   * and so does a page with a document picture-in-picture window.
   *
   * ```js
   * onRefresh(url, load, { whileHidden: 'defer' })
   * ```
   */
  whileHidden?: 'call' | 'defer'
  /**
   * How long a page that defers its calls keeps its stream while it is hidden, in milliseconds.
   * Then the stream is closed until the page is shown. `Infinity`: the stream stays. Default:
   * 300 000, which is 5 min.
   *
   * ```js
   * onRefresh(url, load, { whileHidden: 'defer', hiddenCloseMs: 60_000 })
   * ```
   */
  hiddenCloseMs?: number
  /**
   * The tabs of one browser hold one stream together if the service says that they have the same
   * rights, and if they give the same name here, and the same URL (its token and `last_event_id`
   * aside) and `withCredentials`. The name should say who is logged in. Default: a stream of one's
   * own.
   *
   * ```js
   * onRefresh('/events?merchant_id=42', load, { share: `user-${userId}` })
   * ```
   *
   * One tab has the stream, and each tab is called as if it had one: `by`, `minIntervalMs` and
   * `whileHidden` are its own. A tab that joins asks for its rights by one poll, with a token of its
   * own; tabs whose rights differ share a second stream. If the tab with the stream is closed, crashes, is frozen or is
   * refused, another one takes its place, with a token of its own. A browser without Web Locks or
   * BroadcastChannel, or one that refuses them (a sandboxed frame, a page without HTTPS), gives each
   * tab a stream of its own.
   */
  share?: string
  /**
   * Sends cookies to another origin as well. Default: false.
   *
   * ```js
   * onRefresh('https://push.example.org/events?merchant_id=42', load, { withCredentials: true })
   * ```
   */
  withCredentials?: boolean
  /**
   * A class to use instead of the browser's EventSource, in tests and in Node.
   *
   * ```js
   * import { EventSource } from 'eventsource'
   * onRefresh('https://example.org/events?merchant_id=42', load, { EventSource })
   * ```
   */
  EventSource?: new (url: string, init?: { withCredentials?: boolean }) => EventSourceLike
  /**
   * A function to use instead of the global `fetch`, for HEAD requests that ask for a status, and
   * for polls, which need `headers` and `json` of its answer; tabs that share ask by a poll for
   * their rights.
   *
   * ```js
   * onRefresh(url, load, {
   *   fetch: (url, init) => fetch(url, { ...init, headers: { 'X-Page': 'seats' } }),
   * })
   * ```
   */
  fetch?: (url: string, init: RequestInit) => Promise<Pick<Response, 'status'> & Partial<Response>>
}

/** The members of an EventSource that this module uses. */
export interface EventSourceLike {
  readonly readyState: number
  addEventListener(type: string, listener: (event: MessageEvent) => void): void
  close(): void
}
