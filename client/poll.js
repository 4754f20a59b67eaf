// @ts-check
/**
 * Polls the service where a proxy lets no event stream through. index.js loads this file when it is
 * needed; poll.d.ts says when that is.
 *
 * Knows how the service answers a poll, and how long a stream may be silent beside polls that
 * succeed. Does not know what the page does with what has changed.
 */

/** @import { EventSourceLike, Options } from './index.js' */
/** @typedef {Record<string, { id: string | null, topics: string[] | null, reason: string }>} Owed by merchant */
/** @typedef {{ status: number, paceS: number, owed?: Owed, grant?: string }} Answer */
/**
 * @typedef {object} Means what polling needs of the page, and of the module
 * @property {NonNullable<Options['EventSource']>} EventSource
 * @property {NonNullable<Options['fetch']>} fetch
 * @property {boolean} [withCredentials]
 * @property {readonly string[]} types of the events of a stream
 * @property {(failed: number) => number} waitMs after this many failures in a row
 * @property {() => boolean} isHidden
 */

/** How long a poll may take. */
const POLL_MS = 15_000
/** How long a stream may be silent that is tried beside polls that succeed. */
const TRIAL_S = 15
/** The time from one stream that was mute to the trial of the next. */
const TRIAL_INTERVAL_MS = 300_000
/** The pace without a `Retry-After`, and its limits. */
const PACE_S = 10
const LONGEST_PACE_S = 3_600
/** The shortest `heartbeat_s` that a poll announces: an answer takes its time as well. */
const HEARTBEAT_S = 15

const CONNECTING = 0
const OPEN = 1
const CLOSED = 2

/** @type {typeof import('./poll.js').pollInstead} */
export function pollInstead(options, types, waitMs, isHidden) {
  const {
    EventSource = globalThis.EventSource,
    fetch = globalThis.fetch,
    withCredentials,
  } = options
  const means = { EventSource, fetch, withCredentials, types, waitMs, isHidden }
  const memory = { mutedAt: -Infinity }
  return url => /** @type {any} */ (new Polls(url, means, memory))
}

/**
 * Has the members of an EventSource, and fires the events of one. It is in one of these states:
 *
 *     from      to        when
 *     probing   polling   polls succeed, and the stream that is tried beside them is mute
 *     probing   ended     a poll fails, or the stream fails: the service may be down
 *     polling   polling   a poll fails, in a way that may pass: after a wait, the next one
 *     polling   ended     a poll is refused
 *     any       relaying  the stream that is tried has an event: no more polls
 *     any       ended     it is closed
 *
 * While it probes, the page is told of changes already, but not that it polls. One that begins within
 * 5 min after a stream was mute begins as polling: a new token needs no new trial.
 */
class Polls extends EventTarget {
  /** @type {'probing' | 'polling' | 'relaying' | 'ended'} */
  #state
  #means
  #memory
  #path
  #query
  /** @type {Set<string>} */
  #merchants = new Set()
  /** The newest event ID of each merchant. @type {Map<string, string>} */
  #positions = new Map()
  #isReady = false
  /** What stands for the rights of the page: they may change from one poll to the next. @type {string | undefined} */
  #grant
  #failures = 0 // in a row
  #request = new AbortController()
  #pollTimer = 0
  #trialTimer = 0
  /** @type {EventSourceLike | undefined} the stream that is tried, or that has come to life */
  #stream

  /** @param {string} url @param {Means} means @param {{ mutedAt: number }} memory */
  constructor(url, means, memory) {
    super()
    this.#means = means
    this.#memory = memory
    const [path, query] = url.split('#')[0].split(/\?(.*)/s)
    this.#path = path
    this.#query = new URLSearchParams(query)
    this.#merchants = new Set(this.#query.getAll('merchant_id'))
    const [only] = this.#merchants.size === 1 ? this.#merchants : ['']
    for (const id of this.#query.getAll('last_event_id')) {
      const merchant = id.includes('@') ? id.split('@')[0] : only
      this.#positions.set(merchant, id)
      if (merchant) this.#merchants.add(merchant)
    }
    this.#state = this.#trialMs() > 0 ? 'polling' : 'probing'
    if (this.#state === 'polling') this.#tryLater()
    this.#poll()
  }

  get readyState() {
    if (this.#state === 'relaying') return /** @type {EventSourceLike} */ (this.#stream).readyState
    if (this.#state === 'ended') return CLOSED
    return this.#isReady ? OPEN : CONNECTING
  }

  close() {
    this.#stop()
    this.#endTrial()
    this.#state = 'ended'
  }

  // -- polls

  async #poll() {
    const request = (this.#request = new AbortController())
    const timer = setTimeout(() => request.abort(), POLL_MS)
    /** @type {Answer | undefined} */
    let answer
    try {
      answer = await this.#ask(request.signal)
    } catch {} // no answer, or one that is not of the service
    clearTimeout(timer)
    if (request !== this.#request) return
    if (answer?.owed) this.#succeed(answer.owed, answer)
    else this.#fail(answer)
  }

  /** @param {AbortSignal} signal @returns {Promise<Answer>} */
  async #ask(signal) {
    const { fetch } = this.#means // not a method: a browser's own refuses to be one
    const response = await fetch(this.#url(), {
      headers: { Accept: 'application/json' },
      cache: 'no-store',
      credentials: this.#means.withCredentials ? 'include' : 'same-origin',
      signal,
    })
    const told = Number(response.headers?.get('Retry-After')) || PACE_S
    const answer = { status: response.status, paceS: Math.min(told, LONGEST_PACE_S) }
    if (response.status !== 200) return answer
    const { merchants, grant } = await response.json?.()
    return { ...answer, owed: Object(merchants) === merchants ? merchants : undefined, grant }
  }

  /** @param {Owed} owed @param {Answer} answer */
  #succeed(owed, { paceS, grant }) {
    this.#failures = 0
    this.#pollLater(paceS * 1_000)
    for (const [merchant, { id }] of Object.entries(owed)) {
      this.#merchants.add(merchant)
      if (id) this.#positions.set(merchant, id)
      else this.#positions.delete(merchant)
    }
    const isSame = grant === this.#grant
    this.#grant = grant
    if (!this.#isReady || !isSame) this.#announce(paceS, owed)
    for (const [merchant, { id, topics, reason }] of Object.entries(owed))
      this.#emit('refresh', { merchant_id: merchant, topics, reason, ...beats(paceS) }, id ?? '')
    this.#emit('heartbeat', beats(paceS))
    if (this.#state === 'probing' && !this.#stream) this.#try()
  }

  /** @param {Answer} [answer] */
  #fail(answer) {
    const mayPass = !answer || answer.status === 429 || answer.status >= 500
    if (this.#state === 'probing' || !mayPass) return this.#end()
    this.#isReady = false
    const paceS = answer?.status === 503 ? answer.paceS : 0
    this.#pollLater(Math.max(paceS * 1_000, this.#means.waitMs(this.#failures++)))
    this.#emit('error')
    if (paceS) this.#emit('heartbeat', beats(paceS))
  }

  /** @param {number} ms */
  #pollLater(ms) {
    this.#pollTimer = setTimeout(() => this.#poll(), ms)
  }

  /** @param {number} paceS @param {Owed} owed */
  #announce(paceS, owed) {
    this.#isReady = true
    const merchants = Object.fromEntries(
      [...this.#merchants].map(merchant => [merchant, { owed: merchant in owed }]),
    )
    const state = this.#state === 'probing' ? 'connecting' : 'polling'
    this.#emit('ready', { state, merchants, grant: this.#grant, ...beats(paceS) })
  }

  #url() {
    const query = new URLSearchParams(this.#query)
    query.delete('last_event_id')
    for (const id of this.#positions.values()) query.append('last_event_id', id)
    return `${this.#path}?${query}`
  }

  #stop() {
    this.#request.abort()
    this.#request = new AbortController() // that of no poll: an answer that is on its way is dropped
    clearTimeout(this.#pollTimer)
  }

  // The owner decides, as after any status of an EventSource.
  #end() {
    this.close()
    this.#emit('error')
  }

  // -- the trial of a stream

  /** How long until a stream is tried again. A clock that was set back does not put it off. */
  #trialMs() {
    return TRIAL_INTERVAL_MS - Math.abs(Date.now() - this.#memory.mutedAt)
  }

  #try() {
    const { EventSource, withCredentials, types } = this.#means
    const stream = (this.#stream = new EventSource(this.#url(), { withCredentials }))
    for (const type of types) {
      stream.addEventListener(type, event => {
        if (stream === this.#stream) this.#hear(event)
      })
    }
    this.#watch(TRIAL_S)
  }

  #tryLater() {
    this.#trialTimer = setTimeout(() => this.#try(), Math.max(this.#trialMs(), 0))
  }

  // Second by second: neither the sleep of a machine nor the time of a hidden page is silence.
  /** @param {number} leftS */
  #watch(leftS) {
    this.#trialTimer = setTimeout(() => {
      if (leftS > 0) return this.#watch(this.#means.isHidden() ? leftS : leftS - 1)
      this.#memory.mutedAt = Date.now()
      this.#endTrial()
      this.#tryLater()
      if (this.#state === 'probing') this.#begin() // last, as the page may end it
    }, 1_000)
  }

  #begin() {
    this.#state = 'polling'
    this.#announce(HEARTBEAT_S, {})
  }

  /** @param {MessageEvent} event of the stream */
  #hear({ type, data, lastEventId }) {
    if (this.#state !== 'relaying') {
      if (type === 'open') return // the headers may come through where no event does
      if (type === 'error') return this.#failTrial()
      this.#stop()
      clearTimeout(this.#trialTimer)
      this.#state = 'relaying'
    }
    this.dispatchEvent(new MessageEvent(type, { data, lastEventId }))
  }

  #failTrial() {
    this.#endTrial()
    if (this.#state === 'probing') return this.#end()
    this.#memory.mutedAt = Date.now()
    this.#tryLater()
  }

  #endTrial() {
    clearTimeout(this.#trialTimer)
    this.#stream?.close()
    this.#stream = undefined
  }

  /** @param {string} type @param {object} [fields] @param {string} [lastEventId] */
  #emit(type, fields = {}, lastEventId = '') {
    this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(fields), lastEventId }))
  }
}

/** What tells the owner when to worry. @param {number} paceS */
const beats = paceS => ({ heartbeat_s: Math.max(paceS, HEARTBEAT_S) })
