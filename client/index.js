// @ts-check
/**
 * Tells a page when what it shows is out of date. The reference is index.d.ts.
 * Knows the event stream; not what the page shows or how it fetches. WHATWG is
 * https://html.spec.whatwg.org/multipage/server-sent-events.html
 */

/** @import { EventSourceLike, Refresh, State } from './index.js' */

const HEARTBEAT_MS = 15_000 // assumed until `ready` tells
const RETRY_MS = 30_000 // longest `retry` of a `goodbye`
/** @type {Refresh['reason'][]} weakest first */
const REASONS = ['connected', 'missed', 'resync']

/** @type {typeof import('./index.js').onRefresh} */
export function onRefresh(url, callback, options = {}) {
  const { by, onState, waitBaseMs = 1_000, waitCapMs = 30_000, withCredentials } = options
  const { token, EventSource = globalThis.EventSource, fetch = globalThis.fetch } = options
  const address = String(url)

  /** @type {EventSourceLike | undefined} */
  let source
  let sourceUrl = ''
  let readyAt = 0
  let question = new AbortController() // for a token or a status
  let refusals = 0
  /** @type {State | undefined} */
  let state
  /** @type {Refresh | undefined} */
  let pending
  let timer = 0 // to watch, or to open anew
  let callTimer = 0
  let lastEventId = ''
  let heartbeatMs = HEARTBEAT_MS
  let heardAt = 0
  let patienceMs = 0
  let failures = 0 // in a row
  let calling = false

  function open() {
    close()
    if (token) {
      expect(3 * HEARTBEAT_MS)
      renew()
    } else listen()
    tell('connecting') // last: onState may stop us
  }

  function listen(text = '') {
    sourceUrl = put(put(address, 'token', text), 'last_event_id', lastEventId)
    const mine = new EventSource(sourceUrl, { withCredentials })
    source?.close()
    source = mine
    readyAt = Infinity
    for (const type of ['open', 'ready', 'refresh', 'heartbeat', 'expiring', 'goodbye', 'error']) {
      mine.addEventListener(type, event => mine === source && hear(event))
    }
    expect(3 * HEARTBEAT_MS) // if headers never come, no event tells
  }

  // What is open stays so meanwhile.
  async function renew() {
    const signal = ask()
    try {
      const text = await token?.()
      if (signal.aborted) return
      if (typeof text !== 'string') throw new TypeError(`token() gave ${typeof text}`)
      listen(text)
      tell('connecting')
    } catch (error) {
      if (signal.aborted) return
      report(error)
      if (!source) openLater() // else its end asks again
    }
  }

  // An EventSource hides the status, HEAD shows it.
  async function askStatus() {
    const signal = ask()
    const credentials = withCredentials ? 'include' : undefined
    let status
    try {
      status = (await fetch(sourceUrl, { method: 'HEAD', credentials, signal })).status
    } catch {} // not a refusal
    if (signal.aborted) return
    if (status !== 401 && status !== 403) return openLater()
    if (refusals++ < 1) return open()
    report(new Error(`token refused: ${status}`))
    end('refused')
  }

  // A late answer to an older question is dropped.
  function ask() {
    question.abort()
    return (question = new AbortController()).signal
  }

  function close() {
    clearTimeout(timer)
    question.abort()
    source?.close()
    source = undefined
  }

  function openLater() {
    close()
    timer = setTimeout(open, waitMs(failures++))
    tell('connecting')
  }

  /** @param {MessageEvent} event */
  function hear({ type, data, lastEventId: id }) {
    if (type === 'error') {
      // CLOSED, WHATWG #fail-the-connection: gave up, as for any status but 200.
      const gaveUp = source?.readyState === 2
      if (gaveUp && !token) return openLater()
      // CONNECTING, WHATWG #reestablish-the-connection: it comes back after `retry`.
      expect(2 * RETRY_MS)
      if (gaveUp) askStatus()
      return tell('connecting')
    }
    if (id) lastEventId = id // a new source has none until it is sent one
    const said = parse(data)
    if (said.heartbeat_s > 0) heartbeatMs = said.heartbeat_s * 1_000
    expect(3 * heartbeatMs)
    if (type === 'refresh') refresh(said)
    // A token may be old when it comes: no loop.
    const lasted = Date.now() - readyAt > 5 * waitBaseMs
    if (lasted) failures = 0
    if (token && lasted && type === 'expiring') renew()
    if (token && said.reason === 'token_expired') return lasted ? open() : openLater()
    if (type !== 'ready') return
    readyAt = Date.now()
    refusals = 0
    if (!token) failures = 0
    tell('open')
  }

  /** @param {number} ms normal silence from now on */
  function expect(ms) {
    heardAt = Date.now()
    patienceMs = ms
    watch()
  }

  // Timers stand still while a laptop sleeps: look often, ask the clock.
  function watch() {
    clearTimeout(timer)
    const leftMs = patienceMs - silenceMs()
    if (leftMs > 0) timer = setTimeout(watch, Math.min(leftMs, HEARTBEAT_MS))
    else {
      if (!source) report(new Error('token() has not settled'))
      openLater()
    }
  }

  // A clock that was set back would hide a silence: it counts as one.
  const silenceMs = () => Math.abs(Date.now() - heardAt)

  // Half the patience: 1.5 heartbeats, or RETRY_MS.
  // Persisted (back/forward cache): perhaps cut, though it looks open.
  /** @param {Event & { persisted?: boolean }} event */
  function wake({ type, persisted }) {
    if (type === 'visibilitychange' && document.hidden) return
    if (persisted || silenceMs() > patienceMs / 2) open()
  }

  /** @param {any} said */
  function refresh({ topic, data, by: sender, reason }) {
    if (by !== undefined && sender === by && reason === undefined) return
    pending = merge(pending, {
      topics: typeof topic === 'string' ? [topic] : undefined,
      data,
      reason: REASONS.find(known => known === reason),
    })
    if (!calling) call()
  }

  async function call() {
    calling = true
    let failed = 0
    while (pending) {
      const current = pending
      pending = undefined
      try {
        await callback(current)
        failed = 0
      } catch (error) {
        if (state === 'closed' || state === 'refused') return
        report(error)
        // The last event ID has moved on: nothing else corrects the page.
        pending = merge(current, pending)
        await new Promise(resolve => (callTimer = setTimeout(resolve, waitMs(failed++))))
      }
    }
    calling = false
  }

  /** @param {number} failed */
  const waitMs = failed => Math.random() * Math.min(waitCapMs, waitBaseMs * 2 ** failed)

  /** @param {State} next */
  async function tell(next) {
    if (state === next || state === 'closed') return
    state = next
    try {
      await onState?.(next)
    } catch (error) {
      report(error)
    }
  }

  /** @param {'addEventListener' | 'removeEventListener'} method not in Node */
  function wakers(method) {
    globalThis.document?.[method]('visibilitychange', wake)
    globalThis[method]?.('pageshow', wake)
    globalThis[method]?.('online', wake)
  }

  /** @param {State} last */
  function end(last) {
    close()
    clearTimeout(callTimer)
    pending = undefined
    wakers('removeEventListener')
    tell(last)
  }

  open()
  wakers('addEventListener')
  return () => end('closed')
}

/** @param {Refresh} [a] @param {Refresh} [b] */
function merge(a, b) {
  if (!a || !b) return a ?? b
  return {
    topics: a.topics && b.topics && [...new Set([...a.topics, ...b.topics])],
    data: undefined,
    reason: REASONS[Math.max(REASONS.indexOf(a.reason), REASONS.indexOf(b.reason))],
  }
}

// A new EventSource has no last event ID, and no headers: its URL tells.
/** @param {string} url @param {string} name @param {string} value */
function put(url, name, value) {
  if (!value) return url
  const [path, query = ''] = url.split('#')[0].split(/\?(.*)/s)
  const pairs = query.split('&').filter(pair => pair && pair.split('=')[0] !== name)
  return `${path}?${[...pairs, `${name}=${encodeURIComponent(value)}`].join('&')}`
}

/** @param {string} text */
function parse(text) {
  try {
    return JSON.parse(text) ?? {}
  } catch {
    return {}
  }
}

/** @param {unknown} error */
const report = error => (globalThis.reportError ?? console.error)(error)
