/**
 * A browser for tests: a fake EventSource that is fed text as it arrives over the wire, a fake
 * clock, and fakes of what else the module uses. No real time passes, and nothing leaves the
 * process.
 */

import { afterEach, beforeEach } from 'node:test'
import { createParser } from 'eventsource-parser'
import '../poll.js' // to load a file takes real time: it is there before a clock is a fake

export const URL_42 = '/events?merchant_id=42'

const realSetImmediate = setImmediate

/** Lets every promise that can settle do so. */
export const settle = () => new Promise(resolve => realSetImmediate(resolve))

/** A wall clock and timers. While the machine sleeps, only the wall clock moves. */
class Clock {
  wall = 1_700_000_000_000
  timers = new Map()
  longest = 0
  #elapsed = 0
  #nextId = 1

  setTimeout = (run, ms = 0) => {
    this.longest = Math.max(this.longest, ms)
    this.timers.set(this.#nextId, { run, at: this.#elapsed + Math.max(ms, 1) })
    return this.#nextId++
  }

  clearTimeout = id => {
    this.timers.delete(id)
  }

  /** Runs the timers that fall due within `ms`, in order. */
  async advance(ms) {
    const end = this.#elapsed + ms
    for (;;) {
      await settle()
      const [id, next] = [...this.timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? []
      if (!next || next.at > end) break
      this.#move(next.at)
      this.timers.delete(id)
      next.run()
    }
    this.#move(end)
  }

  /** performance.now(), which stands still while the machine sleeps, as in most browsers. */
  now = () => this.#elapsed

  /** Suspends the machine: the time of day goes on, timers do not. */
  sleep(ms) {
    this.wall += ms
  }

  #move(elapsed) {
    this.wall += elapsed - this.#elapsed
    this.#elapsed = elapsed
  }
}

export class FakeEventSource extends EventTarget {
  static CONNECTING = 0
  static OPEN = 1
  static CLOSED = 2

  readyState = FakeEventSource.CONNECTING
  #lastEventId = ''
  #parser = createParser({
    onEvent: ({ event = 'message', data, id }) => {
      if (id !== undefined) this.#lastEventId = id
      if (this.readyState === FakeEventSource.CLOSED) return
      this.dispatchEvent(new MessageEvent(event, { data, lastEventId: this.#lastEventId }))
    },
  })

  constructor(url, init = {}) {
    super()
    this.url = String(url)
    this.withCredentials = init.withCredentials ?? false
    sources.push(this)
  }

  close() {
    this.readyState = FakeEventSource.CLOSED
  }

  /** The response's headers arrive. */
  accept() {
    this.readyState = FakeEventSource.OPEN
    this.dispatchEvent(new Event('open'))
  }

  receive(text) {
    this.#parser.feed(text)
  }

  ready({ id, heartbeat_s = 15, grant } = {}) {
    this.accept()
    this.receive('retry: 2345\n')
    this.event('ready', { merchant_id: '42', grant, heartbeat_s, connection_id: 'c-1' }, id)
  }

  refresh(fields = {}, id) {
    this.event('refresh', { merchant_id: '42', ...fields }, id)
  }

  heartbeat() {
    this.event('heartbeat', {})
  }

  goodbye(reason = 'server_stopping') {
    this.receive('retry: 30000\n')
    this.event('goodbye', { reason })
  }

  expiring() {
    this.event('expiring', { expires_in_s: 30 })
  }

  event(type, data, id) {
    this.receive(`${id ? `id: ${id}\n` : ''}event: ${type}\ndata: ${JSON.stringify(data)}\n\n`)
  }

  /** WHATWG #reestablish-the-connection: the browser reconnects by itself. */
  drop() {
    this.readyState = FakeEventSource.CONNECTING
    this.dispatchEvent(new Event('error'))
  }

  /** WHATWG #fail-the-connection: the browser does not reconnect. */
  giveUp() {
    this.readyState = FakeEventSource.CLOSED
    this.dispatchEvent(new Event('error'))
  }
}

/** A window or a document that counts its listeners. */
export class FakeTarget extends EventTarget {
  #added = []

  get listeners() {
    return this.#added.length
  }

  addEventListener = (type, listener, { signal } = {}) => {
    this.#added.push([type, listener])
    super.addEventListener(type, listener)
    signal?.addEventListener('abort', () => this.removeEventListener(type, listener))
  }

  removeEventListener = (type, listener) => {
    this.#added = this.#added.filter(added => added[0] !== type || added[1] !== listener)
    super.removeEventListener(type, listener)
  }

  fire(type, properties = {}) {
    this.dispatchEvent(Object.assign(new Event(type), properties))
  }
}

/** The answer of `fakeFetch` is given by the test. */
export const BY_HAND = 0

/** A `fetch` that answers at once, or whose answers the test gives by hand. */
function fakeFetch(url, init) {
  return new Promise((resolve, reject) => {
    init.signal.addEventListener('abort', () => reject(init.signal.reason))
    heads.push({ url, init, answer: status => resolve({ status }), fail: reject })
    if (headStatus !== BY_HAND) resolve({ status: headStatus })
  })
}

/** A callback whose calls the test ends by hand. */
export function handCallback() {
  const calls = []
  const callback = refresh =>
    new Promise((resolve, reject) => {
      calls.push({ refresh, resolve, reject })
    })
  callback.calls = calls
  callback.refreshes = () => calls.map(({ refresh }) => refresh)
  return callback
}

/** A `token` whose answers the test gives by hand. */
export function handToken() {
  const asked = []
  const token = () => new Promise((resolve, reject) => asked.push({ resolve, reject }))
  token.asked = asked
  return token
}

/** A `token` that answers t1, t2, t3 at once. */
export function countingToken() {
  const token = async () => `t${++token.asked}`
  token.asked = 0
  return token
}

/** @type {Clock} */
export let clock
/** @type {FakeEventSource[]} each EventSource that was constructed */
export let sources
/** Each request that was sent with `fetch`. */
export let heads
/** @type {FakeTarget} the document */
export let page
/** @type {FakeTarget} the window */
export let tab
/** The refreshes that `callback` was called with. */
export let calls
/** The errors that went to `reportError`. */
export let reported
let random
let headStatus

export const callback = refresh => {
  calls.push(refresh)
}
export const last = () => sources[sources.length - 1]
export const lastHead = () => heads[heads.length - 1]
export const urls = () => sources.map(({ url }) => url)
export const openOnes = () =>
  sources.filter(({ readyState }) => readyState !== FakeEventSource.CLOSED)

/** Sets a global until the test ends. */
export const set = (name, value) =>
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })

/** Sets the value of `Math.random()`. */
export const setRandom = value => {
  random = value
}

/** The status of the HEAD requests from now on. */
export const setHeadStatus = status => {
  headStatus = status
}

/** Shows or hides the page. */
export function visibility(state) {
  page.visibilityState = state
  page.hidden = state === 'hidden'
  page.fire('visibilitychange')
}

export const listening = ['addEventListener', 'removeEventListener']
const replaced = [
  'setTimeout',
  'clearTimeout',
  'performance',
  'EventSource',
  'fetch',
  'reportError',
  'document',
]

/** Puts new fakes in the place of the globals. */
export function installFakes(status = 503) {
  headStatus = status
  clock = new Clock()
  sources = []
  heads = []
  calls = []
  reported = []
  random = 0.5
  page = new FakeTarget()
  page.hidden = false
  page.visibilityState = 'visible'
  tab = new FakeTarget()
  set('setTimeout', clock.setTimeout)
  set('clearTimeout', clock.clearTimeout)
  set('performance', clock)
  set('EventSource', FakeEventSource)
  set('fetch', fakeFetch)
  set('reportError', error => reported.push(error))
  set('document', page)
  for (const name of listening) set(name, tab[name])
  Date.now = () => clock.wall
  Math.random = () => random
}

/**
 * Gives each test of a file fakes of its own, and the real globals back at its end. HEAD requests
 * are answered with `status`.
 */
export function useFakes(status) {
  const real = {}

  beforeEach(() => {
    for (const name of [...replaced, ...listening]) {
      real[name] = Object.getOwnPropertyDescriptor(globalThis, name)
    }
    real.now = Date.now
    real.random = Math.random
    installFakes(status)
  })

  afterEach(() => {
    for (const name of [...replaced, ...listening]) {
      if (real[name]) Object.defineProperty(globalThis, name, real[name])
      else delete globalThis[name]
    }
    Date.now = real.now
    Math.random = real.random
  })
}
