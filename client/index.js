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
/** @typedef {Partial<Omit<Refresh, 'id' | 'merchantId'>>} Arrival what one or more events have said */
/** @typedef {Record<string, string>} Positions the newest event ID of each merchant */
/**
 * @typedef {object} Message what the tab with the stream tells the others
 * @property {string} [type] of the event that has arrived, if any
 * @property {string} [data] of that event
 * @property {Positions} before the positions before that event
 * @property {Positions} positions now
 * @property {string[]} merchants of the stream, as far as they are known
 * @property {State | undefined} state
 * @property {string | undefined} grant the rights of the stream; none until `ready` has said them
 * @property {number} heartbeatMs
 */

/** The longest pause between two events, until `ready` announces the service's own. */
const HEARTBEAT_MS = 15_000
/** How long a token may take, and then how long the headers of a new EventSource. */
const OPENING_MS = 45_000
/** How long a stream without an event has lasted when its end shows that a proxy holds events back. */
const MUTE_MS = 20_000
/** How many heartbeats may pass before a tab asks whether the tab with the stream is alive. */
const SUSPICION = 1.5
/** How long a browser may take to reconnect: a `goodbye` asks it to wait up to half of this. */
const RECONNECTING_MS = 60_000
/** No timer waits longer than this: beyond 24.8 days it would end at once. */
const LONGEST_TIMER_MS = 2e9
/** The form of a `Message`. Tabs whose modules have different forms do not share a stream. */
const MESSAGE_FORM = 'sse-push/3'

const EVENT_TYPES = 'open ready refresh position heartbeat expiring goodbye error'.split(' ')
/** `readyState` of an EventSource that has given up. WHATWG #dom-eventsource-closed */
const CLOSED = 2

/** @type {Refresh['reason'][]} weakest first */
const REASONS = ['connected', 'missed', 'resync']
/** @type {Arrival} */
const UNCONFIRMED = { reason: 'unconfirmed' }

/**
 * The states that `onState` reports, and the states that can follow each of them.
 *
 *     from        to          when
 *     connecting  open        `ready` has arrived, and what it knew nothing of yet has followed
 *     open        connecting  the stream has ended, has been silent for too long, or is replaced
 *     connecting  polling     streams are mute, and polls succeed: see poll.js
 *     open        polling     the same, in a tab that has been told so by another one
 *     polling     open        a stream that was tried has come to life
 *     polling     connecting  a poll has failed, or is replaced
 *     connecting  refused     the service has refused twice without a `ready` between
 *     any         closed      the page has called the undo
 *
 * While the state is `connecting`, this module waits for one of these: a token, an EventSource that
 * connects, the status of one that has given up, or a timer before the next opening. A stream that
 * is paused waits for the page to be shown, and for nothing else: while the page is prerendered, in
 * the back/forward cache, or hidden for `hiddenCloseMs`.
 *
 * @type {Record<State, string>}
 */
const NEXT_STATES = {
  connecting: 'open polling refused closed',
  open: 'connecting polling closed',
  polling: 'connecting open closed',
  refused: 'closed',
  closed: '',
}

/** @type {typeof import('./index.js').onRefresh} */
export function onRefresh(url, callback, options = {}) {
  const { by, onState, token, withCredentials, fetch = globalThis.fetch } = options
  const { waitBaseMs = 1_000, waitCapMs = 30_000 } = options
  const { whileHidden = 'call', hiddenCloseMs = 300_000 } = options
  // A class of the page's own may send headers that the global fetch does not.
  const mayAsk = token || options.fetch || !options.EventSource
  const name = mayAsk ? nameStream(String(url), options) : ''
  const tabs = shareStream(name, { open, lead, follow, hear, answer })

  /** @type {State | undefined} */
  let state
  let request = new AbortController() // for a token, or for the status of a refused EventSource
  let reopenTimer = 0
  let hiddenTimer = 0 // before a stream is paused
  let isPaused = false
  let failures = 0 // in a row
  let refusals = 0 // since the last `ready`
  let readyAt = 0
  let isMute = false // no event since the stream was opened, or since the browser has reconnected
  let heartbeatMs = HEARTBEAT_MS
  /** @type {string | undefined} what stands for this tab's rights, once the service has said it */
  let grant
  /** @type {Set<string>} merchants of which `ready` knew nothing yet, as Redis had not answered */
  const pending = new Set()

  const stream = oneSourceAtATime(String(url), options, handleEvent)
  const isHeld = () => whileHidden === 'defer' && isHidden()
  const calls = scheduleCalls(callback, stream, waitMs, isHeld, options)
  const silence = watchSilence(() => {
    if (!tabs.mayConnect()) return calls.areDeferred() || open()
    if (!stream.source()) report(new Error('token() has not settled'))
    replace()
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

  /** @param {string} [type] @param {string} [data] @param {Positions} [before] */
  function tell(type, data, before = stream.positions()) {
    tabs.tell({
      type,
      data,
      before,
      positions: stream.positions(),
      merchants: stream.merchants(),
      state,
      grant,
      heartbeatMs,
    })
  }

  // Chromium hands a frozen page its messages, but no event of its stream, and runs no timer.
  function answer() {
    const allowedMs =
      state === 'connecting' ? Math.max(RECONNECTING_MS, waitCapMs) : SUSPICION * heartbeatMs
    if (silence.silentMs() < allowedMs) tell()
  }

  // What counts are the positions: a message may have been told while this tab was frozen or away.
  // A tab that was where the leader was before the event has missed nothing but the event.
  /** @param {Message} message */
  function hear({ type, data = '', before, positions, merchants, ...message }) {
    heartbeatMs = message.heartbeatMs
    silence.allow(SUSPICION * heartbeatMs)
    // A name says nothing of rights: before any other use of a message, the service has said that
    // both tabs have the same ones. The request has 45 s, and begins anew after a failure's wait.
    if (message.grant !== grant || !grant) {
      if (!message.grant || reopenTimer) return
      reopenTimer = setTimeout(open, OPENING_MS)
      return token ? renewToken(message.grant) : ask(message.grant)
    }
    stream.keep(merchants)
    calls.keep()
    const fields = parse(data)
    const changed = type === 'refresh' ? merchantOf(fields) : undefined
    const all = { [String(changed)]: '', ...positions }
    for (const [merchant, id] of Object.entries(all)) {
      const own = stream.positions()[merchant]
      const isNext = own === before[merchant]
      if (id) stream.moveTo(merchant, id)
      if (isNext && merchant === changed) handleRefresh(fields)
      else if (!isNext && id && id !== own)
        calls.add(merchant, { reason: own ? 'missed' : 'connected' })
      else if (id && message.state !== 'connecting') calls.confirm(merchant)
    }
    if (message.state) enter(message.state)
    lookAtPage()
  }

  // -- the stream

  function listen() {
    stream.open()
    isMute = true
    readyAt = Infinity
    silence.allow(OPENING_MS) // if no headers arrive, the browser fires no event
  }

  // The wait goes on meanwhile: the file may come by the way of the stream, or not be there.
  async function poll() {
    const signal = newRequest()
    const module = await import('./poll.js').catch(() => undefined)
    if (signal.aborted || !module) return
    stream.openBy(module.pollInstead(options, EVENT_TYPES, waitMs, isHidden))
    failures-- // if the poll fails as well, both are one failure
    open()
  }

  // An open stream stays open while its new token is awaited.
  /** @param {string} [told] by the tab with the stream, if the token is for a poll: see `ask` */
  async function renewToken(told) {
    const signal = newRequest()
    try {
      const text = await token?.()
      if (signal.aborted) return
      if (typeof text !== 'string') throw new TypeError(`token() gave ${typeof text}`)
      stream.useToken(text)
      if (told) return ask(told)
      listen()
      enter('connecting')
    } catch (error) {
      if (signal.aborted) return
      report(error)
      // An open stream needs no token yet: its end requests one again.
      if (!stream.source()) openLater()
    }
  }

  /**
   * An EventSource hides the status of the response; HEAD shows it. A poll shows the rights of this
   * tab: it has an answer of the service before it hears what another one is told.
   *
   * @param {string} [told] the rights of the tab with the stream
   */
  async function ask(told) {
    const signal = newRequest()
    const credentials = withCredentials ? 'include' : undefined
    const method = told ? 'GET' : 'HEAD'
    let status
    let own
    try {
      const answer = await fetch(stream.url(), {
        method,
        headers: { Accept: 'application/json' },
        credentials,
        signal,
      })
      status = answer.status
      own = told && (await answer.json?.()).grant
    } catch {} // a network error is no refusal
    if (signal.aborted) return
    if (told && status === 200) {
      failures = refusals = 0
      grant = own
      if (own !== told) tabs.part(own)
      return open()
    }
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
    reopenTimer = 0
    request.abort()
    isMute = false
    stream.close()
  }

  function openLater() {
    close()
    reopenTimer = setTimeout(open, waitMs(failures++))
    enter('connecting')
  }

  // Polls begin at once, while the timer goes on: they may not be possible either.
  function replace() {
    const mayPoll = isMute && mayAsk
    openLater()
    if (mayPoll) poll()
  }

  function pause() {
    close()
    tabs.leave()
    grant = undefined // another user may have logged in when the page is shown again
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

  /** @param {MessageEvent} event @param {Positions} before the positions before the event */
  function handleEvent({ type, data, lastEventId }, before) {
    if (type === 'error') return handleError()
    isMute = type === 'open'
    const fields = parse(data)
    if (fields.heartbeat_s > 0) heartbeatMs = fields.heartbeat_s * 1_000
    if (type === 'ready') {
      // A stream of one merchant has an ID before the first call only if the page is owed nothing.
      const merchants = (fields.merchants ??= { [merchantOf(fields)]: { owed: !lastEventId } })
      grant = fields.grant ?? 'none' // a follower's poll is then answered without it as well
      stream.keep(Object.keys(merchants))
      for (const [merchant, { id }] of Object.entries(merchants))
        if (id) stream.moveTo(merchant, id)
    }
    tell(type, data, before) // all of it: what is this page's own change is not the others'
    silence.allow(3 * heartbeatMs)
    if (type === 'refresh') handleRefresh(fields)
    // A token may be old when it arrives. The end of a stream that has not lasted counts as a
    // failure, so that such tokens are not renewed in a loop.
    const hasLasted = Date.now() - readyAt > 5 * waitBaseMs
    if (hasLasted) failures = 0
    if (type === 'ready') handleReady(fields)
    if (type === 'position') calls.confirm(merchantOf(fields))
    // The service has said where the page stands with the last merchant of which it was not known.
    if (pending.delete(fields.merchant_id) && !pending.size) enter('open')
    if (token && type === 'expiring' && hasLasted) renewToken()
    if (token && type === 'goodbye' && fields.reason === 'token_expired') {
      if (hasLasted) open()
      else openLater()
    }
    lookAtPage()
  }

  /** @param {any} fields of `ready`, which say of each merchant whether the page is owed a call */
  function handleReady({ merchants, state: next = 'open' }) {
    readyAt = Date.now()
    refusals = 0
    if (!token) failures = 0
    pending.clear()
    calls.keep()
    for (const [merchant, { owed, pending: isPending }] of Object.entries(merchants)) {
      if (isPending) pending.add(merchant)
      else if (!owed) calls.confirm(merchant)
    }
    if (!pending.size) enter(next)
  }

  function handleError() {
    // A proxy that holds back all events may end each stream, too, before it has been silent for long.
    if (isMute && silence.silentMs() > MUTE_MS) return replace()
    isMute = false
    // CLOSED, WHATWG #fail-the-connection: the browser has given up, as for any status but 200.
    const hasGivenUp = stream.source()?.readyState === CLOSED
    // CONNECTING, WHATWG #reestablish-the-connection: the browser reconnects after `retry`.
    silence.allow(RECONNECTING_MS)
    if (hasGivenUp && state !== 'polling') stream.openBy()
    if (hasGivenUp && mayAsk) ask()
    else if (hasGivenUp) openLater()
    enter('connecting')
  }

  /** @param {any} fields of a `refresh` */
  function handleRefresh(fields) {
    const { topic, topics = [topic], data, reason } = fields
    // With a reason, a refresh stands for other changes than the page's own as well.
    if (by !== undefined && fields.by === by && !reason) return
    calls.add(merchantOf(fields), {
      topics: typeof topics?.[0] === 'string' ? topics : undefined,
      data,
      reason: REASONS.find(known => known === reason),
    })
  }

  /** @param {any} fields of an event */
  const merchantOf = ({ merchant_id: merchant }) =>
    typeof merchant === 'string' ? merchant : (stream.merchants()[0] ?? '')

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
 * A slot for each merchant of the stream, all apart from each other. Until the service has said
 * which merchants these are, the slots are those that the URL names, or one without a name.
 *
 * @param {(refresh: Refresh) => unknown} callback
 * @param {{ merchants(): string[], lastEventId(merchant: string): string | undefined }} stream
 * @param {(failed: number) => number} waitMs before a failed call is repeated
 * @param {() => boolean} isHeld whether the page wants no call while it is hidden
 * @param {Options} options
 */
function scheduleCalls(callback, stream, waitMs, isHeld, options) {
  /** @type {Map<string, ReturnType<typeof openSlot>>} */
  const slots = new Map()
  let hasEnded = false

  /** @param {string} merchant */
  function slotOf(merchant) {
    if (!slots.has(merchant) && !hasEnded)
      slots.set(merchant, openSlot(merchant, callback, stream.lastEventId, waitMs, isHeld, options))
    return slots.get(merchant)
  }

  return {
    /** @param {string} merchant @param {Arrival} arrival */
    add: (merchant, arrival) => slotOf(merchant)?.add(arrival),
    startIfDue: () => slots.forEach(slot => slot.startIfDue()),
    areDeferred: () => slots.size > 0 && [...slots.values()].every(slot => slot.isDeferred()),
    /** Opens the first slots, once. */
    begin() {
      stream.merchants().forEach(slotOf)
      if (!slots.size) slotOf('')
    },
    /**
     * The stream is of its merchants, and of no other any more. The first of them takes over what
     * the slot without a name has begun.
     */
    keep() {
      const merchants = stream.merchants()
      const nameless = slots.get('')
      if (nameless && merchants[0]) {
        slots.delete('')
        slots.set(merchants[0], nameless)
        nameless.rename(merchants[0])
      }
      for (const merchant of merchants) {
        if (!slots.has(merchant) && nameless?.isBusy()) slotOf(merchant)?.add(UNCONFIRMED)
        else slotOf(merchant)
      }
      for (const [merchant, slot] of slots) {
        if (!merchant || merchants.includes(merchant)) continue
        slot.stop()
        slots.delete(merchant)
      }
    },
    /** The page is owed nothing of the merchant. @param {string} merchant */
    confirm: merchant => slotOf(merchant)?.confirm(),
    stop() {
      hasEnded = true
      slots.forEach(slot => slot.stop())
      slots.clear()
    },
  }
}

/**
 * Calls the page for one merchant, one call at a time. What has arrived and is not taken by a call
 * is *owed*. The states:
 *
 *     from      to        when
 *     idle      due       a refresh has arrived
 *     due       calling   its time has come: the call takes all that is owed
 *     calling   idle      the call has succeeded, and nothing has arrived meanwhile
 *     calling   due       the call has succeeded, and the next one is owed
 *     calling   retrying  the call has failed: what it had taken is owed again, as the older part
 *     retrying  calling   its time has come, as from `due`
 *     any       ended     the page has called the undo, the service has refused the page, or the
 *                         stream is of the merchant no more
 *
 * The time is set when `due` or `retrying` begins, and what arrives later never moves it: a call
 * that waited for silence would not be made while changes come fast. A page that is held starts no
 * call once it has been loaded; all else goes on as it would.
 *
 * @param {string} merchant
 * @param {(refresh: Refresh) => unknown} callback
 * @param {(merchant: string) => string | undefined} lastEventId the newest event ID
 * @param {(failed: number) => number} waitMs before a failed call is repeated
 * @param {() => boolean} isHeld whether the page wants no call while it is hidden
 * @param {Options} options
 */
function openSlot(merchant, callback, lastEventId, waitMs, isHeld, options) {
  const { firstCallMs = 3_000, minIntervalMs = 0 } = options
  /** @type {'idle' | 'due' | 'calling' | 'retrying' | 'ended'} */
  let state = 'idle'
  /** @type {Arrival | undefined} */
  let owed
  let dueAt = 0 // by performance.now(), which nobody sets back
  let failures = 0 // in a row
  let isLoaded = false
  let timer = 0
  const firstTimer = after(firstCallMs, () => add(UNCONFIRMED))

  function startIfDue() {
    if ((state !== 'due' && state !== 'retrying') || isDeferred()) return
    clearTimeout(timer)
    const leftMs = dueAt - performance.now()
    if (leftMs > 0) timer = after(leftMs, startIfDue)
    else call()
  }

  async function call() {
    const taken = /** @type {Arrival} */ (owed)
    owed = undefined
    state = 'calling'
    dueAt = performance.now() + minIntervalMs
    try {
      await callback({
        merchantId: merchant || undefined,
        id: lastEventId(merchant),
        topics: taken.topics,
        data: taken.data,
        reason: taken.reason,
      })
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
  const isDeferred = () => isLoaded && isHeld()

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
    isDeferred,
    isBusy: () => state !== 'idle',
    /** @param {string} name */
    rename(name) {
      merchant = name
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
    reason: REASONS[Math.max(REASONS.indexOf(a.reason), REASONS.indexOf(b.reason))] ?? a.reason,
  }
}

/**
 * Keeps at most one EventSource, and the last event ID of each merchant from each to the next.
 * Events of one that was replaced or closed are dropped.
 *
 * @param {string} address
 * @param {Options} options
 * @param {(event: MessageEvent, before: Positions) => void} handle
 */
function oneSourceAtATime(address, options, handle) {
  const { EventSource = globalThis.EventSource, withCredentials, share } = options
  /** @type {((url: string) => EventSourceLike) | undefined} instead of an EventSource */
  let openOther
  const [path, text] = address.split('#')[0].split(/\?(.*)/s)
  const query = new URLSearchParams(text)
  let merchants = [...new Set(query.getAll('merchant_id'))]
  if (share) query.set('grant', '1')
  // An ID has no name where the URL names one merchant.
  const only = merchants.length === 1 ? merchants[0] : ''
  /** @type {EventSourceLike | undefined} */
  let source
  /** @type {Map<string, string>} */
  const heard = new Map()
  /** A page that has heard nothing shows what it was rendered with. @type {Map<string, string>} */
  const rendered = new Map()
  for (const id of query.getAll('last_event_id')) if (ownerOf(id)) rendered.set(ownerOf(id), id)

  /** @param {string} id */
  function ownerOf(id) {
    return id.includes('@') ? id.split('@')[0] : only
  }

  const positions = () => Object.fromEntries([...rendered, ...heard])

  // A new EventSource has no last event ID and sends no headers of ours: its URL carries all.
  function url() {
    query.delete('last_event_id')
    for (const id of Object.values(positions())) query.append('last_event_id', id)
    return `${path}?${query}`
  }

  return {
    source: () => source,
    url,
    /** @param {string} text from the next opening on */
    useToken: text => query.set('token', text),
    /** None as long as the URL leaves them to the service, which has not said them. */
    merchants: () => merchants,
    /** @param {string} merchant */
    lastEventId: merchant => heard.get(merchant),
    positions,
    /** @param {string} merchant @param {string} id received by another tab, or part of `ready` */
    moveTo: (merchant, id) => heard.set(merchant, id),
    /** @param {string[]} told the stream is of no other merchant any more; none: that is not known */
    keep(told) {
      if (told[0]) merchants = told
      for (const known of [heard, rendered])
        for (const merchant of known.keys())
          if (merchant && !merchants.includes(merchant)) known.delete(merchant)
    },
    /** @param {(url: string) => EventSourceLike} [other] from the next opening on */
    openBy(other) {
      openOther = other
    },
    open() {
      const opened = openOther?.(url()) ?? new EventSource(url(), { withCredentials })
      source?.close() // after the constructor, which may throw
      source = opened
      for (const type of EVENT_TYPES) {
        opened.addEventListener(type, event => {
          if (opened !== source) return
          const before = positions()
          if (event.lastEventId) heard.set(ownerOf(event.lastEventId), event.lastEventId)
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
 *     following  away       the tab with the lock has other rights: the page opens its stream anew,
 *                           by a name that says its own
 *     following  alone      that was so before, or the service does not say the rights
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
  const common = name
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
        const isOver = new Promise(resolve => (signal.onabort = resolve))
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
    /** Shares with tabs of the same rights only; with none, if that was so already. @param {string} [grant] */
    part(grant) {
      leave()
      if (grant && name === common) name += grant
      else role = 'alone'
    },
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
  const undo = new AbortController()
  for (const type of ['visibilitychange', 'prerenderingchange'])
    thePage()?.addEventListener(type, listener, undo)
  for (const type of ['pagehide', 'pageshow', 'online'])
    globalThis.addEventListener?.(type, listener, undo) // missing in Node
  return () => undo.abort()
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
