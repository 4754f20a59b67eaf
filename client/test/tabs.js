/**
 * A browser with several tabs for tests: each has a document, a window, timers and EventSources of
 * its own; locks and channels are shared. A frozen tab runs nothing before it is thawed: what
 * reaches it waits in order. Uses the clock of fakes.js.
 */

import { readFile } from 'node:fs/promises'
import { clock, FakeEventSource, FakeTarget, settle } from './fakes.js'

const read = name => readFile(new URL(`../${name}`, import.meta.url), 'utf8')
export const source = await read('index.js')
const polls = await read('poll.js')
export const HEARTBEAT_MS = 15_000

/** Web Locks: https://w3c.github.io/web-locks/#algorithms */
class Locks {
  held = new Map()
  waiting = []

  request(tab, name, options, callback) {
    if (this.refuse) return Promise.reject(new DOMException('a sandbox', 'SecurityError'))
    return new Promise((resolve, reject) => {
      const entry = { tab, name, callback, resolve, reject }
      const { signal, steal, ifAvailable } = options
      if (signal && (steal || ifAvailable)) throw new DOMException('', 'NotSupportedError')
      if (signal?.aborted) throw signal.reason
      signal?.addEventListener('abort', () => {
        if (!this.waiting.includes(entry)) return
        this.waiting = this.waiting.filter(other => other !== entry)
        reject(signal.reason)
      })
      const holder = this.held.get(name)
      if (steal) {
        holder?.tab.run(() => holder.reject(new DOMException('stolen', 'AbortError')))
        this.#grant(entry)
      } else if (ifAvailable && holder) tab.run(() => resolve(callback(null)))
      else {
        this.waiting.push(entry)
        this.#next(name)
      }
    })
  }

  #grant(entry) {
    const { tab, name, callback, resolve, reject } = entry
    this.held.set(name, entry)
    tab.run(() =>
      (async () => callback({ name }))()
        .then(resolve, reject)
        .finally(() => this.#release(entry)),
    )
  }

  #release(entry) {
    if (this.held.get(entry.name) !== entry) return
    this.held.delete(entry.name)
    this.#next(entry.name)
  }

  #next(name) {
    const entry = this.waiting.find(other => other.name === name)
    if (!entry || this.held.has(name)) return
    this.waiting = this.waiting.filter(other => other !== entry)
    this.#grant(entry)
  }

  /** A tab that is closed or has crashed. */
  forget(tab) {
    this.waiting = this.waiting.filter(entry => entry.tab !== tab)
    for (const entry of this.held.values()) if (entry.tab === tab) this.#release(entry)
  }
}

export class Browser {
  locks = new Locks()
  channels = new Set()
  tabs = []

  constructor(text = source) {
    // What is not a module cannot load one.
    const code = text.replace("import('./poll.js')", 'loadPolls()')
    this.code = `${code}\nreturn onRefresh`.replace(/^export /gm, '')
  }

  open(properties = {}) {
    const tab = new Tab(this, properties)
    this.tabs.push(tab)
    return tab
  }

  /** The EventSources that are not closed, frozen or not. */
  get streams() {
    return this.tabs.flatMap(tab => tab.streams)
  }

  /** Time passes, and each open stream has its heartbeats. */
  async pass(ms) {
    for (let leftMs = ms; leftMs > 0; leftMs -= HEARTBEAT_MS) {
      for (const stream of this.streams) {
        if (stream.readyState === FakeEventSource.OPEN && !stream.isMute)
          stream.tab.run(() => stream.heartbeat())
      }
      await clock.advance(Math.min(leftMs, HEARTBEAT_MS))
      await settle()
    }
  }
}

export class Tab {
  isDead = false
  isFrozen = false
  document = new FakeTarget()
  window = new FakeTarget()
  calls = []
  states = []
  errors = []
  sources = []
  channels = []
  headStatus = 503
  grant = 'ann'
  proofs = [] // the polls that asked for the rights of the tab
  #hears = false
  #tasks = []
  #timers = new Set()

  constructor(browser, { hidden = false, missing = [] }) {
    this.browser = browser
    this.document.hidden = hidden
    this.document.baseURI = 'https://shop.test/seats'
    const tab = this
    class TabSource extends FakeEventSource {
      constructor(url, init) {
        super(url, init)
        this.tab = tab
        tab.sources.push(this)
      }

      ready(fields) {
        super.ready({ grant: tab.grant, ...fields })
      }
    }
    class TabChannel {
      constructor(name) {
        this.name = name
        browser.channels.add(this)
        tab.channels.push(this)
      }

      postMessage(message) {
        const data = structuredClone(message)
        for (const other of browser.channels) {
          if (other === this || other.name !== this.name) continue
          queueMicrotask(() =>
            other.tab.hear(() => browser.channels.has(other) && other.onmessage({ data })),
          )
        }
      }

      close() {
        browser.channels.delete(this)
      }

      tab = tab
    }
    const globals = {
      document: this.document,
      addEventListener: this.window.addEventListener,
      removeEventListener: this.window.removeEventListener,
      setTimeout: this.#setTimeout,
      clearTimeout: id => (clock.clearTimeout(id), this.#timers.delete(id)),
      EventSource: TabSource,
      BroadcastChannel: TabChannel,
      navigator: { locks: { request: (...all) => browser.locks.request(this, ...all) } },
      fetch: async (url, init) => this.answer(url, init),
      loadPolls: async () => run(`${polls}\nreturn { pollInstead }`.replace(/^export /gm, '')),
      reportError: error => this.errors.push(error),
      performance: clock,
    }
    for (const name of missing) globals[name] = undefined
    const run = code =>
      new Function(...Object.keys(globals), 'globalThis', code)(...Object.values(globals), globals)
    this.onRefresh = run(browser.code)
  }

  #setTimeout = (run, ms) => {
    // One that falls due while the tab is frozen may still be cleared before the tab is thawed.
    const id = clock.setTimeout(() => this.run(() => this.#timers.delete(id) && run()), ms)
    this.#timers.add(id)
    return id
  }

  /** What the service answers. Only a tab that shares says which method a poll has. */
  answer(url, { method }) {
    if (method !== 'GET') return { status: this.headStatus }
    this.proofs.push(url)
    return { status: 200, json: async () => ({ merchants: {}, grant: this.grant }) }
  }

  /** Runs a task of the tab, now or when it is thawed. */
  run(task) {
    if (this.isDead) return
    if (this.isFrozen) this.#tasks.push(task)
    else task()
  }

  hear(task) {
    if (this.#hears && !this.isDead) task()
    else this.run(task)
  }

  get streams() {
    return this.sources.filter(({ readyState }) => readyState !== FakeEventSource.CLOSED)
  }

  /** Uses the module, as the user `share`. */
  listen(options = {}, url = '/events?merchant_id=42', callback = this.callback) {
    const onState = state => this.states.push(state)
    this.stop = this.onRefresh(url, callback, {
      share: 'ann',
      firstCallMs: Infinity,
      onState,
      ...options,
    })
    return this
  }

  callback = ({ topics, reason, data, id }) => {
    this.calls.push([reason ?? topics ?? data, id])
  }

  show(hidden = false) {
    this.document.hidden = hidden
    this.document.fire('visibilitychange')
  }

  /** Chromium hands a frozen tab its messages, though no other event. */
  freeze(hears = false) {
    this.isFrozen = true
    this.#hears = hears
  }

  async thaw() {
    while (this.#tasks.length > 0) {
      const task = this.#tasks.shift()
      if (!this.isDead) task()
      await settle()
    }
    this.isFrozen = this.#hears = false
  }

  leave() {
    this.window.fire('pagehide')
    this.show(true)
  }

  /** Comes back out of the back/forward cache. */
  comeBack() {
    this.window.fire('pageshow')
    this.show()
  }

  /** Nothing of the page runs any more: its renderer has been killed. */
  crash() {
    this.isDead = true
    for (const id of this.#timers) clock.clearTimeout(id)
    for (const channel of this.channels) channel.close()
    for (const stream of this.streams) stream.close()
    this.browser.locks.forget(this)
  }

  close() {
    this.window.fire('pagehide')
    this.crash()
  }
}
