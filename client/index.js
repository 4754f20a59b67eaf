// @ts-check
/**
 * Calls a page back when the data that it shows may be out of date. The reference is index.d.ts.
 *
 * Knows the event stream of the service, and when the browser reconnects by itself. Does not know
 * what the page shows or how it is fetched.
 *
 * WHATWG: https://html.spec.whatwg.org/multipage/server-sent-events.html
 */

/** @import { EventSourceLike, Options, Refresh, State } from './index.js' */
/** @typedef {Omit<Refresh, 'id'>} Arrival what one or more events have said */
/**
 * @typedef {object} Message what the tab with the stream tells the others
 * @property {string} [type] of the event that has arrived, if any
 * @property {string} [data] of that event
 * @property {string} before the position before that event
 * @property {string} id the position now
 * @property {State | undefined} state
 * @property {number} heartbeatMs
 */

/** The longest pause between two events, until `ready` announces the service's own. */
const HEARTBEAT_MS = 15_000
/** How long a token may take, and then how long the headers of a new EventSource. */
const OPENING_MS = 45_000
/** How many heartbeats may pass before a tab asks whether the tab with the stream is alive. */
const SUSPICION = 1.5
/** How long a browser may take to reconnect: a `goodbye` asks it to wait up to half of this. */
const RECONNECTING_MS = 60_000
/** A timer for a longer time than this would end at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1
/** The form of a `Message`. Tabs whose modules have different forms do not share a stream. */
const MESSAGE_FORM = 'sse-push/1'

const EVENT_TYPES = ['open', 'ready', 'refresh', 'heartbeat', 'expiring', 'goodbye', 'error']
/** `readyState` of an EventSource that has given up. WHATWG #dom-eventsource-closed */
const CLOSED = 2

/** @type {Refresh['reason'][]} weakest first */
const REASONS = ['connected', 'missed', 'resync']

/**
 * The states that `onState` reports, and the states that can follow each of them.
 *
 *     from        to          when
 *     connecting  open        `ready` has arrived
 *     open        connecting  the stream has ended, has been silent for too long, or is replaced
 *     connecting  refused     the service has refused twice without a `ready` between
 *     any         closed      the page has called the undo
 *
 * While the state is `connecting`, this module waits for one of these: a token, an EventSource that
 * connects, the status of one that has given up, or a timer before the next opening. A stream that
 * is paused waits for the page to be shown, and for nothing else: while the page is prerendered, in
 * the back/forward cache, or hidden for `hiddenCloseMs`.
 *
 * @type {Record<State, State[]>}
 */
const NEXT_STATES = {
  connecting: ['open', 'refused', 'closed'],
  open: ['connecting', 'closed'],
  refused: ['closed'],
  closed: [],
}

/** @type {typeof import('./index.js').onRefresh} */
export function onRefresh(url, callback, options = {}) {
  const { by, onState, token, withCredentials, fetch = globalThis.fetch } = options
  const { waitBaseMs = 1_000, waitCapMs = 30_000 } = options
  const { whileHidden = 'call', hiddenCloseMs = 300_000 } = options
  const tabs = shareStream(nameStream(String(url), options), { open, lead, follow, hear, answer })

  // A class of the page's own may send headers that the global fetch does not.
  const mayAskStatus = token || options.fetch || !options.EventSource

  /** @type {State | undefined} */
  let state
  let request = new AbortController() // for a token, or for the status of a refused EventSource
  let reopenTimer = 0
  let hiddenTimer = 0 // before a stream is paused
  let isPaused = false
  let failures = 0 // in a row
  let refusals = 0 // since the last `ready`
  let readyAt = 0
  let heartbeatMs = HEARTBEAT_MS

  const stream = oneSourceAtATime(String(url), options, handleEvent)
  const isHeld = () => whileHidden === 'defer' && isHidden()
  const calls = scheduleCalls(callback, stream.lastEventId, waitMs, isHeld, options)
  const silence = watchSilence(() => {
    if (!tabs.mayConnect()) return calls.areDeferred() || open()
    if (!stream.source()) report(new Error('token() has not settled'))
    openLater()
  })

  function open() {
    close()
    isPaused = false
    const mayConnect = tabs.mayConnect()
    if (!mayConnect) tabs.join(heartbeatMs)
    else if (token) {
      silence.allow(OPENING_MS)
      renewToken()
    } else listen()
    calls.begin()
    if (mayConnect || !state) enter('connecting') // last, as onState may call the undo
  }

  // -- tabs that share: see shareStream

  function lead() {
    failures = refusals = 0
    open()
    tell()
  }

  function follow() {
    close()
    silence.allow(SUSPICION * heartbeatMs)
  }

  /** @param {string} [type] @param {string} [data] @param {string} [before] */
  function tell(type, data, before = stream.position()) {
    tabs.tell({ type, data, before, id: stream.position(), state, heartbeatMs })
  }

  // Chromium hands a frozen page its messages, but no event of its stream, and runs no timer.
  function answer() {
    const allowedMs =
      state === 'open' ? SUSPICION * heartbeatMs : Math.max(RECONNECTING_MS, waitCapMs)
    if (silence.silentMs() < allowedMs) tell()
  }

  // What counts is the position: a message may have been told while this tab was frozen or away.
  /** @param {Message} message */
  function hear(message) {
    const { type, data = '', before, id } = message
    const own = stream.position()
    heartbeatMs = message.heartbeatMs
    silence.allow(SUSPICION * heartbeatMs)
    stream.moveTo(id)
    if (type === 'refresh' && own === before) handleRefresh(parse(data))
    else if (id && id !== own)
      calls.add({ topics: undefined, data: undefined, reason: own ? 'missed' : 'connected' })
    else if (id && message.state === 'open') calls.confirm()
    if (message.state) enter(message.state)
    lookAtPage()
  }

  // -- the stream

  function listen(text = '') {
    stream.open(text)
    readyAt = Infinity
    silence.allow(OPENING_MS) // if no headers arrive, the browser fires no event
  }

  // An open stream stays open while its new token is awaited.
  async function renewToken() {
    const signal = newRequest()
    try {
      const text = await token?.()
      if (signal.aborted) return
      if (typeof text !== 'string') throw new TypeError(`token() gave ${typeof text}`)
      listen(text)
      enter('connecting')
    } catch (error) {
      if (signal.aborted) return
      report(error)
      // An open stream needs no token yet: its end requests one again.
      if (!stream.source()) openLater()
    }
  }

  // An EventSource hides the status of the response; HEAD shows it.
  async function askStatus() {
    const signal = newRequest()
    const credentials = withCredentials ? 'include' : undefined
    let status
    try {
      status = (await fetch(stream.url(), { method: 'HEAD', credentials, signal })).status
    } catch {} // a network error is no refusal
    if (signal.aborted) return
    const isRefused = status === 401 || status === 403
    if (isRefused && refusals++) {
      report(new Error(`event stream refused: ${status}`))
      end('refused')
    } else if (isRefused && token) {
      open() // the token may have expired while the browser was away
    } else openLater()
  }

  // Only the newest request counts; a late answer to an older one is dropped.
  function newRequest() {
    request.abort()
    return (request = new AbortController()).signal
  }

  function close() {
    silence.stop()
    clearTimeout(reopenTimer)
    request.abort()
    stream.close()
  }

  function openLater() {
    close()
    reopenTimer = setTimeout(open, waitMs(failures++))
    enter('connecting')
  }

  function pause() {
    close()
    tabs.leave()
    isPaused = true
    enter('connecting')
  }

  // Not all that hides or shows a page fires an event, so each event of the stream looks as well.
  // Last in each handler: a call that starts here may call the undo.
  function lookAtPage() {
    if (!calls.areDeferred()) {
      clearTimeout(hiddenTimer)
      hiddenTimer = 0
    } else hiddenTimer ||= after(hiddenCloseMs, pauseIfDeferred)
    calls.startIfDue()
  }

  function pauseIfDeferred() {
    hiddenTimer = 0
    if (calls.areDeferred()) pause()
  }

  /** @param {Event} event of the window or of its document */
  function handlePageEvent({ type }) {
    // An open stream may keep a page out of the back/forward cache, and is cut in there.
    if (type === 'pagehide') return pause()
    const mayOpen = isPaused
      ? !thePage()?.prerendering && !calls.areDeferred()
      : silence.isSuspicious()
    if (mayOpen && (type !== 'visibilitychange' || !isHidden())) open()
    tabs.queue()
    lookAtPage()
  }

  /** @param {MessageEvent} event @param {string} before the position before the event */
  function handleEvent({ type, data, lastEventId }, before) {
    if (type === 'error') return handleError()
    const fields = parse(data)
    if (fields.heartbeat_s > 0) heartbeatMs = fields.heartbeat_s * 1_000
    tell(type, data, before) // all of it: what is this page's own change is not the others'
    silence.allow(3 * heartbeatMs)
    if (type === 'refresh') handleRefresh(fields)
    // A token may be old when it arrives. The end of a stream that has not lasted counts as a
    // failure, so that such tokens are not renewed in a loop.
    const hasLasted = Date.now() - readyAt > 5 * waitBaseMs
    if (hasLasted) failures = 0
    if (type === 'ready') handleReady(lastEventId)
    if (token && type === 'expiring' && hasLasted) renewToken()
    if (token && type === 'goodbye' && fields.reason === 'token_expired') {
      if (hasLasted) open()
      else openLater()
    }
    lookAtPage()
  }

  /** @param {string} lastEventId none before the first call, unless the page is owed nothing */
  function handleReady(lastEventId) {
    readyAt = Date.now()
    if (lastEventId) calls.confirm()
    refusals = 0
    if (!token) failures = 0
    enter('open')
  }

  function handleError() {
    // CLOSED, WHATWG #fail-the-connection: the browser has given up, as for any status but 200.
    const hasGivenUp = stream.source()?.readyState === CLOSED
    // CONNECTING, WHATWG #reestablish-the-connection: the browser reconnects after `retry`.
    silence.allow(RECONNECTING_MS)
    if (hasGivenUp && mayAskStatus) askStatus()
    else if (hasGivenUp) openLater()
    enter('connecting')
  }

  /** @param {any} fields of a `refresh` */
  function handleRefresh({ topic, data, by: sender, reason }) {
    // With a reason, a refresh stands for other changes than the page's own as well.
    if (by !== undefined && sender === by && reason === undefined) return
    calls.add({
      topics: typeof topic === 'string' ? [topic] : undefined,
      data,
      reason: REASONS.find(known => known === reason),
    })
  }

  /** @param {State} next */
  async function enter(next) {
    if (state && !NEXT_STATES[state].includes(next)) return
    state = next
    tell()
    try {
      await onState?.(next)
    } catch (error) {
      report(error)
    }
  }

  /** @param {State} last */
  function end(last) {
    close()
    tabs.leave()
    clearTimeout(hiddenTimer)
    calls.stop()
    ignorePage()
    enter(last)
  }

  // Full jitter: clients of a service that went away must not return all at once.
  /** @param {number} failed the number of failures before this one */
  function waitMs(failed) {
    return Math.random() * Math.min(waitCapMs, waitBaseMs * 2 ** failed)
  }

  if (thePage()?.prerendering) pause()
  else open()
  const ignorePage = onPageEvent(handlePageEvent)
  return () => end('closed')
}

/**
 * Calls the page, one call at a time. What has arrived and is not taken by a call is *owed*. The
 * states:
 *
 *     from      to        when
 *     idle      due       a refresh has arrived
 *     due       calling   its time has come: the call takes all that is owed
 *     calling   idle      the call has succeeded, and nothing has arrived meanwhile
 *     calling   due       the call has succeeded, and the next one is owed
 *     calling   retrying  the call has failed: what it had taken is owed again, as the older part
 *     retrying  calling   its time has come, as from `due`
 *     any       ended     the page has called the undo, or the service has refused the page
 *
 * The time is set when `due` or `retrying` begins, and what arrives later never moves it: a call
 * that waited for silence would not be made while changes come fast. A page that is held starts no
 * call once it has been loaded; all else goes on as it would.
 *
 * @param {(refresh: Refresh) => unknown} callback
 * @param {() => string} position the newest event ID
 * @param {(failed: number) => number} waitMs before a failed call is repeated
 * @param {() => boolean} isHeld whether the page wants no call while it is hidden
 * @param {Options} options
 */
function scheduleCalls(callback, position, waitMs, isHeld, options) {
  const { firstCallMs = 3_000, minIntervalMs = 0 } = options
  /** @type {'idle' | 'due' | 'calling' | 'retrying' | 'ended'} */
  let state = 'idle'
  /** @type {Arrival | undefined} */
  let owed
  let dueAt = 0 // by performance.now(), which nobody sets back
  let failures = 0 // in a row
  let isLoaded = false
  let timer = 0
  /** @type {number | undefined} */
  let firstTimer

  function startIfDue() {
    if ((state !== 'due' && state !== 'retrying') || areDeferred()) return
    clearTimeout(timer)
    const leftMs = dueAt - performance.now()
    if (leftMs > 0) timer = after(leftMs, startIfDue)
    else call()
  }

  async function call() {
    const taken = owed
    owed = undefined
    state = 'calling'
    dueAt = performance.now() + minIntervalMs
    try {
      await callback({ .../** @type {Arrival} */ (taken), id: position() || undefined })
      if (hasEnded()) return
      failures = 0
      isLoaded = true
      state = owed ? 'due' : 'idle'
      startIfDue()
    } catch (error) {
      if (hasEnded()) return
      report(error)
      // The last event ID has moved past this refresh: the service does not send it again.
      owed = merge(taken, owed)
      const retryMs = waitMs(failures++)
      dueAt = Math.max(dueAt, performance.now() + retryMs)
      state = 'retrying'
      timer = setTimeout(startIfDue, retryMs) // a task at least: without any wait, a page freezes
    }
  }

  const hasEnded = () => state === 'ended'
  const areDeferred = () => isLoaded && isHeld()

  /** @param {Arrival} arrival */
  function add(arrival) {
    clearTimeout(firstTimer)
    owed = merge(owed, arrival)
    if (state !== 'idle') return
    state = 'due'
    startIfDue()
  }

  return {
    add,
    startIfDue,
    areDeferred,
    /** Allows the first refresh its time, once. */
    begin() {
      firstTimer ??= after(firstCallMs, () =>
        add({ topics: undefined, data: undefined, reason: 'unconfirmed' }),
      )
    },
    /** The page is owed nothing: without a call so far, it was right when it was made. */
    confirm() {
      clearTimeout(firstTimer)
      if (state === 'idle') isLoaded = true
    },
    stop() {
      state = 'ended'
      isLoaded = false
      clearTimeout(timer)
      clearTimeout(firstTimer)
    },
  }
}

/** @param {Arrival} [a] the older one @param {Arrival} [b] @returns {Arrival | undefined} */
function merge(a, b) {
  if (!a || !b) return a ?? b
  return {
    topics: a.topics && b.topics && [...new Set([...a.topics, ...b.topics])],
    data: undefined,
    reason: REASONS[Math.max(REASONS.indexOf(a.reason), REASONS.indexOf(b.reason))] ?? a.reason,
  }
}

/**
 * Keeps at most one EventSource, and the last event ID from each to the next. Events of one that
 * was replaced or closed are dropped.
 *
 * @param {string} address
 * @param {Options} options
 * @param {(event: MessageEvent, before: string) => void} handle
 */
function oneSourceAtATime(address, options, handle) {
  const { EventSource = globalThis.EventSource, withCredentials } = options
  /** @type {EventSourceLike | undefined} */
  let source
  let url = ''
  let lastEventId = ''

  // A page that has heard nothing shows what it was rendered with.
  const rendered = new URLSearchParams(address.split(/[?#]/)[1]).get('last_event_id') ?? ''
  const position = () => lastEventId || rendered

  return {
    source: () => source,
    url: () => url,
    lastEventId: () => lastEventId,
    position,
    /** @param {string} id another tab has received it */
    moveTo(id) {
      if (id) lastEventId = id
    },
    /** @param {string} token */
    open(token) {
      // A new EventSource has no last event ID and sends no headers of ours: its URL carries both.
      url = setParameter(setParameter(address, 'token', token), 'last_event_id', lastEventId)
      const opened = new EventSource(url, { withCredentials })
      source?.close() // after the constructor, which may throw
      source = opened
      for (const type of EVENT_TYPES) {
        opened.addEventListener(type, event => {
          if (opened !== source) return
          const before = position()
          if (event.lastEventId) lastEventId = event.lastEventId
          handle(event, before)
        })
      }
    },
    close() {
      source?.close()
      source = undefined
    },
  }
}

/** @param {string} url @param {string} name @param {string} value */
function setParameter(url, name, value) {
  if (!value) return url
  const [path, query = ''] = url.split('#')[0].split(/\?(.*)/s)
  const pairs = query.split('&').filter(pair => pair && pair.split('=')[0] !== name)
  return `${path}?${[...pairs, `${name}=${encodeURIComponent(value)}`].join('&')}`
}

/**
 * The name that tabs have in common which share a stream; '' for a stream of one's own.
 *
 * @param {string} address
 * @param {Options} options
 */
function nameStream(address, { share, withCredentials = false }) {
  if (!share) return ''
  try {
    const url = new URL(address, thePage()?.baseURI ?? globalThis.location?.href)
    for (const own of ['token', 'last_event_id']) url.searchParams.delete(own)
    url.hash = ''
    return JSON.stringify([MESSAGE_FORM, share, url.href, withCredentials])
  } catch {
    return '' // an EventSource says what is wrong with the URL
  }
}

/**
 * One stream for the tabs of a name. The tab that holds their lock *leads*: it has the stream, and
 * tells the others each event, and its position when asked. The roles:
 *
 *     from       to         when
 *     away       following  the page opens its stream
 *     following  leading    the lock is free, or is stolen from a leader that does not answer
 *     leading    following  another tab has stolen the lock
 *     any        away       the page is paused, or ends
 *     any        alone      the tabs do not share, or the browser refuses a lock or a channel
 *
 * Tabs that are shown wait in the queue of the lock. A browser wakes a hidden one late: it leads if
 * nobody else does. A lock that is waited for and an open channel keep a page out of the
 * back/forward cache, so a page that is away has neither.
 *
 * @param {string} name
 * @param {{ open(): void, lead(): void, follow(): void, hear(message: Message): void, answer(): void }} page
 */
function shareStream(name, page) {
  /** @type {'alone' | 'away' | 'following' | 'leading'} */
  let role = name ? 'away' : 'alone'
  /** @type {BroadcastChannel | undefined} */
  let channel
  /** @type {AbortController | undefined} the end of a request for the lock, or of the lock */
  let turn
  let stealTimer = 0

  function listen() {
    channel = new BroadcastChannel(name)
    role = 'following'
    channel.onmessage = ({ data: message }) => {
      if (!message && role === 'leading') page.answer()
      if (!message || role !== 'following') return
      clearTimeout(stealTimer)
      page.hear(message)
    }
  }

  /** @param {LockOptions} [options] */
  async function request(options) {
    turn?.abort()
    const { signal } = (turn = new AbortController())
    try {
      await navigator.locks.request(name, options ?? { signal }, lock => {
        if (!lock || signal.aborted) return
        clearTimeout(stealTimer)
        role = 'leading'
        const isOver = new Promise(resolve => signal.addEventListener('abort', resolve))
        page.lead()
        return isOver
      })
      if (!signal.aborted) turn = undefined // it was not available
    } catch (error) {
      if (signal.aborted) return
      if (role === 'leading' && /** @type {Error} */ (error).name === 'AbortError') step()
      else goAlone()
    }
  }

  function step() {
    role = 'following'
    turn = undefined
    page.follow()
    queue()
  }

  function queue() {
    if (role !== 'following') return
    if (!isHidden()) turn ?? request()
    else {
      turn?.abort()
      turn = undefined
    }
  }

  function leave() {
    clearTimeout(stealTimer)
    turn?.abort()
    turn = undefined
    channel?.close()
    if (role !== 'alone') role = 'away'
  }

  function goAlone() {
    leave()
    role = 'alone'
    page.open()
  }

  return {
    queue,
    leave,
    mayConnect: () => role === 'alone' || role === 'leading',
    /** Asks for the position, and leads if nobody answers. @param {number} heartbeatMs */
    join(heartbeatMs) {
      try {
        if (role === 'away') listen()
        channel?.postMessage('')
      } catch {
        return goAlone()
      }
      // Not all at once: the first to lead tells the others, and those that are shown come first.
      clearTimeout(stealTimer)
      const beats = (isHidden() ? 0.625 : 0.25) + 0.375 * Math.random()
      stealTimer = setTimeout(() => request({ steal: true }), beats * heartbeatMs)
      if (!isHidden()) queue()
      else turn ?? request({ ifAvailable: true })
    },
    /** @param {Message} message */
    tell(message) {
      if (role === 'leading') channel?.postMessage(message)
    },
  }
}

/**
 * Calls `onSilence` when the allowed silence is over. Timers stand still while a laptop sleeps, so
 * the clock is read every 15 s at least.
 *
 * @param {() => void} onSilence
 */
function watchSilence(onSilence) {
  let timer = 0
  let startedAt = 0
  let allowedMs = 0

  // A clock that was set back would hide a silence: the jump counts as silence.
  const silentMs = () => Math.abs(Date.now() - startedAt)

  function check() {
    clearTimeout(timer)
    const leftMs = allowedMs - silentMs()
    if (leftMs > 0) timer = setTimeout(check, Math.min(leftMs, HEARTBEAT_MS))
    else onSilence()
  }

  return {
    /** @param {number} ms from now on */
    allow(ms) {
      startedAt = Date.now()
      allowedMs = ms
      check()
    },
    silentMs,
    /** Whether half of the allowed silence is over: 1.5 heartbeats, or 30 s of a reconnection. */
    isSuspicious: () => silentMs() > allowedMs / 2,
    stop: () => clearTimeout(timer),
  }
}

/**
 * Calls `listener` when the page is shown, hidden, left, or online again. Returns the undo.
 *
 * @param {(event: Event) => void} listener
 */
function onPageEvent(listener) {
  /** @param {'addEventListener' | 'removeEventListener'} method missing in Node */
  function forEachEvent(method) {
    for (const type of ['visibilitychange', 'prerenderingchange'])
      thePage()?.[method](type, listener)
    for (const type of ['pagehide', 'pageshow', 'online']) globalThis[method]?.(type, listener)
  }

  forEachEvent('addEventListener')
  return () => forEachEvent('removeEventListener')
}

/** The document; a worker has none. TypeScript does not know `prerendering` yet. */
const thePage = () => /** @type {any} */ (globalThis.document)

/** Whether nobody sees the page. A worker counts as visible, and so does a page with a window on top. */
const isHidden = () =>
  thePage()?.hidden && !(/** @type {any} */ (globalThis).documentPictureInPicture?.window)

/** @param {number} ms none if it is longer than a timer can wait @param {() => void} run */
const after = (ms, run) => (ms <= LONGEST_TIMER_MS ? setTimeout(run, ms) : 0)

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
