/**
 * Each test runs the module against a fake EventSource, which is fed text as it comes over the
 * wire, and a fake clock. No time passes; nothing leaves the process.
 */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { createParser } from 'eventsource-parser'
import { onRefresh } from '../index.js'

const URL_42 = '/events?merchant_id=42'

/** Lets every promise that can go on do so. */
const settle = () => new Promise(resolve => realSetImmediate(resolve))
const realSetImmediate = setImmediate

/** A wall clock and timers, which part when the machine sleeps. */
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

  /** Runs what falls due within `ms`, in order. */
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

  /** The machine is suspended: the time of day goes on, timers do not. */
  sleep(ms) {
    this.wall += ms
  }

  #move(elapsed) {
    this.wall += elapsed - this.#elapsed
    this.#elapsed = elapsed
  }
}

class FakeEventSource extends EventTarget {
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

  ready({ id, heartbeat_s = 15 } = {}) {
    this.accept()
    this.receive('retry: 2345\n')
    this.event('ready', { merchant_id: '42', heartbeat_s, connection_id: 'c-1' }, id)
  }

  refresh(said = {}, id) {
    this.event('refresh', { merchant_id: '42', ...said }, id)
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

  /** WHATWG #reestablish-the-connection: the browser will be back by itself. */
  drop() {
    this.readyState = FakeEventSource.CONNECTING
    this.dispatchEvent(new Event('error'))
  }

  /** WHATWG #fail-the-connection: the browser will not be back. */
  giveUp() {
    this.readyState = FakeEventSource.CLOSED
    this.dispatchEvent(new Event('error'))
  }
}

/** A window or a document that knows how many listen. */
class FakeTarget extends EventTarget {
  #added = []

  get listeners() {
    return this.#added.length
  }

  addEventListener = (type, listener) => {
    this.#added.push([type, listener])
    super.addEventListener(type, listener)
  }

  removeEventListener = (type, listener) => {
    this.#added = this.#added.filter(added => added[0] !== type || added[1] !== listener)
    super.removeEventListener(type, listener)
  }

  fire(type, properties = {}) {
    this.dispatchEvent(Object.assign(new Event(type), properties))
  }
}

/** A `fetch` whose answers the test gives by hand. */
function fakeFetch(url, init) {
  return new Promise((resolve, reject) => {
    init.signal.addEventListener('abort', () => reject(init.signal.reason))
    heads.push({ url, init, answer: status => resolve({ status }), fail: reject })
  })
}

/** A callback whose calls the test ends by hand. */
function handCallback() {
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
function handToken() {
  const asked = []
  const token = () => new Promise((resolve, reject) => asked.push({ resolve, reject }))
  token.asked = asked
  return token
}

/** A `token` that answers t1, t2, t3 at once. */
function countingToken() {
  const token = async () => `t${++token.asked}`
  token.asked = 0
  return token
}

const real = {}
const replaced = ['setTimeout', 'clearTimeout', 'EventSource', 'fetch', 'reportError', 'document']
const listening = ['addEventListener', 'removeEventListener']

/** @type {Clock} */
let clock
/** @type {FakeEventSource[]} */
let sources
/** What was asked of fetch. */
let heads
/** @type {FakeTarget} */
let page
/** @type {FakeTarget} */
let tab
/** What onRefresh was called back with. */
let calls
/** What went to reportError. */
let reported
/** What Math.random says. */
let random

const callback = refresh => {
  calls.push(refresh)
}
const last = () => sources[sources.length - 1]
const set = (name, value) =>
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })

beforeEach(() => {
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
  for (const name of [...replaced, ...listening]) {
    real[name] = Object.getOwnPropertyDescriptor(globalThis, name)
  }
  real.now = Date.now
  real.random = Math.random
  set('setTimeout', clock.setTimeout)
  set('clearTimeout', clock.clearTimeout)
  set('EventSource', FakeEventSource)
  set('fetch', fakeFetch)
  set('reportError', error => reported.push(error))
  set('document', page)
  for (const name of listening) set(name, tab[name])
  Date.now = () => clock.wall
  Math.random = () => random
})

afterEach(() => {
  for (const name of [...replaced, ...listening]) {
    if (real[name]) Object.defineProperty(globalThis, name, real[name])
    else delete globalThis[name]
  }
  Date.now = real.now
  Math.random = real.random
})

/** Shows or hides the page. */
function visibility(state) {
  page.visibilityState = state
  page.hidden = state === 'hidden'
  page.fire('visibilitychange')
}

describe('the wire', () => {
  test('a whole connection is understood as it is written', async () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })

    last().accept()
    last().receive(
      'retry: 2345\nid: 1712-0\nevent: ready\n' +
        'data: {"merchant_id":"42","heartbeat_s":15,"connection_id":"c-1"}\n\n',
    )
    last().receive(
      'id: 1712-3\nevent: refresh\n' +
        'data: {"merchant_id":"42","topic":"seats","data":{"row":7},"by":"tab-7","reason":"missed"}\n\n',
    )
    last().receive('event: heartbeat\ndata: {}\n\n')
    last().receive('retry: 1834\nevent: goodbye\ndata: {"reason":"server_stopping"}\n\n')
    last().drop()
    await settle()

    assert.deepEqual(calls, [{ topics: ['seats'], data: { row: 7 }, reason: 'missed' }])
    assert.deepEqual(states, ['connecting', 'open', 'connecting'])
    assert.equal(sources.length, 1)
  })

  test('a refresh says only what it knows', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    await settle()

    assert.deepEqual(calls, [{ topics: undefined, data: undefined, reason: undefined }])
  })

  test('only a refresh calls the page', async () => {
    onRefresh(URL_42, callback)
    last().ready({ id: '1-0' })
    last().heartbeat()
    last().event('message', {})
    last().goodbye()
    last().drop()
    last().ready({ id: '1-0' })
    await settle()

    assert.deepEqual(calls, [])
  })

  for (const reason of ['connected', 'missed', 'resync']) {
    test(`the reason ${reason} is passed on`, async () => {
      onRefresh(URL_42, callback)
      last().ready()
      last().refresh({ reason })
      await settle()

      assert.deepEqual(calls, [{ topics: undefined, data: undefined, reason }])
    })
  }

  test('a reason of a later version is passed on as none', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats', reason: 'moved' })
    await settle()

    assert.deepEqual(calls, [{ topics: ['seats'], data: undefined, reason: undefined }])
  })

  for (const data of ['', '{"topic":"seats"', 'null', '42', '"seats"', '[]', '{"topic":7}']) {
    test(`a refresh whose data is ${data || 'empty'} means that everything may have changed`, async () => {
      onRefresh(URL_42, callback)
      last().ready()
      last().receive(`event: refresh\ndata: ${data}\n\n`)
      await settle()

      assert.deepEqual(calls, [{ topics: undefined, data: undefined, reason: undefined }])
    })
  }

  for (const data of ['', 'null', '{}', '{"heartbeat_s":0}', '{"heartbeat_s":"soon"}']) {
    test(`a ready whose data is ${data || 'empty'} leaves the heartbeat at 15 s`, async () => {
      onRefresh(URL_42, callback)
      last().accept()
      last().receive(`event: ready\ndata: ${data}\n\n`)

      await clock.advance(44_999)
      assert.equal(last().readyState, FakeEventSource.OPEN)
      await clock.advance(1)
      assert.equal(last().readyState, FakeEventSource.CLOSED)
    })
  }
})

describe('one call at a time', () => {
  test('refreshes during a call become exactly one more call after it', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats' })
    for (const topic of ['orders', 'films', 'orders']) last().refresh({ topic })
    await settle()
    assert.equal(callback.calls.length, 1)

    callback.calls[0].resolve()
    await settle()
    assert.deepEqual(callback.refreshes()[1], {
      topics: ['orders', 'films'],
      data: undefined,
      reason: undefined,
    })

    callback.calls[1].resolve()
    await settle()
    assert.equal(callback.calls.length, 2)
  })

  test('a refresh without topic makes the merged call one without topics', async () => {
    for (const order of [
      [{}, { topic: 'seats' }],
      [{ topic: 'seats' }, {}],
    ]) {
      const callback = handCallback()
      onRefresh(URL_42, callback)
      last().ready()
      for (const said of [{}, ...order]) last().refresh(said)
      callback.calls[0].resolve()
      await settle()

      assert.equal(callback.refreshes()[1].topics, undefined)
    }
  })

  test('data is passed on if exactly one refresh stands behind the call', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats', data: 1 })
    last().refresh({ topic: 'seats', data: 2 })
    callback.calls[0].resolve()
    await settle()
    last().refresh({ topic: 'seats', data: 3 })
    last().refresh({ topic: 'seats', data: 3 })
    callback.calls[1].resolve()
    await settle()

    assert.deepEqual(
      callback.refreshes().map(({ data }) => data),
      [1, 2, undefined],
    )
  })

  for (const [reasons, strongest] of [
    [['connected', 'resync', 'missed'], 'resync'],
    [['missed', undefined, 'connected'], 'missed'],
    [[undefined, 'connected'], 'connected'],
    [['connected', undefined], 'connected'],
    [[undefined, undefined], undefined],
  ]) {
    test(`of the reasons ${reasons.join(', ')} the merged call has ${strongest}`, async () => {
      const callback = handCallback()
      onRefresh(URL_42, callback)
      last().ready()
      last().refresh()
      for (const reason of reasons) last().refresh({ reason })
      callback.calls[0].resolve()
      await settle()

      assert.equal(callback.refreshes()[1].reason, strongest)
    })
  }

  test('a callback that returns nothing is called for each refresh', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats' })
    await settle()
    last().refresh({ topic: 'orders' })
    await settle()

    assert.deepEqual(
      calls.map(({ topics }) => topics),
      [['seats'], ['orders']],
    )
  })

  test('a call outlives the connection that asked for it', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats' })
    last().giveUp()
    await clock.advance(500)
    last().ready()
    last().refresh({ topic: 'orders' })
    await settle()
    assert.equal(callback.calls.length, 1)

    callback.calls[0].resolve()
    await settle()
    assert.deepEqual(callback.refreshes()[1].topics, ['orders'])
  })
})

describe('a call that failed', () => {
  test('is made again after a wait, with the same content', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats', data: 1, reason: 'missed' })
    callback.calls[0].reject(new Error('offline'))
    await clock.advance(499)
    assert.equal(callback.calls.length, 1)

    await clock.advance(1)
    assert.deepEqual(callback.refreshes()[1], { topics: ['seats'], data: 1, reason: 'missed' })

    callback.calls[1].resolve()
    await clock.advance(10_000)
    assert.equal(callback.calls.length, 2)
  })

  test('is made again if the callback threw', async () => {
    let attempts = 0
    onRefresh(URL_42, () => {
      if (++attempts === 1) throw new Error('not rendered')
    })
    last().ready()
    last().refresh()
    await clock.advance(1_000)

    assert.equal(attempts, 2)
  })

  test('is merged with what came during it and during the wait, and none of it starts a call', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats', data: 1 })
    last().refresh({ topic: 'orders', reason: 'resync' })
    callback.calls[0].reject(new Error('offline'))
    await clock.advance(250)
    last().refresh({ topic: 'films', reason: 'missed' })
    last().refresh({ topic: 'seats' })
    await clock.advance(249)
    assert.equal(callback.calls.length, 1)

    await clock.advance(1)
    assert.deepEqual(callback.refreshes()[1], {
      topics: ['seats', 'orders', 'films'],
      data: undefined,
      reason: 'resync',
    })
  })

  test('waits twice as long each time, to a cap, and success starts over', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    const fails = async () => {
      const before = callback.calls.length
      callback.calls[before - 1].reject(new Error('offline'))
      for (let ms = 500; ms <= 60_000; ms += 500) {
        last().heartbeat()
        await clock.advance(500)
        if (callback.calls.length > before) return ms
      }
    }

    const waits = []
    for (let i = 0; i < 7; i++) waits.push(await fails())
    assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000])

    callback.calls[callback.calls.length - 1].resolve()
    await settle()
    last().refresh()
    assert.equal(await fails(), 500)
    assert.equal(await fails(), 1_000)

    last().refresh()
    callback.calls[callback.calls.length - 1].resolve()
    await settle()
    assert.equal(await fails(), 500, 'also if the next call was already waiting')
  })

  test('waits with full jitter, within the limits that the options set', async () => {
    for (const [say, ms] of [
      [0, 1],
      [0.25, 50],
      [0.999, 200],
    ]) {
      random = say
      const callback = handCallback()
      onRefresh(URL_42, callback, { waitBaseMs: 200, waitCapMs: 200 })
      last().ready()
      last().refresh()
      callback.calls[0].reject(new Error('offline'))
      await clock.advance(ms - 1)
      assert.equal(callback.calls.length, 1)
      await clock.advance(1)
      assert.equal(callback.calls.length, 2)
    }
  })

  test('is reported', async () => {
    const error = new Error('offline')
    onRefresh(URL_42, async () => {
      throw error
    })
    last().ready()
    last().refresh()
    await settle()

    assert.deepEqual(reported, [error])
  })

  test('is reported to the console where there is no reportError', async t => {
    const printed = []
    t.mock.method(console, 'error', error => printed.push(error))
    set('reportError', undefined)
    const error = new Error('offline')
    onRefresh(URL_42, async () => {
      throw error
    })
    last().ready()
    last().refresh()
    await settle()

    assert.deepEqual(printed, [error])
  })
})

describe("the page's own refreshes", () => {
  test('are not passed on, and those of others are', async () => {
    onRefresh(URL_42, callback, { by: 'tab-7' })
    last().ready()
    last().refresh({ topic: 'seats', by: 'tab-7' })
    last().refresh({ topic: 'orders', by: 'tab-8' })
    await settle()
    last().refresh({ topic: 'films' })
    await settle()

    assert.deepEqual(
      calls.map(({ topics }) => topics),
      [['orders'], ['films']],
    )
  })

  for (const reason of ['connected', 'missed', 'resync', 'moved']) {
    test(`are passed on with the reason ${reason}`, async () => {
      onRefresh(URL_42, callback, { by: 'tab-7' })
      last().ready()
      last().refresh({ by: 'tab-7', reason })
      await settle()

      assert.equal(calls.length, 1)
    })
  }

  test('are not known without a name: then all are passed on', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats' })
    await settle()
    last().refresh({ topic: 'seats', by: 'tab-7' })
    await settle()

    assert.equal(calls.length, 2)
  })

  test('move the last event ID', async () => {
    onRefresh(URL_42, callback, { by: 'tab-7' })
    last().ready({ id: '1-0' })
    last().refresh({ by: 'tab-7' }, '2-0')
    last().giveUp()
    await clock.advance(1_000)

    assert.equal(last().url, '/events?merchant_id=42&last_event_id=2-0')
  })

  test('do not leave data to a call that merged them', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback, { by: 'tab-7' })
    last().ready()
    last().refresh({ data: 1 })
    last().refresh({ data: 2, by: 'tab-8' })
    last().refresh({ data: 3, by: 'tab-7' })
    callback.calls[0].resolve()
    await settle()

    assert.equal(callback.refreshes()[1].data, 2)
  })
})

describe('opening', () => {
  test('takes the URL as it is given', () => {
    onRefresh('events', callback)
    onRefresh(new URL('https://example.org/events?merchant_id=42'), callback)
    onRefresh('/events?last_event_id=5-0#top', callback)

    assert.deepEqual(
      sources.map(({ url }) => url),
      ['events', 'https://example.org/events?merchant_id=42', '/events?last_event_id=5-0#top'],
    )
  })

  test('sends cookies to other origins only if asked to', () => {
    onRefresh(URL_42, callback)
    onRefresh(URL_42, callback, { withCredentials: true })

    assert.deepEqual(
      sources.map(({ withCredentials }) => withCredentials),
      [false, true],
    )
  })

  test('uses the class that the options name', () => {
    class Other extends FakeEventSource {}
    onRefresh(URL_42, callback, { EventSource: Other })

    assert.ok(last() instanceof Other)
  })

  test('throws what the class throws, and leaves nothing behind', () => {
    class Refusing {
      constructor() {
        throw new SyntaxError('not a URL')
      }
    }

    assert.throws(() => onRefresh('http://[', callback, { EventSource: Refusing }), SyntaxError)
    assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)
  })

  test('works where there is neither a document nor a window', async () => {
    set('document', undefined)
    for (const name of listening) set(name, undefined)
    const stop = onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    await settle()
    stop()

    assert.equal(calls.length, 1)
  })

  test('works in a worker, which has no document but goes online', async () => {
    set('document', undefined)
    const stop = onRefresh(URL_42, callback)
    last().ready()
    clock.sleep(60_000)
    tab.fire('online')
    assert.equal(sources.length, 2)

    stop()
    assert.equal(tab.listeners, 0)
  })
})

describe('coming back', () => {
  test('is left to the browser while it tries', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    for (let i = 0; i < 100; i++) {
      last().drop()
      await clock.advance(3_000)
    }
    last().ready()
    await clock.advance(40_000)

    assert.equal(sources.length, 1)
    assert.equal(last().readyState, FakeEventSource.OPEN)
  })

  test('is done here once the browser gave up, after a wait', async () => {
    onRefresh(URL_42, callback)
    last().giveUp()
    await clock.advance(499)
    assert.equal(sources.length, 1)

    await clock.advance(1)
    assert.equal(sources.length, 2)
    assert.equal(last().readyState, FakeEventSource.CONNECTING)
  })

  test('waits twice as long each time, to a cap, and ready starts over', async () => {
    onRefresh(URL_42, callback)
    const givesUp = async () => {
      const before = sources.length
      last().giveUp()
      for (let ms = 500; ms <= 60_000; ms += 500) {
        await clock.advance(500)
        if (sources.length > before) return ms
      }
    }

    const waits = []
    for (let i = 0; i < 7; i++) waits.push(await givesUp())
    assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000])

    last().accept()
    assert.equal(await givesUp(), 15_000, 'headers alone are no success')

    last().ready()
    assert.equal(await givesUp(), 500)
  })

  test('waits with full jitter, within the limits that the options set', async () => {
    for (const [say, ms] of [
      [0, 1],
      [0.25, 50],
      [0.999, 200],
    ]) {
      random = say
      const stop = onRefresh(URL_42, callback, { waitBaseMs: 200, waitCapMs: 200 })
      const before = sources.length
      last().giveUp()
      await clock.advance(ms - 1)
      assert.equal(sources.length, before)
      await clock.advance(1)
      assert.equal(sources.length, before + 1)
      stop()
    }
  })

  test('makes no call by itself: the service compares', async () => {
    onRefresh(URL_42, callback)
    last().ready({ id: '1-0' })
    last().giveUp()
    await clock.advance(1_000)
    last().ready({ id: '1-0' })
    await settle()

    assert.deepEqual(calls, [])
  })

  for (const [url, resumed] of [
    ['/events', '/events?last_event_id=7-1'],
    ['/events?', '/events?last_event_id=7-1'],
    ['events?merchant_id=42', 'events?merchant_id=42&last_event_id=7-1'],
    ['?a=1&b=%20+~&c', '?a=1&b=%20+~&c&last_event_id=7-1'],
    ['/events?last_event_id=5-0&token=a=b?c', '/events?token=a=b?c&last_event_id=7-1'],
    ['/events?merchant_id=42&last_event_id', '/events?merchant_id=42&last_event_id=7-1'],
    ['/events?my_last_event_id=3', '/events?my_last_event_id=3&last_event_id=7-1'],
    ['/events?merchant_id=42#a?b', '/events?merchant_id=42&last_event_id=7-1'],
    [new URL('https://example.org/events?a=1'), 'https://example.org/events?a=1&last_event_id=7-1'],
  ]) {
    test(`from ${url} asks ${resumed}`, async () => {
      onRefresh(url, callback)
      last().ready()
      last().refresh({}, '7-1')
      last().giveUp()
      await clock.advance(1_000)

      assert.equal(last().url, resumed)
    })
  }

  test('without a last event ID asks the URL as it was given', async () => {
    onRefresh('/events?last_event_id=5-0', callback)
    last().ready()
    last().giveUp()
    await clock.advance(1_000)

    assert.equal(last().url, '/events?last_event_id=5-0')
  })

  test('escapes the last event ID', async () => {
    onRefresh('/events', callback)
    last().ready({ id: 'a&b=ü' })
    last().giveUp()
    await clock.advance(1_000)

    assert.equal(last().url, '/events?last_event_id=a%26b%3D%C3%BC')
  })

  test('tells the newest ID, which ready, refresh and a second opening all keep', async () => {
    onRefresh('/events', callback)
    last().ready({ id: '1-0' })
    last().refresh({}, '2-0')
    last().refresh()
    last().heartbeat()
    last().giveUp()
    await clock.advance(1_000)
    assert.equal(last().url, '/events?last_event_id=2-0')

    last().ready()
    last().heartbeat()
    last().giveUp()
    await clock.advance(1_000)
    assert.equal(last().url, '/events?last_event_id=2-0')

    last().ready({ id: '1-5' })
    last().giveUp()
    await clock.advance(1_000)
    assert.equal(last().url, '/events?last_event_id=1-5', 'a stream that was lost starts lower')
  })
})

describe('a dead stream', () => {
  test('is closed after three silent heartbeats and opened anew after a wait', async () => {
    onRefresh(URL_42, callback)
    last().ready({ id: '1-0' })
    await clock.advance(44_999)
    assert.equal(last().readyState, FakeEventSource.OPEN)

    await clock.advance(1)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
    assert.equal(sources.length, 1)

    await clock.advance(500)
    assert.equal(sources.length, 2)
    assert.equal(last().url, '/events?merchant_id=42&last_event_id=1-0')
  })

  test('is known by the heartbeat that ready tells', async () => {
    onRefresh(URL_42, callback)
    last().ready({ heartbeat_s: 2 })
    await clock.advance(5_999)
    assert.equal(last().readyState, FakeEventSource.OPEN)

    await clock.advance(1)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  for (const [sign, make] of Object.entries({
    ready: source => source.ready(),
    'a refresh': source => source.refresh(),
    "a refresh of one's own": source => source.refresh({ by: 'tab-7' }),
    'a heartbeat': source => source.heartbeat(),
    goodbye: source => source.goodbye(),
  })) {
    test(`is not one that sends ${sign}`, async () => {
      onRefresh(URL_42, callback, { by: 'tab-7' })
      last().ready()
      await clock.advance(40_000)
      make(last())
      await clock.advance(44_999)
      assert.equal(last().readyState, FakeEventSource.OPEN)

      await clock.advance(1)
      assert.equal(last().readyState, FakeEventSource.CLOSED)
    })
  }

  test('is also one that sent headers and then nothing', async () => {
    onRefresh(URL_42, callback)
    await clock.advance(40_000)
    last().accept()
    await clock.advance(44_999)
    assert.equal(last().readyState, FakeEventSource.OPEN)

    await clock.advance(1)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('is also one whose headers never come', async () => {
    onRefresh(URL_42, callback)
    await clock.advance(44_999)
    assert.equal(last().readyState, FakeEventSource.CONNECTING)

    await clock.advance(501)
    assert.equal(sources[0].readyState, FakeEventSource.CLOSED)
    assert.equal(sources.length, 2)
  })

  test('is not one that takes 45 s to connect, however short the heartbeat was', async () => {
    onRefresh(URL_42, callback)
    last().ready({ heartbeat_s: 1 })
    last().giveUp()
    await clock.advance(500)
    await clock.advance(44_999)
    assert.equal(sources.length, 2)
    assert.equal(last().readyState, FakeEventSource.CONNECTING)

    await clock.advance(1)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('is opened with longer and longer waits', async () => {
    onRefresh(URL_42, callback)
    await clock.advance(45_000 + 500 + 45_000 + 1_000 + 45_000 + 1_999)
    assert.equal(sources.length, 3)

    await clock.advance(1)
    assert.equal(sources.length, 4)
  })

  test('is not one whose browser was told to wait for 30 s', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().goodbye()
    last().drop()
    await clock.advance(30_000 + 20_000)
    last().ready()
    await clock.advance(40_000)

    assert.equal(sources.length, 1)
    assert.equal(last().readyState, FakeEventSource.OPEN)
  })

  test('is one whose browser has not come back 60 s after the connection broke', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().goodbye()
    last().drop()
    await clock.advance(59_999)
    assert.equal(last().readyState, FakeEventSource.CONNECTING)

    await clock.advance(1)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('is known by the heartbeat again as soon as the browser is back', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().drop()
    await clock.advance(2_000)
    last().ready()
    await clock.advance(45_000)

    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('is found soon after a sleep that no event tells of', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    clock.sleep(3_600_000)
    await clock.advance(15_000)

    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('is not hidden by a clock that was set back', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    clock.sleep(-3_600_000)
    await clock.advance(15_000)

    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('is not made of a heartbeat too long for a timer', async () => {
    onRefresh(URL_42, callback)
    last().ready({ heartbeat_s: 1e7 })

    assert.ok(clock.longest < 2 ** 31)
  })

  test('that still speaks after it was replaced is not heard', async () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })
    last().ready()
    await clock.advance(46_000)
    const [old, current] = sources
    const late = type =>
      old.dispatchEvent(new MessageEvent(type, { data: '{}', lastEventId: '9-9' }))
    for (const type of ['ready', 'refresh', 'error']) late(type)
    await settle()

    assert.deepEqual(calls, [])
    assert.deepEqual(states, ['connecting', 'open', 'connecting'])
    current.giveUp()
    await clock.advance(1_000)
    assert.equal(last().url, URL_42)
  })
})

describe('waking up', () => {
  const wakings = {
    'the page becomes visible': () => visibility('visible'),
    'the page is shown': () => tab.fire('pageshow', { persisted: false }),
    'the network is back': () => tab.fire('online'),
  }

  for (const [name, wakes] of Object.entries(wakings)) {
    test(`when ${name}, a stream silent for more than 1.5 heartbeats is opened anew at once`, () => {
      onRefresh(URL_42, callback)
      last().ready({ id: '1-0' })
      clock.sleep(22_501)
      wakes()

      assert.equal(sources.length, 2)
      assert.equal(sources[0].readyState, FakeEventSource.CLOSED)
      assert.equal(last().url, '/events?merchant_id=42&last_event_id=1-0')
    })

    test(`when ${name}, a stream silent for 1.5 heartbeats is kept`, () => {
      onRefresh(URL_42, callback)
      last().ready()
      clock.sleep(22_500)
      wakes()

      assert.equal(sources.length, 1)
      assert.equal(last().readyState, FakeEventSource.OPEN)
    })
  }

  test('by several events opens once', () => {
    onRefresh(URL_42, callback)
    last().ready()
    clock.sleep(3_600_000)
    for (const wakes of Object.values(wakings)) wakes()

    assert.equal(sources.length, 2)
  })

  test('goes by the heartbeat that ready tells', () => {
    onRefresh(URL_42, callback)
    last().ready({ heartbeat_s: 60 })
    clock.sleep(90_000)
    visibility('visible')
    assert.equal(sources.length, 1)

    clock.sleep(1)
    visibility('visible')
    assert.equal(sources.length, 2)
  })

  test('is not what a page does that is being hidden', () => {
    onRefresh(URL_42, callback)
    last().ready()
    clock.sleep(30_000)
    visibility('hidden')

    assert.equal(sources.length, 1)
  })

  test('lets a browser wait as long as goodbye may ask, and no longer', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().goodbye()
    last().drop()
    clock.sleep(30_000)
    visibility('visible')
    assert.equal(sources.length, 1)

    clock.sleep(1)
    visibility('visible')
    assert.equal(sources.length, 2)
  })

  test('ends a wait that stood still', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().giveUp()
    clock.sleep(22_501)
    visibility('visible')
    assert.equal(sources.length, 2)

    last().ready()
    await clock.advance(40_000)
    assert.equal(sources.length, 2, 'the wait is over for good')
  })

  test('out of the back/forward cache opens at once, as the stream may have been cut', () => {
    onRefresh(URL_42, callback)
    last().ready({ id: '1-0' })
    tab.fire('pageshow', { persisted: true })

    assert.equal(sources.length, 2)
    assert.equal(sources[0].readyState, FakeEventSource.CLOSED)
    assert.equal(last().url, '/events?merchant_id=42&last_event_id=1-0')
  })
})

describe('a token', () => {
  const urls = () => sources.map(({ url }) => url)
  const lastHead = () => heads[heads.length - 1]
  const openOnes = () => sources.filter(({ readyState }) => readyState !== FakeEventSource.CLOSED)

  /** The service refuses what was opened last. */
  const refuse = async (status = 401) => {
    last().giveUp()
    await settle()
    lastHead().answer(status)
    await settle()
  }

  /** Opens with the first token, hears `ready` and an ID, and time passes. */
  const listenFor = async (options, ms = 20_000) => {
    const stop = onRefresh(URL_42, callback, options)
    await settle()
    last().ready({ id: '1-0' })
    await clock.advance(ms)
    return stop
  }

  describe('is asked for', () => {
    test('before the first opening, which waits for it', async () => {
      const token = handToken()
      const states = []
      onRefresh(URL_42, callback, { token, onState: state => states.push(state) })
      await settle()
      assert.deepEqual(states, ['connecting'])
      assert.equal(token.asked.length, 1)
      assert.equal(sources.length, 0)

      token.asked[0].resolve('a.b-c_d')
      await settle()
      assert.deepEqual(urls(), ['/events?merchant_id=42&token=a.b-c_d'])
      last().ready()
      last().refresh({ topic: 'seats' })
      assert.deepEqual(states, ['connecting', 'open'])
      assert.deepEqual(
        calls.map(({ topics }) => topics),
        [['seats']],
      )
    })

    for (const [given, opened] of [
      ['/events', '/events?token=n'],
      ['/events?token=old', '/events?token=n'],
      ['/events?token=a=b&token&merchant_id=42', '/events?merchant_id=42&token=n'],
      ['/events?my_token=3&tokens=4', '/events?my_token=3&tokens=4&token=n'],
      ['/events?last_event_id=5-0#top', '/events?last_event_id=5-0&token=n'],
      [new URL('https://example.org/events?a=1'), 'https://example.org/events?a=1&token=n'],
    ]) {
      test(`and goes into ${given}`, async () => {
        onRefresh(given, callback, { token: async () => 'n' })
        await settle()

        assert.deepEqual(urls(), [opened])
      })
    }

    test('and is text of any kind', async () => {
      onRefresh('/events', callback, { token: async () => 'a&b=ü+ ' })
      await settle()

      assert.deepEqual(urls(), ['/events?token=a%26b%3D%C3%BC%2B%20'])
    })

    test('for each opening, which says the last event ID, too', async () => {
      const token = countingToken()
      onRefresh(URL_42, callback, { token })
      await settle()
      last().ready({ id: '1-0' })
      last().giveUp()
      await settle()
      lastHead().answer(503)
      await clock.advance(500)
      last().ready({ id: '2-0' })
      await clock.advance(46_000)
      last().ready({ id: '3-0' })
      clock.sleep(60_000)
      visibility('visible')
      await settle()

      assert.deepEqual(urls(), [
        '/events?merchant_id=42&token=t1',
        '/events?merchant_id=42&token=t2&last_event_id=1-0',
        '/events?merchant_id=42&token=t3&last_event_id=2-0',
        '/events?merchant_id=42&token=t4&last_event_id=3-0',
      ])
      assert.equal(openOnes().length, 1)
    })

    test('not when the browser comes back by itself', async () => {
      const token = countingToken()
      await listenFor({ token })
      last().goodbye()
      last().goodbye('connection_age')
      last().drop()
      await clock.advance(30_000)
      last().ready()

      assert.equal(token.asked, 1)
      assert.equal(sources.length, 1)
      assert.equal(heads.length, 0)
    })
  })

  describe('that is expiring', () => {
    test('is replaced, and what is heard meanwhile is neither lost nor heard twice', async () => {
      const token = handToken()
      const states = []
      onRefresh(URL_42, callback, { token, onState: state => states.push(state) })
      token.asked[0].resolve('t1')
      await settle()
      last().ready({ id: '1-0' })
      await clock.advance(20_000)
      last().expiring()
      await clock.advance(3_000)
      assert.equal(token.asked.length, 2)
      assert.equal(last().readyState, FakeEventSource.OPEN)

      last().refresh({ topic: 'seats' }, '2-0')
      token.asked[1].resolve('t2')
      await settle()
      const [old, current] = sources
      old.refresh({ topic: 'orders' }, '3-0')
      assert.equal(old.readyState, FakeEventSource.CLOSED)
      assert.equal(current.url, '/events?merchant_id=42&token=t2&last_event_id=2-0')

      current.ready()
      current.refresh({ topic: 'orders', reason: 'missed' }, '3-0')
      await clock.advance(44_000)
      assert.deepEqual(
        calls.map(({ topics }) => topics),
        [['seats'], ['orders']],
      )
      assert.deepEqual(states, ['connecting', 'open', 'connecting', 'open'])
      assert.equal(sources.length, 2)
    })

    test('is replaced once, however often it is said: the late answer is dropped', async () => {
      const token = handToken()
      onRefresh(URL_42, callback, { token })
      token.asked[0].resolve('t1')
      await settle()
      last().ready()
      await clock.advance(20_000)
      last().expiring()
      last().expiring()
      token.asked[2].resolve('t3')
      await settle()
      token.asked[1].resolve('t2')
      await settle()

      assert.deepEqual(urls().slice(1), ['/events?merchant_id=42&token=t3'])
    })

    test('may also die without a word, while another is waited for', async () => {
      const token = handToken()
      onRefresh(URL_42, callback, { token })
      token.asked[0].resolve('t1')
      await settle()
      last().ready({ heartbeat_s: 2 })
      await clock.advance(5_500)
      last().expiring()
      await clock.advance(5_999)
      assert.equal(last().readyState, FakeEventSource.OPEN)

      await clock.advance(1 + 500)
      token.asked[1].resolve('t2')
      token.asked[2].resolve('t3')
      await settle()
      assert.deepEqual(urls().slice(1), [`${URL_42}&token=t3`])
      assert.deepEqual(reported, [])
    })

    test('may also be cut meanwhile', async () => {
      const token = handToken()
      onRefresh(URL_42, callback, { token })
      token.asked[0].resolve('t1')
      await settle()
      last().ready({ id: '1-0' })
      await clock.advance(20_000)
      last().expiring()
      last().drop()
      token.asked[1].resolve('t2')
      await settle()

      assert.equal(last().url, '/events?merchant_id=42&token=t2&last_event_id=1-0')
      assert.equal(openOnes().length, 1)
    })

    test('serves to its end if there is no other yet, which is asked for again then', async () => {
      const token = handToken()
      onRefresh(URL_42, callback, { token })
      token.asked[0].resolve('t1')
      await settle()
      last().ready({ id: '1-0' })
      await clock.advance(20_000)
      last().expiring()
      const error = new Error('push token: 500')
      token.asked[1].reject(error)
      await clock.advance(10_000)
      assert.deepEqual(reported, [error])
      assert.equal(last().readyState, FakeEventSource.OPEN)

      last().refresh({}, '2-0')
      last().goodbye('token_expired')
      assert.equal(sources[0].readyState, FakeEventSource.CLOSED)
      token.asked[2].resolve('t3')
      await settle()
      assert.deepEqual(urls().slice(1), ['/events?merchant_id=42&token=t3&last_event_id=2-0'])
      assert.equal(calls.length, 1)
    })

    test('is left alone right after ready: another may be as old', async () => {
      const token = countingToken()
      await listenFor({ token }, 5_000)
      last().expiring()
      await settle()
      assert.equal(token.asked, 1)

      await clock.advance(1)
      last().expiring()
      await settle()
      assert.equal(token.asked, 2)

      last().expiring()
      await settle()
      assert.equal(token.asked, 2, 'the next stream is not ready yet')
    })

    test('says nothing to a page without the option', async () => {
      await listenFor({})
      last().expiring()
      await settle()
      last().goodbye('token_expired')
      assert.equal(last().readyState, FakeEventSource.OPEN)
      last().giveUp()
      await clock.advance(500)

      assert.deepEqual(urls(), [URL_42, `${URL_42}&last_event_id=1-0`])
      assert.equal(heads.length, 0)
      assert.deepEqual(reported, [])
    })
  })

  describe('that has expired', () => {
    test('is replaced at once, and the browser does not come back with it', async () => {
      await listenFor({ token: countingToken() })
      last().goodbye('token_expired')
      assert.equal(last().readyState, FakeEventSource.CLOSED)

      await settle()
      assert.deepEqual(urls().slice(1), ['/events?merchant_id=42&token=t2&last_event_id=1-0'])
    })

    test('right after ready is replaced after longer and longer waits', async () => {
      const token = countingToken()
      await listenFor({ token }, 0)
      const waits = []
      for (let i = 0; i < 7; i++) {
        const before = token.asked
        last().goodbye('token_expired')
        let ms = 0
        for (; token.asked === before; ms += 500) await clock.advance(500)
        waits.push(ms)
        last().ready()
      }
      assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000])

      await clock.advance(5_001)
      last().heartbeat()
      last().goodbye('token_expired')
      await settle()
      assert.equal(token.asked, 9, 'a stream that lasted starts over')
      last().ready()
      last().goodbye('token_expired')
      await clock.advance(500)
      assert.equal(token.asked, 10)
    })

    test('while the browser was away is replaced at once', async () => {
      const states = []
      await listenFor({ token: countingToken(), onState: state => states.push(state) })
      last().drop()
      last().giveUp()
      assert.equal(sources.length, 1)
      assert.equal(heads.length, 1)
      assert.equal(heads[0].url, last().url)

      heads[0].answer(401)
      await settle()
      assert.equal(last().url, '/events?merchant_id=42&token=t2&last_event_id=1-0')
      last().ready()
      assert.deepEqual(states, ['connecting', 'open', 'connecting', 'open'])
      assert.deepEqual(reported, [])
    })
  })

  describe('that is refused', () => {
    for (const status of [401, 403]) {
      test(`with ${status} is replaced once, at once; then it is final`, async () => {
        const token = countingToken()
        const states = []
        onRefresh(URL_42, callback, { token, onState: state => states.push(state) })
        await settle()
        await refuse(status)
        assert.deepEqual(urls(), [`${URL_42}&token=t1`, `${URL_42}&token=t2`])
        assert.deepEqual(states, ['connecting'])

        await refuse(status)
        assert.deepEqual(states, ['connecting', 'refused'])
        assert.deepEqual(reported.map(String), [`Error: token refused: ${status}`])
        assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)

        visibility('visible')
        tab.fire('online')
        tab.fire('pageshow', { persisted: true })
        await clock.advance(600_000)
        visibility('visible')
        await settle()
        assert.equal(token.asked, 2)
        assert.equal(sources.length, 2)
        assert.equal(heads.length, 2)
      })
    }

    test('may be so once after each ready', async () => {
      const states = []
      await listenFor({ token: countingToken(), onState: state => states.push(state) })
      for (let i = 0; i < 3; i++) {
        last().drop()
        await refuse()
        last().ready()
      }
      assert.equal(sources.length, 4)

      last().drop()
      await refuse()
      await refuse()
      assert.equal(states.at(-1), 'refused')
      assert.equal(sources.length, 5)
    })

    test('is the second one also if other failures stood between', async () => {
      const states = []
      onRefresh(URL_42, callback, { token: countingToken(), onState: state => states.push(state) })
      await settle()
      await refuse()
      await refuse(503)
      await clock.advance(500)
      await refuse()

      assert.deepEqual(states, ['connecting', 'refused'])
    })

    test('ends what waits to be called, and lets a running call fail in silence', async () => {
      for (const rejectAt of ['before', 'after']) {
        const callback = handCallback()
        onRefresh(URL_42, callback, { token: countingToken() })
        await settle()
        last().ready()
        last().refresh()
        last().refresh()
        const fail = async () => {
          callback.calls[0].reject(new Error('offline'))
          await settle()
        }
        if (rejectAt === 'before') await fail()
        await refuse()
        await refuse()
        reported = []
        if (rejectAt === 'after') await fail()
        await clock.advance(120_000)

        assert.equal(callback.calls.length, 1)
        assert.equal(clock.timers.size, 0)
        assert.deepEqual(reported, [])
      }
    })

    test('leaves the undo, and another onRefresh', async () => {
      const states = []
      const token = countingToken()
      const stop = onRefresh(URL_42, callback, { token, onState: state => states.push(state) })
      await settle()
      await refuse()
      await refuse()
      stop()
      stop()
      assert.deepEqual(states, ['connecting', 'refused', 'closed'])
      assert.equal(page.listeners + tab.listeners, 0)

      onRefresh(URL_42, callback, { token })
      await settle()
      assert.equal(last().url, `${URL_42}&token=t3`)
    })

    for (const status of [200, 204, 302, 400, 402, 404, 429, 500, 503, undefined]) {
      test(`is not what ${status ?? 'a network error'} means, however often`, async () => {
        const token = countingToken()
        onRefresh(URL_42, callback, { token, waitCapMs: 1_000 })
        await settle()
        for (let i = 1; i <= 10; i++) {
          last().giveUp()
          await settle()
          if (status) lastHead().answer(status)
          else lastHead().fail(new TypeError('Failed to fetch'))
          await clock.advance(499)
          assert.equal(sources.length, i, 'after a wait')
          await clock.advance(1)
          assert.equal(sources.length, i + 1)
          assert.equal(token.asked, i + 1)
        }
        assert.deepEqual(reported, [])
      })
    }

    test('is not what a browser without fetch can say', async () => {
      set('fetch', undefined)
      onRefresh(URL_42, callback, { token: countingToken() })
      await settle()
      last().giveUp()
      await clock.advance(500)

      assert.equal(sources.length, 2)
    })
  })

  describe('whose status is asked for', () => {
    test('is sent as it was to the EventSource', async () => {
      for (const [options, credentials] of [
        [{}, undefined],
        [{ withCredentials: true }, 'include'],
      ]) {
        onRefresh(URL_42, callback, { token: countingToken(), ...options })
        await settle()
        last().giveUp()
        await settle()

        assert.equal(lastHead().url, last().url)
        assert.equal(lastHead().init.method, 'HEAD')
        assert.equal(lastHead().init.credentials, credentials)
      }
    })

    test('is sent with the fetch that the options name', async () => {
      const asked = []
      const fetch = async url => {
        asked.push(url)
        return { status: 503 }
      }
      onRefresh(URL_42, callback, { token: countingToken(), fetch })
      await settle()
      last().giveUp()
      await clock.advance(500)

      assert.deepEqual(asked, [`${URL_42}&token=t1`])
      assert.equal(heads.length, 0)
      assert.equal(sources.length, 2)
    })

    test('is not waited for for ever', async () => {
      onRefresh(URL_42, callback, { token: countingToken() })
      await settle()
      last().giveUp()
      await clock.advance(59_999)
      assert.equal(lastHead().init.signal.aborted, false)

      await clock.advance(1)
      assert.equal(lastHead().init.signal.aborted, true)
      assert.equal(sources.length, 1)
      await clock.advance(500)
      assert.equal(sources.length, 2)
      assert.deepEqual(reported, [])
    })

    test('is forgotten when the page wakes up, and its late answer is dropped', async () => {
      const answers = []
      const fetch = () => new Promise(resolve => answers.push(resolve))
      onRefresh(URL_42, callback, { token: countingToken(), fetch })
      await settle()
      last().giveUp()
      clock.sleep(31_000)
      visibility('visible')
      await settle()
      assert.equal(sources.length, 2)

      answers[0]({ status: 401 })
      await clock.advance(40_000)
      assert.equal(sources.length, 2)
    })

    test('is forgotten when the page stops', async () => {
      for (const status of [401, 503]) {
        const answers = []
        const fetch = (url, { signal }) => new Promise(resolve => answers.push({ resolve, signal }))
        const token = countingToken()
        const stop = onRefresh(URL_42, callback, { token, fetch })
        await settle()
        last().giveUp()
        stop()
        assert.equal(answers[0].signal.aborted, true)

        answers[0].resolve({ status })
        await clock.advance(120_000)
        assert.equal(token.asked, 1)
        assert.equal(clock.timers.size, 0)
      }
      assert.equal(sources.length, 2)
    })
  })

  describe('that does not come', () => {
    for (const [name, token] of Object.entries({
      rejects: async () => {
        throw new Error('push token: 500')
      },
      throws: () => {
        throw new Error('push token: 500')
      },
      'gives undefined': async () => undefined,
      'gives an object': async () => ({ token: 'eyJ' }),
    })) {
      test(`as token() ${name}, is reported, and asked for after longer and longer waits`, async () => {
        let asked = 0
        onRefresh(URL_42, callback, { token: () => (asked++, token()) })
        const waits = []
        for (let i = 1; i <= 7; i++) {
          await settle()
          assert.equal(reported.length, i)
          let ms = 0
          for (; asked === i; ms += 500) await clock.advance(500)
          waits.push(ms)
        }

        assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000])
        assert.ok(reported.every(error => /push token: 500|token\(\) gave/.test(error)))
        assert.equal(sources.length, 0)
      })
    }

    test('is asked for again after 45 s, and dropped if it comes then', async () => {
      const token = handToken()
      onRefresh(URL_42, callback, { token })
      await clock.advance(44_999)
      assert.deepEqual(reported, [])

      await clock.advance(1)
      assert.deepEqual(reported.map(String), ['Error: token() has not settled'])
      token.asked[0].resolve('late')
      await clock.advance(499)
      assert.equal(token.asked.length, 1)

      await clock.advance(1)
      assert.equal(token.asked.length, 2)
      assert.equal(sources.length, 0)
      token.asked[1].resolve('t2')
      await settle()
      assert.deepEqual(urls(), [`${URL_42}&token=t2`])
    })

    test('starts over only with a stream that has lasted', async () => {
      const token = countingToken()
      onRefresh(URL_42, callback, { token })
      await settle()
      for (const wait of [500, 1_000]) {
        last().ready()
        last().giveUp()
        await settle()
        lastHead().answer(503)
        await clock.advance(wait - 1)
        const before = token.asked
        await clock.advance(1)
        assert.equal(token.asked, before + 1)
      }

      last().ready()
      await clock.advance(5_001)
      last().heartbeat()
      last().giveUp()
      await settle()
      lastHead().answer(503)
      await clock.advance(500)
      assert.equal(sources.length, 4)
    })

    test('is asked for by several wakes, and opens one stream', async () => {
      const token = handToken()
      onRefresh(URL_42, callback, { token })
      clock.sleep(60_000)
      visibility('visible')
      tab.fire('online')
      tab.fire('pageshow', { persisted: true })
      assert.equal(token.asked.length, 3)
      token.asked[2].resolve('t3')
      token.asked[1].resolve('t2')
      token.asked[0].reject(new Error('cut'))
      await clock.advance(40_000)

      assert.deepEqual(urls(), [`${URL_42}&token=t3`])
      assert.deepEqual(reported, [])
    })

    test('opens nothing after the undo', async () => {
      for (const end of ['resolve', 'reject']) {
        const token = handToken()
        const stop = onRefresh(URL_42, callback, { token })
        stop()
        token.asked[0][end]('t1')
        await clock.advance(120_000)

        assert.equal(token.asked.length, 1)
        assert.equal(sources.length, 0)
        assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)
      }
      assert.deepEqual(reported, [])
    })

    test('may be the reason to stop', async () => {
      const states = []
      let asked = 0
      const stop = onRefresh(URL_42, callback, {
        onState: state => states.push(state),
        token: () => {
          if (++asked > 1) stop()
          throw new Error('logged out')
        },
      })
      await clock.advance(120_000)

      assert.equal(asked, 2)
      assert.deepEqual(states, ['connecting', 'closed'])
      assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)
      assert.equal(reported.length, 1)
    })

    test('leaves no question behind when the state is the reason to stop', async () => {
      let stop
      stop = onRefresh(URL_42, callback, {
        token: countingToken(),
        onState: state => {
          if (state === 'connecting') stop?.()
        },
      })
      await settle()
      last().ready()
      last().giveUp()
      await clock.advance(120_000)

      assert.equal(lastHead().init.signal.aborted, true)
      assert.equal(clock.timers.size, 0)
      assert.equal(sources.length, 1)
    })
  })

  test('makes of an error for the URL a report, and waits', async () => {
    class Refusing {
      constructor() {
        throw new SyntaxError('not a URL')
      }
    }
    const token = countingToken()
    onRefresh('http://[', callback, { token, EventSource: Refusing })
    await settle()
    assert.deepEqual(reported.map(String), ['SyntaxError: not a URL'])

    await clock.advance(499)
    assert.equal(token.asked, 1)
    await clock.advance(1)
    assert.equal(token.asked, 2)
  })
})

describe('the state', () => {
  test('is told at each change, and only then', async () => {
    const states = []
    const stop = onRefresh(URL_42, callback, { onState: state => states.push(state) })
    assert.deepEqual(states, ['connecting'])

    last().accept()
    assert.deepEqual(states, ['connecting'], 'headers alone promise nothing')

    last().ready()
    last().ready()
    last().heartbeat()
    last().refresh()
    assert.deepEqual(states, ['connecting', 'open'])

    last().drop()
    last().drop()
    last().giveUp()
    await clock.advance(1_000)
    last().ready()
    stop()
    stop()
    assert.deepEqual(states, ['connecting', 'open', 'connecting', 'open', 'closed'])
  })

  test('is connecting again when a stream is found dead', async () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })
    last().ready()
    await clock.advance(45_000)
    assert.deepEqual(states, ['connecting', 'open', 'connecting'])
  })

  test('is connecting again when the page wakes up', async () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })
    last().ready()
    clock.sleep(60_000)
    visibility('visible')
    assert.deepEqual(states, ['connecting', 'open', 'connecting'])
  })

  test('is not open by a goodbye in the place of a ready', () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })
    last().accept()
    last().goodbye()
    last().drop()

    assert.deepEqual(states, ['connecting'])
  })

  for (const [name, fail] of Object.entries({
    throws: error => {
      throw error
    },
    rejects: async error => {
      throw error
    },
  })) {
    test(`breaks nothing if its listener ${name}`, async () => {
      const error = new Error('no such element')
      const stop = onRefresh(URL_42, callback, { onState: () => fail(error) })
      last().ready()
      last().refresh()
      last().giveUp()
      await clock.advance(1_000)
      stop()
      await settle()

      assert.equal(calls.length, 1)
      assert.equal(sources.length, 2)
      assert.deepEqual(reported, [error, error, error, error])
    })
  }

  test('may be the reason to stop', async () => {
    for (const end of [source => source.giveUp(), source => source.drop()]) {
      let stop
      stop = onRefresh(URL_42, callback, {
        onState: state => {
          if (state === 'connecting') stop?.()
        },
      })
      last().ready()
      end(last())
      await settle()

      assert.equal(clock.timers.size, 0)
      assert.equal(last().readyState, FakeEventSource.CLOSED)
    }
  })
})

describe('the undo', () => {
  const nothingIsLeft = async () => {
    assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)
    const before = sources.length
    await clock.advance(120_000)
    assert.equal(sources.length, before)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  }

  test('leaves no connection, no timer and no listener', async () => {
    const stop = onRefresh(URL_42, callback)
    last().ready()
    assert.equal(page.listeners + tab.listeners, 3)

    stop()
    await nothingIsLeft()
  })

  test('may be called twice', async () => {
    const stop = onRefresh(URL_42, callback)
    last().ready()
    stop()
    stop()

    assert.equal(last().readyState, FakeEventSource.CLOSED)
    assert.deepEqual(reported, [])
  })

  test('ends the wait to open anew', async () => {
    const stop = onRefresh(URL_42, callback)
    last().giveUp()
    stop()

    await nothingIsLeft()
  })

  test('ends the wait to call again', async () => {
    const callback = handCallback()
    const stop = onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    callback.calls[0].reject(new Error('offline'))
    await settle()
    stop()

    await nothingIsLeft()
    assert.equal(callback.calls.length, 1)
  })

  test('drops what waits for a running call', async () => {
    const callback = handCallback()
    const stop = onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    last().refresh()
    stop()
    callback.calls[0].resolve()

    await nothingIsLeft()
    assert.equal(callback.calls.length, 1)
  })

  test('lets a running call fail in silence', async () => {
    const callback = handCallback()
    const stop = onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    stop()
    callback.calls[0].reject(new Error('aborted'))

    await nothingIsLeft()
    assert.equal(callback.calls.length, 1)
    assert.deepEqual(reported, [])
  })

  test('works within the callback', async () => {
    const stop = onRefresh(URL_42, refresh => {
      calls.push(refresh)
      stop()
    })
    last().ready()
    last().refresh()
    last().refresh()

    await nothingIsLeft()
    assert.equal(calls.length, 1)
  })

  test('holds against a class that speaks after close', async () => {
    const stop = onRefresh(URL_42, callback)
    last().ready()
    stop()
    for (const type of ['refresh', 'ready', 'error']) {
      last().dispatchEvent(new MessageEvent(type, { data: '{}' }))
    }

    await nothingIsLeft()
    assert.deepEqual(calls, [])
  })
})

describe('the module', () => {
  test('keeps several instances apart', async () => {
    const seen = { a: [], b: [] }
    const stopA = onRefresh('/events?merchant_id=a', ({ topics }) => seen.a.push(topics))
    onRefresh('/events?merchant_id=b', ({ topics }) => seen.b.push(topics))
    const [a, b] = sources
    a.ready({ id: '1-0', heartbeat_s: 1 })
    b.ready({ id: '2-0' })
    a.refresh({ topic: 'seats' })
    b.refresh({ topic: 'orders' })
    stopA()
    b.giveUp()
    await clock.advance(1_000)

    assert.deepEqual(seen, { a: [['seats']], b: [['orders']] })
    assert.deepEqual(
      sources.slice(2).map(({ url }) => url),
      ['/events?merchant_id=b&last_event_id=2-0'],
    )
    assert.equal(page.listeners + tab.listeners, 3)
  })

  test('has one export and does nothing when it is imported', async () => {
    const module = await import('../index.js?imported-again')

    assert.deepEqual(Object.keys(module), ['onRefresh'])
    assert.equal(sources.length + clock.timers.size + page.listeners + tab.listeners, 0)
  })

  test('needs nothing else and stays below 8 KB with its comments', async () => {
    const text = await readFile(new URL('../index.js', import.meta.url), 'utf8')

    assert.ok(Buffer.byteLength(text) < 8 * 1024, `${Buffer.byteLength(text)} bytes`)
    assert.doesNotMatch(text, /^import|import\((?!'\.\/index\.js'\)\.)/m)
  })
})
