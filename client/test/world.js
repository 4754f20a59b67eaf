/**
 * A random history of one page: rows that change, a service that tells of changes, connections that
 * break or fall silent, and a backend that takes long and fails. Does not know how the module
 * works. It judges
 *
 * - the promise: in the end the page shows the rows of the backend, and is quiet;
 * - each call: one at a time, when it must start and when it must not, and its ID.
 */

import assert from 'node:assert/strict'
import {
  clock,
  FakeEventSource,
  installFakes,
  last,
  page,
  settle,
  sources,
  tab,
  visibility,
} from './fakes.js'

export const TOPICS = ['seats', 'orders', 'films']
const HEARTBEAT_MS = 15_000

/** A generator of numbers in [0, 1), the same for the same seed: mulberry32, in the public domain. */
export function drawsOf(seed) {
  let state = seed * 0x9e3779b9
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** What the backend has, and what the service tells of it: one merchant. */
export class Backend {
  rows = Object.fromEntries(TOPICS.map(topic => [topic, 0]))
  #history = 1
  #entries = []

  get newest() {
    return `${this.#entries.length}-0.${this.#history}`
  }

  /** Changes a row, and returns the refresh that tells of it. */
  change(topic, by) {
    const version = ++this.rows[topic]
    this.#entries.push(topic)
    return { topic, data: { [topic]: version }, by }
  }

  /** Redis loses its data: IDs begin anew, and are lower. */
  lose() {
    this.#history++
    this.#entries = ['seats']
  }

  /** The refresh that a connection is owed which comes with this last event ID, if any. */
  owed(lastEventId) {
    if (lastEventId === this.newest) return
    if (!lastEventId) return { reason: 'connected' }
    const [number, history] = lastEventId.split('-0.')
    if (+history !== this.#history) return { reason: 'resync' }
    const topics = new Set(this.#entries.slice(+number))
    return { reason: 'missed', topic: topics.size === 1 ? [...topics][0] : undefined }
  }
}

export class World {
  backend = new Backend()
  shown = Object.fromEntries(TOPICS.map(topic => [topic, -1]))
  running = []
  found = [] // what the judge objects to in a call, where the module would catch an error
  counted = 0 // calls
  #told = new Map() // the last event ID of each EventSource
  #isMute = false
  #isAtPeace = false
  #newestTold // what the page was told last, by any EventSource
  #owedSince
  #startedAt = -Infinity
  #failures = []
  #mayStartAt = -Infinity // after a failure
  #isLoaded = false
  #isInCache = false
  #openedAt // when the page began to wait for its first load
  #shownAt = -Infinity

  constructor(onRefresh, seed) {
    installFakes()
    this.draw = drawsOf(seed)
    this.options = {
      minIntervalMs: this.pick([0, 0, 1_000, 20_000]),
      firstCallMs: this.pick([0, 3_000, 3_000, 60_000]),
      whileHidden: this.pick(['call', 'defer']),
      hiddenCloseMs: this.pick([60_000, 300_000]),
    }
    let url = '/events?merchant_id=42'
    if (this.draw() < 0.3) {
      // The page was rendered by the backend.
      Object.assign(this.shown, this.backend.rows)
      this.#newestTold = undefined
      url += `&last_event_id=${this.backend.newest}`
    }
    page.hidden = this.draw() < 0.3
    page.prerendering = page.hidden && this.draw() < 0.5
    this.undo = onRefresh(url, refresh => this.#called(refresh), { by: 'me', ...this.options })
    if (!page.prerendering) this.#openedAt = clock.now()
  }

  get #isDeferring() {
    return this.options.whileHidden === 'defer' && page.hidden && this.#isLoaded
  }

  pick(values) {
    return values[Math.floor(this.draw() * values.length)]
  }

  // -- the page

  #called({ id, topics, data, reason }) {
    const now = clock.now()
    this.#expectFirst()
    const expect = (isTrue, rule) => isTrue || this.found.push(rule)
    expect(this.running.length === 0, 'one call at a time')
    expect(id === this.#newestTold, 'the ID is the one of the latest arrival')
    expect(now >= this.#startedAt + this.options.minIntervalMs, 'calls keep their distance')
    expect(now >= this.#mayStartAt, 'a failed call waits')
    expect(this.#owedSince !== undefined, 'a call has a reason')
    expect(!this.#isDeferring, 'a hidden page that defers is not called')
    expect(!page.prerendering, 'a prerendered page is not called')
    expect(!reason || data === undefined, 'a reason has no data')
    this.#startedAt = now
    this.#owedSince = undefined
    this.counted++
    const read =
      data ?? Object.fromEntries((topics ?? TOPICS).map(at => [at, this.backend.rows[at]]))
    return new Promise((resolve, reject) => this.running.push({ read, resolve, reject }))
  }

  /** Ends the call that runs, if one does. */
  endCall(isGood) {
    const { read, resolve, reject } = this.running.pop() ?? {}
    if (!read) return
    if (isGood) {
      this.#failures = []
      this.#isLoaded = true
      for (const [topic, version] of Object.entries(read)) this.#show(topic, version)
      return resolve()
    }
    this.#mayStartAt = clock.now() + Math.min(30_000, 1_000 * 2 ** this.#failures.length) / 2
    this.#failures.push(clock.now())
    this.#owedSince ??= clock.now()
    reject(new Error('the backend is away'))
  }

  // A page drops an answer that is older than what it shows, such as its own change.
  #show(topic, version) {
    this.shown[topic] = Math.max(this.shown[topic], version)
  }

  /** The first load is owed without a word of the service. */
  #expectFirst() {
    const at = this.#openedAt + Math.max(1, this.options.firstCallMs) // no timer is shorter
    if (!(clock.now() >= at)) return // not yet, or no more
    this.#openedAt = undefined
    this.#owedSince ??= at
  }

  /** No call is late: a page that is owed one, and has none, waits for a reason. */
  #judge() {
    this.#expectFirst()
    assert.deepEqual(this.found, [])
    const isAway = page.prerendering || this.#isInCache
    assert.ok(!isAway || last()?.readyState !== FakeEventSource.OPEN, 'nothing is open while away')
    if (this.running.length > 0 || this.#owedSince === undefined) return
    if (this.#isDeferring || isAway) return
    const due = [
      this.#owedSince,
      this.#startedAt + this.options.minIntervalMs,
      this.#mayStartAt,
      this.#shownAt,
    ]
    assert.ok(clock.now() <= Math.max(...due) + 1, 'no call is late')
  }

  // -- the service

  #tell(refresh, id = this.backend.newest) {
    const source = last()
    if (this.#isMute || source?.readyState !== FakeEventSource.OPEN) return
    this.#told.set(source, id)
    this.#newestTold = id
    if (refresh && refresh.by !== 'me') this.#owedSince ??= clock.now()
    if (this.#openedAt !== undefined && !refresh) this.#isLoaded = true
    if (refresh?.by !== 'me') this.#openedAt = undefined
    if (refresh) source.refresh(refresh, id)
    else source.ready({ id })
  }

  change() {
    const refresh = this.backend.change(this.pick(TOPICS))
    if (this.draw() < 0.2) delete refresh.topic
    if (this.draw() < 0.5 || !refresh.topic) delete refresh.data
    this.#tell(refresh)
  }

  changeOwn() {
    const refresh = this.backend.change(this.pick(TOPICS), 'me')
    for (const [topic, version] of Object.entries(refresh.data)) this.#show(topic, version)
    this.#tell(refresh)
  }

  connect() {
    const source = last()
    if (source?.readyState !== FakeEventSource.CONNECTING) return
    this.#isMute = !this.#isAtPeace && this.draw() < 0.1
    source.accept()
    if (this.#isMute) return
    const [, inUrl] = source.url.split('last_event_id=')
    const owed = this.backend.owed(this.#told.get(source) ?? inUrl)
    if (!owed) return this.#tell()
    source.ready()
    this.#tell(owed)
  }

  drop() {
    if (last()?.readyState !== FakeEventSource.CLOSED) last()?.drop()
  }

  giveUp() {
    if (last()?.readyState !== FakeEventSource.CLOSED) last()?.giveUp()
  }

  mute() {
    this.#isMute = true
  }

  // -- the window

  hide() {
    if (!this.#isInCache) visibility('hidden')
  }

  show() {
    if (this.#isInCache || !page.hidden) return
    this.#shownAt = clock.now()
    if (page.prerendering) {
      page.prerendering = false
      page.hidden = false
      this.#openedAt = clock.now()
      page.fire('prerenderingchange')
    }
    visibility('visible')
  }

  /** No timer of the page runs in the cache, and the browser cuts what is open. */
  async leave() {
    if (page.prerendering || this.#isInCache) return
    tab.fire('pagehide', { persisted: true })
    visibility('hidden')
    this.#isInCache = true
    this.#judge()
    this.#isMute = true
    for (let i = 0; i < this.draw() * 5; i++) this.change()
    clock.sleep(this.pick([1_000, 60_000, 3_600_000]))
    this.#isInCache = false
    this.#shownAt = clock.now()
    page.hidden = false
    tab.fire('pageshow', { persisted: true })
    visibility('visible')
  }

  // -- time

  async pass(ms) {
    for (let leftMs = ms; leftMs >= 0; leftMs -= HEARTBEAT_MS) {
      const source = last()
      if (!this.#isMute && source?.readyState === FakeEventSource.OPEN) source.heartbeat()
      await clock.advance(Math.min(leftMs, HEARTBEAT_MS))
      await settle()
      this.#judge()
    }
  }

  async step() {
    const actions = [
      [8, () => this.change()],
      [3, () => this.changeOwn()],
      [6, () => this.endCall(this.draw() < 0.6)],
      [4, () => this.connect()],
      [1, () => this.drop()],
      [1, () => this.giveUp()],
      [0.5, () => this.mute()],
      [0.3, () => this.backend.lose()],
      [0.5, () => clock.sleep(this.pick([10_000, 3_600_000, -3_600_000]))],
      [0.3, () => tab.fire('online')],
      [1, () => this.hide()],
      [1, () => this.show()],
      [0.5, () => this.leave()],
      [6, () => this.pass(this.pick([0, 100, 1_000, 5_000, 20_000, 60_000, 400_000]))],
    ]
    let at = this.draw() * actions.reduce((sum, [weight]) => sum + weight, 0)
    await actions.find(([weight]) => (at -= weight) < 0)[1]()
    await settle()
    this.#judge()
  }

  /** Everything works from now on: the page must become right when it is shown, and stay quiet. */
  async end() {
    this.#isAtPeace = true
    await this.#work()
    this.show()
    await this.#work()
    assert.deepEqual(this.shown, this.backend.rows, 'the page shows the rows of the backend')
    assert.equal(this.running.length, 0, 'the page is quiet')
    assert.equal(this.#owedSince, undefined, 'nothing is owed')
    this.undo()
    assert.equal(clock.timers.size + page.listeners + tab.listeners, 0, 'nothing is left')
  }

  async #work() {
    for (let round = 0; round < 12; round++) {
      this.connect()
      await this.pass(10_000)
      this.endCall(true)
    }
  }
}

/** Plays one history with the module, and throws what the judge finds. */
export async function play(onRefresh, seed) {
  const world = new World(onRefresh, seed)
  for (let i = 0; i < 60; i++) await world.step()
  await world.end()
  return { calls: world.counted, sources: sources.length }
}
