/**
 * A random history of one browser: two users whose tabs open, close, crash, hide, freeze, are left
 * and log in anew, and a service with rows for each of them, behind a proxy that lets no event
 * through at times. The users have names of their own to share a stream, or one name for both. Does
 * not know how the module shares. It judges
 *
 * - the promise: in the end each tab shows the rows of its user, and is quiet;
 * - that the tabs of a user have one stream, or at most two where the other user has the name too.
 */

import assert from 'node:assert/strict'
import { clock, FakeEventSource, installFakes, settle } from './fakes.js'
import { Browser } from './tabs.js'
import { Backend, drawsOf, TOPICS } from './world.js'

const USERS = ['ann', 'bob']
const AT_MOST = 6 // tabs
const MANY_POLLS = 2_000 // in one history

export class TabsWorld {
  backends = {}
  told = new Map() // the position of each EventSource
  counted = { calls: 0, sources: 0, polls: 0 }
  #isAtPeace = false
  #isBuffering = false

  constructor(text, seed) {
    installFakes()
    this.draw = drawsOf(seed)
    Math.random = this.draw
    this.browser = new Browser(text)
    this.merchants = this.pick([['42'], ['42', '43']])
    for (const [index, user] of USERS.entries()) {
      this.backends[user] = this.merchants.map(() => new Backend())
      for (const { rows } of this.backends[user])
        for (const topic of TOPICS) rows[topic] = index * 1_000
    }
    this.options = {
      whileHidden: this.pick(['call', 'defer']),
      hiddenCloseMs: this.pick([60_000, 300_000]),
      firstCallMs: this.pick([0, 3_000, 60_000]),
      minIntervalMs: this.pick([0, 0, 2_000]),
    }
    this.hasTokens = this.draw() < 0.3
    this.name = this.pick([undefined, 'the shop']) // for both users
  }

  pick(values) {
    return values[Math.floor(this.draw() * values.length)]
  }

  get tabs() {
    return this.browser.tabs.filter(({ isDead }) => !isDead)
  }

  get awake() {
    return this.tabs.filter(({ isFrozen, isLeft }) => !isFrozen && !isLeft)
  }

  // -- the tabs

  open(user = this.pick(USERS)) {
    if (this.tabs.length === AT_MOST) return
    const tab = this.browser.open({ hidden: this.draw() < 0.3 })
    const backends = this.backends[user]
    const options = {
      ...this.options,
      share: this.name ?? user,
      by: `tab ${this.browser.tabs.length}`,
    }
    if (this.hasTokens) options.token = async () => `${user}-${options.by}`
    const shown = backends.map(() => Object.fromEntries(TOPICS.map(topic => [topic, -1])))
    Object.assign(tab, { user, grant: user, backends, running: [], by: options.by, shown })
    tab.answer = (url, { method }) =>
      method === 'HEAD' ? { status: tab.headStatus } : this.#answer(tab, url)
    let url = `/events?${this.merchants.map(merchant => `merchant_id=${merchant}`).join('&')}`
    for (const [at, backend] of backends.entries()) {
      if (this.draw() >= 0.3) continue
      Object.assign(tab.shown[at], backend.rows)
      url += `&last_event_id=${this.#named(at, backend.newest)}`
    }
    tab.listen(options, url, refresh => this.#called(tab, refresh))
  }

  #named(at, id) {
    return this.merchants.length > 1 ? `${this.merchants[at]}@${id}` : id
  }

  #called(tab, { merchantId, topics, data }) {
    this.counted.calls++
    const at = this.merchants.indexOf(merchantId)
    const { rows } = tab.backends[at]
    const read = data ?? Object.fromEntries((topics ?? TOPICS).map(topic => [topic, rows[topic]]))
    return new Promise((resolve, reject) => tab.running.push({ at, read, resolve, reject }))
  }

  endCall(tab, isGood) {
    const { at, read, resolve, reject } = tab?.running.shift() ?? {}
    if (!read) return
    if (!isGood) return tab.run(() => reject(new Error('the backend is away')))
    for (const topic of Object.keys(read)) this.#show(tab, at, topic, read[topic])
    tab.run(resolve)
  }

  #show(tab, at, topic, version) {
    tab.shown[at][topic] = Math.max(tab.shown[at][topic], version)
  }

  /** A page in the back/forward cache holds nothing that would put it out. */
  leave(tab) {
    if (!tab) return
    tab.leave()
    tab.isLeft = true
    const { channels, locks, tabs } = this.browser
    assert.deepEqual(tab.streams, [], 'a page that is left has no stream')
    assert.ok(![...channels].some(channel => channel.tab === tab), 'nor a channel')
    assert.ok(!locks.waiting.some(entry => entry.tab === tab), 'nor waits for a lock')
    assert.ok(tabs.includes(tab))
  }

  comeBack(tab) {
    if (!tab) return
    tab.isLeft = false
    tab.comeBack()
  }

  /** The page ends, and one of the other user begins. */
  logInAnew(tab) {
    if (!tab) return
    tab.close()
    this.open(USERS.find(user => user !== tab.user))
  }

  // -- the service

  #tell(stream, at, refresh) {
    if (stream.readyState !== FakeEventSource.OPEN || stream.isMute) return
    const id = this.#named(at, stream.tab.backends[at].newest)
    this.told.set(stream, id)
    const fields = { merchant_id: this.merchants[at], ...refresh }
    stream.tab.run(() => (refresh ? stream.event('refresh', fields, id) : stream.ready({ id })))
  }

  change(user = this.pick(USERS), at = this.pick([...this.merchants.keys()])) {
    const own = this.draw() < 0.3 ? this.pick(this.awake) : undefined
    const backend = this.backends[own?.user ?? user][at]
    const refresh = backend.change(this.pick(TOPICS), own?.by)
    if (own)
      for (const [topic, version] of Object.entries(refresh.data))
        this.#show(own, at, topic, version)
    if (this.draw() < 0.5) delete refresh.data
    for (const stream of this.browser.streams)
      if (stream.tab.backends[at] === backend) this.#tell(stream, at, refresh)
  }

  connect() {
    for (const stream of this.browser.streams) {
      if (stream.readyState !== FakeEventSource.CONNECTING || stream.tab.isFrozen) continue
      if (stream.tab.isLoggedOut) {
        stream.giveUp()
        continue
      }
      stream.isMute = !this.#isAtPeace && (this.#isBuffering || this.draw() < 0.1)
      stream.accept()
      if (stream.isMute) continue
      this.#compare(stream)
    }
  }

  /** What a tab is owed of each merchant that comes with these positions. */
  #owed({ backends }, url, ...ids) {
    ids.push(...new URLSearchParams(url.split('?')[1]).getAll('last_event_id'))
    return backends.map((backend, at) => {
      const own = ids.find(id => id && id === this.#named(at, id.split('@').pop()))
      return backend.owed(own?.split('@').pop())
    })
  }

  /** A poll: what the tab is owed, and what stands for its rights. */
  #answer(tab, url) {
    this.counted.polls++
    assert.ok(this.counted.polls < MANY_POLLS, 'nobody polls without a pause')
    if (tab.isLoggedOut) return { status: 401 }
    if (!this.#isAtPeace && this.draw() < 0.1) return { status: 503 }
    const merchants = {}
    for (const [at, refresh] of this.#owed(tab, url).entries()) {
      const { newest } = tab.backends[at]
      const { reason, topic } = refresh ?? {}
      const topics = topic ? [topic] : null
      if (refresh) merchants[this.merchants[at]] = { id: this.#named(at, newest), topics, reason }
    }
    const answer = {
      status: 200,
      headers: new Headers({ 'Retry-After': 10 }),
      json: async () => ({ merchants, grant: tab.user }),
    }
    return new Promise(resolve => tab.run(() => resolve(answer)))
  }

  /** Says where the tab stands, and what it is owed. A browser that reconnects adds its last ID. */
  #compare(stream) {
    const { backends } = stream.tab
    const owed = this.#owed(stream.tab, stream.url, this.told.get(stream) ?? '')
    if (this.merchants.length === 1 && !owed[0]) return this.#tell(stream, 0)
    if (this.merchants.length === 1) stream.ready()
    else {
      const merchants = Object.fromEntries(
        backends.map(({ newest }, at) => [
          this.merchants[at],
          owed[at] ? { owed: true } : { id: this.#named(at, newest) },
        ]),
      )
      const ready = { merchants, grant: stream.tab.user, heartbeat_s: 15 }
      stream.tab.run(() => stream.event('ready', ready))
    }
    for (const [at, refresh] of owed.entries()) if (refresh) this.#tell(stream, at, refresh)
  }

  break(how) {
    const stream = this.pick(this.browser.streams.filter(({ tab }) => !tab.isFrozen))
    if (how === 'mute' && stream) stream.isMute = true
    else stream?.[how]()
  }

  /** The session of this tab has ended: it is refused from now on. */
  logOut(tab) {
    if (!tab) return
    tab.isLoggedOut = true
    tab.headStatus = 401
    for (const stream of tab.streams) stream.giveUp()
  }

  #judge() {
    for (const user of USERS) {
      const streams = this.browser.streams.filter(({ tab }) => tab.user === user && !tab.isFrozen)
      assert.ok(streams.length <= (this.name ? 2 : 1), 'the tabs of a user have one stream')
    }
  }

  async step() {
    const shown = this.awake.filter(tab => !tab.document.hidden)
    const hidden = this.awake.filter(tab => tab.document.hidden)
    const frozen = this.tabs.filter(({ isFrozen }) => isFrozen)
    const left = this.tabs.filter(({ isLeft }) => isLeft)
    const actions = [
      [4, () => this.open()],
      [8, () => this.change()],
      [8, () => this.endCall(this.pick(this.tabs), this.draw() < 0.7)],
      [8, () => this.connect()],
      [1, () => this.pick(this.awake)?.close()],
      [1, () => this.pick(this.tabs)?.crash()],
      [1, () => this.logInAnew(this.pick(this.awake))],
      [0.5, () => this.logOut(this.pick(this.awake))],
      [2, () => this.pick(shown)?.show(true)],
      [2, () => this.pick(hidden)?.show()],
      [1.5, () => this.pick(this.awake)?.freeze(this.draw() < 0.5)],
      [1.5, () => this.pick(frozen)?.thaw()],
      [1.5, () => this.leave(this.pick(this.awake))],
      [1.5, () => this.comeBack(this.pick(left))],
      [1, () => this.break('drop')],
      [1, () => this.break('giveUp')],
      [1, () => this.break('mute')],
      [0.3, () => (this.#isBuffering = !this.#isBuffering)],
      [0.3, () => this.pick(this.backends[this.pick(USERS)]).lose()],
      [0.3, () => clock.sleep(this.pick([10_000, 3_600_000]))],
      [8, () => this.browser.pass(this.pick([100, 1_000, 5_000, 20_000, 60_000, 400_000]))],
    ]
    let at = this.draw() * actions.reduce((sum, [weight]) => sum + weight, 0)
    await actions.find(([weight]) => (at -= weight) < 0)[1]()
    await settle()
    this.#judge()
  }

  /** Everything works from now on: shown, each tab becomes right. */
  async end() {
    this.#isAtPeace = true
    let rounds = 0
    for (const tab of this.tabs) {
      if (tab.isFrozen) await tab.thaw()
      if (tab.isLeft) this.comeBack(tab)
      await settle()
    }
    await this.#work()
    for (const tab of this.tabs) tab.show()
    await this.#work()
    for (const user of USERS) for (const at of this.merchants.keys()) this.change(user, at)
    await this.#work()
    while (this.tabs.some(({ states }) => states.at(-1) === 'polling') && rounds++ < 4)
      await this.#work() // a stream is tried again, in the end
    for (const tab of this.tabs) {
      if (tab.isLoggedOut) continue
      for (const [at, { rows }] of tab.backends.entries())
        assert.deepEqual(tab.shown[at], rows, 'each tab shows the rows of its user')
      assert.equal(tab.running.length, 0, 'each tab is quiet')
      assert.equal(tab.states.at(-1), 'open', 'each tab knows that the stream is open')
    }
    this.#judge()
    assert.ok(this.counted.polls < MANY_POLLS, 'nobody polls without a pause')
    for (const tab of this.tabs) tab.stop()
    await settle()
    const { channels, locks, streams, tabs } = this.browser
    const left = channels.size + locks.held.size + locks.waiting.length + streams.length
    assert.equal(left + clock.timers.size, 0, 'nothing is left')
    this.counted.sources = tabs.flatMap(({ sources }) => sources).length
  }

  async #work() {
    for (let round = 0; round < 10; round++) {
      this.connect()
      await this.browser.pass(10_000)
      for (const tab of this.tabs) for (const {} of this.merchants) this.endCall(tab, true)
      await settle()
    }
  }
}

/** Plays one history with this text of the module, and throws what the judge finds. */
export async function playTabs(text, seed) {
  const world = new TabsWorld(text, seed)
  for (let i = 0; i < 60; i++) await world.step()
  await world.end()
  return world.counted
}
