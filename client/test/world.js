/**
 * A random history of one page of one or several merchants: rows that change, a service that tells of changes, connections that
 * break or fall silent, a proxy that lets no event through for a while or for good, and a backend
 * that takes long and fails. Does not know how the module works. It judges
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
  set,
  settle,
  sources,
  tab,
  visibility,
} from './fakes.js'

export const TOPICS = ['seats', 'orders', 'films']
const HEARTBEAT_MS = 15_000
const CUT_MS = 30_000

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

/** What the backend has of one merchant, and what the service tells of it. */
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

/** What the page shows of one merchant, and the judge of each call for it. */
class Show {
  backend = new Backend()
  rows = Object.fromEntries(TOPICS.map(topic => [topic, -1]))
  running = []
  found = [] // what the judge objects to in a call, where the module would catch an error
  counted = 0 // calls
  newestTold // what the page was told last, by any EventSource or poll
  polled // an answer to a poll is for all merchants at once, and handled for one after another
  isPending = false // the service does not know yet where the page stands
  owedSince
  isLoaded = false
  openedAt // when the page began to wait for its first load
  #options
  #startedAt = -Infinity
  #failures = []
  #mayStartAt = -Infinity // after a failure

  constructor(merchant, options) {
    this.merchant = merchant
    this.#options = options
  }

  get isDeferring() {
    return this.#options.whileHidden === 'defer' && page.hidden && this.isLoaded
  }

  called({ id, topics, data, reason }) {
    const now = clock.now()
    this.#expectFirst()
    const expect = (isTrue, rule) => isTrue || this.found.push(rule)
    expect(this.running.length === 0, 'one call at a time')
    const isBetween = this.polled?.at === now && this.polled.before === id
    expect(isBetween || id === this.newestTold, 'the ID is the one of the latest arrival')
    expect(now >= this.#startedAt + this.#options.minIntervalMs, 'calls keep their distance')
    expect(now >= this.#mayStartAt, 'a failed call waits')
    expect(this.owedSince !== undefined, 'a call has a reason')
    expect(!this.isDeferring, 'a hidden page that defers is not called')
    expect(!page.prerendering, 'a prerendered page is not called')
    expect(!reason || data === undefined, 'a reason has no data')
    this.#startedAt = now
    this.owedSince = id === this.newestTold ? undefined : now
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
      this.isLoaded = true
      for (const [topic, version] of Object.entries(read)) this.show(topic, version)
      return resolve()
    }
    this.#mayStartAt = clock.now() + Math.min(30_000, 1_000 * 2 ** this.#failures.length) / 2
    this.#failures.push(clock.now())
    this.owedSince ??= clock.now()
    reject(new Error('the backend is away'))
  }

  // A page drops an answer that is older than what it shows, such as its own change.
  show(topic, version) {
    this.rows[topic] = Math.max(this.rows[topic], version)
  }

  /** The service has told the page: nothing is owed, or this refresh. */
  told(refresh) {
    this.newestTold = this.named(this.backend.newest)
    this.answered(refresh)
  }

  /** The same, by a poll: it has no ID if nothing is owed. */
  answered(refresh) {
    if (refresh && refresh.by !== 'me') this.owedSince ??= clock.now()
    if (this.openedAt !== undefined && !refresh) this.isLoaded = true
    if (refresh?.by !== 'me') this.openedAt = undefined
  }

  named = id => id

  /** The first load is owed without a word of the service. */
  #expectFirst() {
    const at = this.openedAt + Math.max(1, this.#options.firstCallMs) // no timer is shorter
    if (!(clock.now() >= at)) return // not yet, or no more
    this.openedAt = undefined
    this.owedSince ??= at
  }

  /** No call is late: a page that is owed one, and has none, waits for a reason. */
  judge(shownAt, isAway) {
    this.#expectFirst()
    assert.deepEqual(this.found, [])
    if (this.running.length > 0 || this.owedSince === undefined) return
    if (this.isDeferring || isAway) return
    const due = [
      this.owedSince,
      this.#startedAt + this.#options.minIntervalMs,
      this.#mayStartAt,
      shownAt,
    ]
    assert.ok(clock.now() <= Math.max(...due) + 1, 'no call is late')
  }
}

export class World {
  #told = new Map() // the last event ID of each EventSource
  #isMute = false // the newest EventSource
  #isBuffering = false // the proxy: all of them
  #isCutting = false // the proxy: it ends each stream that had no event for so long
  #acceptedAt = 0 // the newest EventSource
  #isAtPeace = false
  #isInCache = false
  #shownAt = -Infinity

  states = []
  polls = 0

  constructor(onRefresh, seed) {
    installFakes()
    const { fetch } = globalThis
    set('fetch', (url, init) => (init.method ? fetch(url, init) : this.#answerPoll(url, init)))
    this.draw = drawsOf(seed)
    this.options = {
      minIntervalMs: this.pick([0, 0, 1_000, 20_000]),
      firstCallMs: this.pick([0, 3_000, 3_000, 60_000]),
      whileHidden: this.pick(['call', 'defer']),
      hiddenCloseMs: this.pick([60_000, 300_000]),
    }
    const merchants = this.pick([['42'], ['42', '43'], ['42', '43', '44']])
    this.shows = merchants.map(merchant => new Show(merchant, this.options))
    if (merchants.length > 1)
      for (const show of this.shows) show.named = id => `${show.merchant}@${id}`
    let url = `/events?${merchants.map(merchant => `merchant_id=${merchant}`).join('&')}`
    for (const show of this.shows) {
      if (this.draw() >= 0.3) continue
      // The page was rendered by the backend.
      Object.assign(show.rows, show.backend.rows)
      url += `&last_event_id=${show.named(show.backend.newest)}`
    }
    page.hidden = this.draw() < 0.3
    page.prerendering = page.hidden && this.draw() < 0.5
    const call = refresh => this.#showOf(refresh.merchantId).called(refresh)
    const onState = state => this.states.push(state)
    this.undo = onRefresh(url, call, { by: 'me', onState, ...this.options })
    if (!page.prerendering) this.#opened()
  }

  get counted() {
    return this.shows.reduce((sum, { counted }) => sum + counted, 0)
  }

  pick(values) {
    return values[Math.floor(this.draw() * values.length)]
  }

  #showOf(merchant) {
    return this.shows.find(show => show.merchant === merchant)
  }

  #opened() {
    for (const show of this.shows) show.openedAt = clock.now()
  }

  #judge() {
    const isAway = page.prerendering || this.#isInCache
    const open = sources.filter(({ readyState }) => readyState !== FakeEventSource.CLOSED)
    assert.ok(open.length <= 1, 'the page has one stream')
    assert.ok(!isAway || last()?.readyState !== FakeEventSource.OPEN, 'nothing is open while away')
    for (const show of this.shows) show.judge(this.#shownAt, isAway)
  }

  // -- the service

  get #canTell() {
    return !this.#isMute && last()?.readyState === FakeEventSource.OPEN
  }

  #tell(show, refresh) {
    // What is pending is told by the comparison, which comes later.
    if (!this.#canTell || show.isPending) return
    show.told(refresh)
    this.#told.set(last(), show.newestTold)
    const fields = { merchant_id: show.merchant }
    if (refresh) last().event('refresh', { ...fields, ...refresh }, show.newestTold)
    else if (this.shows.length > 1) last().event('position', fields, show.newestTold)
    else last().ready({ id: show.newestTold })
  }

  /** The position that a connection comes with: a browser that reconnects adds its last ID. */
  #cameWith({ url }, show, newest = '') {
    const inUrl = new URLSearchParams(url.split('?')[1]).getAll('last_event_id')
    const ids = [newest, ...inUrl]
    const own = ids.find(id => id && id === show.named(id.split('@').pop()))
    return own?.split('@').pop() ?? ''
  }

  /** A poll, which a proxy lets through. */
  async #answerPoll(url, { signal }) {
    this.polls++
    const isAway = !this.#isAtPeace && this.draw() < 0.1
    if (isAway && this.draw() < 0.5) throw new TypeError('offline')
    if (isAway) return { status: 503 }
    const json = async () => {
      signal.throwIfAborted()
      return { merchants: this.#owed(url) }
    }
    return { status: 200, json }
  }

  #owed(url) {
    const merchants = {}
    for (const show of this.shows) {
      const owed = show.backend.owed(this.#cameWith({ url }, show))
      show.isPending = false
      show.polled = { at: clock.now(), before: show.newestTold }
      if (owed) show.told(owed)
      else show.answered()
      const { reason, topic } = owed ?? {}
      const topics = topic ? [topic] : null
      if (owed) merchants[show.merchant] = { id: show.newestTold, topics, reason }
    }
    return merchants
  }

  change(show = this.pick(this.shows)) {
    const refresh = show.backend.change(this.pick(TOPICS))
    if (this.draw() < 0.2) delete refresh.topic
    if (this.draw() < 0.5 || !refresh.topic) delete refresh.data
    this.#tell(show, refresh)
  }

  changeOwn() {
    const show = this.pick(this.shows)
    const refresh = show.backend.change(this.pick(TOPICS), 'me')
    for (const [topic, version] of Object.entries(refresh.data)) show.show(topic, version)
    this.#tell(show, refresh)
  }

  lose() {
    this.pick(this.shows).backend.lose()
  }

  connect() {
    const source = last()
    if (source?.readyState !== FakeEventSource.CONNECTING) return
    this.#isMute = this.#isBuffering || (!this.#isAtPeace && this.draw() < 0.1)
    this.#acceptedAt = clock.now()
    source.accept()
    if (this.#isMute) return
    if (this.shows.length > 1) return this.#connectSeveral(source)
    const [show] = this.shows
    const owed = show.backend.owed(this.#cameWith(source, show, this.#told.get(source)))
    if (!owed) return this.#tell(show)
    source.ready()
    this.#tell(show, owed)
  }

  #connectSeveral(source) {
    const merchants = {}
    for (const show of this.shows) {
      show.isPending = !this.#isAtPeace && this.draw() < 0.2
      const isOwed = show.backend.owed(this.#cameWith(source, show, this.#told.get(source)))
      if (!show.isPending && !isOwed) show.told()
      merchants[show.merchant] = show.isPending
        ? { pending: true }
        : isOwed
          ? { owed: true }
          : { id: show.newestTold }
    }
    source.event('ready', { merchants, heartbeat_s: HEARTBEAT_MS / 1_000, connection_id: 'c-1' })
    for (const show of this.shows) if (merchants[show.merchant].owed) this.#compare(show)
  }

  /** Redis answers: what was pending is told. */
  answer() {
    const show = this.pick(this.shows.filter(({ isPending }) => isPending))
    if (!show || !this.#canTell) return
    show.isPending = false
    this.#compare(show)
  }

  #compare(show) {
    const own = this.#cameWith(last(), show, this.#told.get(last()))
    this.#tell(show, show.backend.owed(own))
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
      this.#opened()
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
      if (this.#isCutting) this.#cut()
      this.#judge()
    }
  }

  #cut() {
    const isOver = clock.now() - this.#acceptedAt >= CUT_MS
    if (this.#isMute && isOver && last()?.readyState === FakeEventSource.OPEN) last().drop()
  }

  async step() {
    const actions = [
      [8, () => this.change()],
      [3, () => this.changeOwn()],
      [6, () => this.shows.forEach(show => show.endCall(this.draw() < 0.6))],
      [4, () => this.connect()],
      [1, () => this.drop()],
      [1, () => this.giveUp()],
      [0.5, () => this.mute()],
      [0.3, () => (this.#isBuffering = !this.#isBuffering)],
      [0.3, () => (this.#isCutting = !this.#isCutting)],
      [0.3, () => this.lose()],
      [2, () => this.answer()],
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

  /**
   * Everything works from now on, but for the proxy in some histories: the page must become right
   * when it is shown, and stay quiet, on a stream if there can be one.
   */
  async end() {
    this.#isAtPeace = true
    this.#isBuffering = this.draw() < 0.3
    this.#isMute ||= this.#isBuffering
    const goal = this.#isBuffering ? 'polling' : 'open'
    await this.#work()
    this.show()
    await this.#work()
    for (let more = 0; more < 3 && this.states.at(-1) !== goal; more++) await this.#work()
    assert.equal(this.states.at(-1), goal, 'the state says how the page is told')
    await this.#expectNews()
    for (const { rows, backend, running, owedSince } of this.shows) {
      assert.deepEqual(rows, backend.rows, 'the page shows the rows of the backend')
      assert.equal(running.length, 0, 'the page is quiet')
      assert.equal(owedSince, undefined, 'nothing is owed')
    }
    this.undo()
    assert.equal(clock.timers.size + page.listeners + tab.listeners, 0, 'nothing is left')
  }

  /** Without a stream, a page is told by the second poll, and its state lasts. */
  async #expectNews() {
    const before = this.states.length
    for (const show of this.shows) this.change(show)
    await this.pass(22_000)
    for (const { newestTold, named, backend } of this.shows)
      assert.equal(newestTold, named(backend.newest), 'news reach the page')
    await this.#work()
    assert.equal(this.states.length, before, 'the state lasts')
  }

  async #work() {
    for (let round = 0; round < 12; round++) {
      this.connect()
      for (const {} of this.shows) this.answer()
      await this.pass(10_000)
      for (const show of this.shows) show.endCall(true)
    }
  }
}

/** Plays one history with the module, and throws what the judge finds. */
export async function play(onRefresh, seed) {
  const world = new World(onRefresh, seed)
  for (let i = 0; i < 60; i++) await world.step()
  await world.end()
  return { calls: world.counted, sources: sources.length, polls: world.polls }
}
