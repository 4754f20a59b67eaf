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
  const { EventSource = globalThis.EventSource } = options
  const address = String(url)

  /** @type {EventSourceLike | undefined} */
  let source
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
  let failures = 0 // since the last `ready`
  let calling = false

  function open() {
    close()
    const mine = (source = new EventSource(resumeAt(address, lastEventId), { withCredentials }))
    for (const type of ['open', 'ready', 'refresh', 'heartbeat', 'goodbye', 'error']) {
      mine.addEventListener(type, event => mine === source && hear(event))
    }
    expect(3 * HEARTBEAT_MS) // if headers never come, no event tells
    tell('connecting') // last: onState may stop us
  }

  function close() {
    clearTimeout(timer)
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
      if (source?.readyState === 2) return openLater()
      // CONNECTING, WHATWG #reestablish-the-connection: it comes back after `retry`.
      expect(2 * RETRY_MS)
      return tell('connecting')
    }
    if (id) lastEventId = id // a new source has none until it is sent one
    const said = parse(data)
    if (said.heartbeat_s > 0) heartbeatMs = said.heartbeat_s * 1_000
    expect(3 * heartbeatMs)
    if (type === 'refresh') refresh(said)
    if (type !== 'ready') return
    failures = 0
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
    else openLater()
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
        if (state === 'closed') return
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
    if (state === next) return
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

  open()
  wakers('addEventListener')
  return () => {
    close()
    clearTimeout(callTimer)
    pending = undefined
    wakers('removeEventListener')
    tell('closed')
  }
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

// A new EventSource has no last event ID: its URL tells it.
/** @param {string} address @param {string} id */
function resumeAt(address, id) {
  if (!id) return address
  const [path, query = ''] = address.split('#')[0].split(/\?(.*)/s)
  const pairs = query.split('&').filter(pair => pair && !/^last_event_id(=|$)/.test(pair))
  return `${path}?${[...pairs, `last_event_id=${encodeURIComponent(id)}`].join('&')}`
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
