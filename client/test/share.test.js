/** Tabs that hold one stream. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { clock, settle, useFakes } from './fakes.js'
import { told } from './polls.js'
import { Browser, HEARTBEAT_MS } from './tabs.js'

useFakes()

/** As many tabs as options are given; the first one leads, and its stream is open at 1-0. */
async function sharing(...all) {
  const browser = new Browser()
  const tabs = []
  for (const options of all) {
    tabs.push(browser.open().listen(options))
    await settle()
  }
  const [stream] = browser.streams
  stream.ready()
  stream.refresh({ reason: 'connected' }, '1-0')
  await settle()
  for (const tab of tabs) tab.calls.length = tab.states.length = 0
  return { browser, tabs, stream }
}

const urls = browser => browser.streams.map(({ url }) => url)

describe('tabs that share', () => {
  test('eight tabs of one user are one stream, and each is called for each change', async () => {
    const { browser, tabs, stream } = await sharing(...Array(8).fill({}))
    stream.refresh({ topic: 'seats', data: { seat: 'C7' } }, '2-0')
    await settle()

    assert.equal(browser.streams.length, 1)
    for (const tab of tabs) assert.deepEqual(tab.calls, [[['seats'], '2-0']])
  })

  test('a tab is called for its first load, and told the state', async () => {
    const { browser } = await sharing({})
    const late = browser.open().listen()
    await settle()

    assert.deepEqual(late.calls, [['connected', '1-0']])
    assert.deepEqual(late.states, ['connecting', 'open'])
  })

  test('a page that was rendered with the newest position is not called, else it is', async () => {
    const { browser } = await sharing({})
    const options = { firstCallMs: 3_000 }
    const fresh = browser.open().listen(options, '/events?merchant_id=42&last_event_id=1-0')
    const stale = browser.open().listen(options, '/events?merchant_id=42&last_event_id=0-9')
    await clock.advance(4_000)

    assert.deepEqual([fresh.calls, stale.calls], [[], [['missed', '1-0']]])
    assert.equal(browser.streams.length, 1)
  })

  test('a rendered page waits for its first call while the stream is away', async () => {
    const { browser, stream } = await sharing({})
    stream.drop()
    const tab = browser
      .open()
      .listen({ firstCallMs: 3_000 }, `/events?merchant_id=42&last_event_id=1-0`)
    await clock.advance(3_000)

    assert.deepEqual(tab.calls, [['unconfirmed', '1-0']])
  })

  test('a change of one tab is no call for itself, and one for each other tab', async () => {
    const { tabs, stream } = await sharing({ by: 'a' }, { by: 'b' }, { by: 'c' })
    for (const [by, id] of [
      ['a', '2-0'],
      ['b', '3-0'],
      ['d', '4-0'],
    ]) {
      stream.refresh({ topic: by, by }, id)
      await settle()
    }
    const seen = tabs.map(({ calls }) => calls.map(([topics]) => topics[0]).join(''))

    assert.deepEqual(seen, ['bd', 'ad', 'abd'])
  })

  test('another name, URL, or credentials are another stream', async () => {
    const browser = new Browser()
    browser.open().listen()
    for (const options of [{ share: 'bob' }, { withCredentials: true }])
      browser.open().listen(options)
    browser.open().listen({}, '/events?merchant_id=43')
    for (const query of ['token=t1&merchant_id=42', 'merchant_id=42&last_event_id=1-0#x'])
      browser.open().listen({}, `https://shop.test/events?${query}`)
    await settle()

    assert.equal(browser.streams.length, 4)
  })

  test('without the option, each tab has a stream', async () => {
    const browser = new Browser()
    for (let i = 0; i < 3; i++) browser.open().listen({ share: undefined })

    assert.equal(browser.streams.length, 3)
    assert.equal(browser.channels.size + browser.locks.held.size, 0)
  })

  test('the undo of each tab leaves nothing', async () => {
    const { browser, tabs } = await sharing({}, {}, {})
    for (const tab of tabs) {
      tab.stop()
      await settle()
    }

    const { channels, locks, streams } = browser
    assert.equal(channels.size + locks.held.size + locks.waiting.length + streams.length, 0)
    assert.equal(clock.timers.size, 0)
  })

  test('the undo in the first onState of a new leader gives the lock back', async () => {
    const { browser, tabs } = await sharing({}, { onState: () => tabs[1].stop() })
    tabs[0].close()
    await settle()

    assert.equal(browser.locks.held.size, 0)
  })
})

describe('a tab whose position differs', () => {
  test('what a page missed in the back/forward cache is one call', async () => {
    const { browser, tabs, stream } = await sharing({}, {})
    tabs[1].leave()
    stream.refresh({ topic: 'seats' }, '2-0')
    stream.refresh({ topic: 'films' }, '3-0')
    assert.deepEqual([tabs[1].calls, browser.channels.size], [[], 1])
    tabs[1].comeBack()
    await settle()

    assert.deepEqual(tabs[1].calls, [['missed', '3-0']])
  })

  test('a message that a tab did not get is missed at the next heartbeat', async () => {
    const { browser, tabs, stream } = await sharing({}, {})
    const [, channel] = browser.channels
    browser.channels.delete(channel)
    stream.refresh({ topic: 'seats' }, '2-0')
    browser.channels.add(channel)
    stream.heartbeat()
    await settle()

    assert.deepEqual(tabs[1].calls, [['missed', '2-0']])
  })
})

describe('the tab with the stream', () => {
  for (const [how, end] of [
    ['is closed', tab => tab.close()],
    ['crashes', tab => tab.crash()],
    ['is left', tab => tab.leave()],
    ['stops', tab => tab.stop()],
  ]) {
    test(`another tab opens the stream at its position when it ${how}`, async () => {
      const { browser, tabs } = await sharing({}, {}, {})
      end(tabs[0])
      await settle()
      assert.deepEqual(urls(browser), ['/events?merchant_id=42&grant=1&last_event_id=1-0'])
      const [stream] = browser.streams
      stream.ready()
      stream.refresh({ topic: 'seats', reason: 'missed' }, '5-0')
      await settle()

      for (const tab of tabs.slice(1)) {
        assert.deepEqual(tab.calls, [['missed', '5-0']])
        assert.deepEqual(tab.states, ['connecting', 'open'])
      }
    })
  }

  for (const hears of [false, true]) {
    test(`a frozen one${hears ? ' that hears' : ''} is replaced within 3 heartbeats, once, and follows when it is thawed`, async () => {
      const { browser, tabs, stream } = await sharing(...Array(20).fill({}))
      let draw = 0
      Math.random = () => (draw = (draw + 0.37) % 1)
      tabs[0].freeze(hears)
      await browser.pass(2.5 * HEARTBEAT_MS)
      assert.equal(browser.tabs.flatMap(({ sources }) => sources).length, 2)
      const next = browser.streams.find(other => other !== stream)
      next.ready({ id: '1-0' })
      next.refresh({ topic: 'seats' }, '2-0')
      await settle()
      for (const tab of tabs.slice(1)) assert.deepEqual(tab.calls, [[['seats'], '2-0']])
      await tabs[0].thaw()
      await browser.pass(HEARTBEAT_MS)

      assert.deepEqual([tabs[0].calls.length, tabs[0].calls[0][1]], [1, '2-0'])
      assert.deepEqual(browser.streams, [next])
    })
  }

  test('a frozen one that has not been connecting for long is waited for, then replaced', async () => {
    const { browser, tabs, stream } = await sharing({}, {})
    stream.drop()
    tabs[0].freeze(true)
    await browser.pass(60_000)
    assert.deepEqual(tabs[1].sources, [])
    await browser.pass(3 * HEARTBEAT_MS)

    assert.equal(tabs[1].sources.length, 1)
  })

  test('the others are told at once that the stream has ended', async () => {
    const { tabs, stream } = await sharing({}, {})
    stream.drop()
    await settle()

    assert.deepEqual(tabs[1].states, ['connecting'])
  })

  test('one that is alive and has no stream is not replaced', async () => {
    const { browser, tabs, stream } = await sharing({}, {})
    stream.drop()
    await browser.pass(55_000)

    assert.deepEqual([tabs[1].sources, browser.streams], [[], [stream]])
    assert.deepEqual(tabs[1].states, ['connecting'])
  })

  test('one whose token is refused resigns, and the next asks its own token', async () => {
    const token = name => ({ token: async () => name })
    const { browser, tabs, stream } = await sharing(token('t1'), token('t2'))
    tabs[0].headStatus = 401
    stream.giveUp()
    await settle()
    tabs[0].streams[0].giveUp()
    await settle()

    assert.equal(tabs[0].states.at(-1), 'refused')
    assert.deepEqual(urls(browser), ['/events?merchant_id=42&grant=1&token=t2&last_event_id=1-0'])
    assert.equal(tabs[1].states.at(-1), 'connecting')
  })
})

describe('the lead', () => {
  test('a tab that takes it counts its failures and refusals anew', async () => {
    const { browser, tabs } = await sharing({}, {})
    tabs[1].headStatus = 401
    for (let round = 0; round < 2; round++) {
      tabs[0].leave()
      await settle()
      tabs[1].streams[0].giveUp()
      await settle()
      tabs[0].comeBack()
      await settle()
      tabs[1].leave()
      await settle()
      tabs[1].comeBack()
      await settle()
      assert.equal(browser.streams[0].tab, tabs[0])
    }

    assert.ok(!tabs[1].states.includes('refused'))
  })

  test('it is told at once, so that nobody else takes it', async () => {
    const { browser, tabs, stream } = await sharing({}, {}, {})
    stream.drop()
    await settle()
    const [, , channel] = browser.channels
    const told = []
    channel.onmessage = ({ data }) => told.push(data)
    tabs[0].crash()
    await settle()

    assert.equal(told.length, 1)
    assert.deepEqual(told[0].positions, { 42: '1-0' })
    assert.equal(browser.streams[0].tab, tabs[1])
  })

  test('a tab that has lost it watches the new one, and waits for the lock', async () => {
    const { browser, tabs } = await sharing({}, {})
    tabs[0].freeze()
    await browser.pass(2.5 * HEARTBEAT_MS)
    tabs[1].freeze()
    await tabs[0].thaw()
    await settle()
    assert.equal(browser.locks.waiting.length, 1)
    await browser.pass(3 * HEARTBEAT_MS)

    assert.equal(tabs[0].streams.length, 1)
  })

  test('a tab that asks whether a live one is silent tells its page nothing', async () => {
    const { browser, tabs, stream } = await sharing({}, {})
    stream.isMute = true
    await browser.pass(1.7 * HEARTBEAT_MS)

    assert.deepEqual(tabs[1].states, [])
  })

  test('tabs that are shown take it before hidden ones, each after a wait of its own', async () => {
    const { browser, tabs } = await sharing({}, {}, {}, {})
    tabs[1].show(true)
    const draws = [0, 0.9, 0.2]
    Math.random = () => draws.shift() ?? 0.5
    tabs[0].freeze()
    await browser.pass(3 * HEARTBEAT_MS)

    assert.deepEqual(
      tabs.map(({ sources }) => sources.length > 0),
      [true, false, false, true],
    )
  })
})

describe('a tab that has asked for the lead', () => {
  test('it does not lead after its page was left', async () => {
    const { browser, tabs } = await sharing({}, {})
    tabs[0].freeze()
    const late = browser.open().listen()
    tabs[1].stop()
    late.leave()
    await browser.pass(2 * HEARTBEAT_MS)

    assert.deepEqual([late.sources, tabs[1].sources], [[], []])
  })

  test('it does not lead if the lock is granted after its undo', async () => {
    const { browser, tabs } = await sharing({}, {})
    tabs[1].freeze()
    tabs[0].close()
    await settle()
    tabs[1].stop()
    await tabs[1].thaw()

    assert.deepEqual([tabs[1].sources, browser.locks.held.size], [[], 0])
  })

  test('it waits for the lock when it is shown, though it was not to be had at first', async () => {
    const { browser } = await sharing({})
    const tab = browser.open({ hidden: true }).listen()
    await settle()
    assert.equal(browser.locks.waiting.length, 0)
    tab.show()

    assert.equal(browser.locks.waiting.length, 1)
  })

  test('it leads again if another tab has stolen the lock and is silent', async () => {
    const { browser, tabs } = await sharing({})
    const [name] = browser.locks.held.keys()
    const silent = browser.open()
    browser.locks
      .request(silent, name, { steal: true }, () => new Promise(() => {}))
      .catch(() => {})
    await settle()
    assert.deepEqual(tabs[0].streams, [])
    await browser.pass(3 * HEARTBEAT_MS)

    assert.equal(tabs[0].streams.length, 1)
  })
})

describe('hidden tabs', () => {
  test('a tab that is shown leads, whichever came first', async () => {
    const { browser, tabs } = await sharing({}, {}, {})
    tabs[1].show(true)
    tabs[0].close()
    await settle()

    assert.deepEqual([browser.streams[0].tab, browser.streams.length], [tabs[2], 1])
  })

  test('a hidden tab leads if nobody else does, and when none is shown', async () => {
    const browser = new Browser()
    const [a, b] = [browser.open({ hidden: true }), browser.open({ hidden: true })]
    a.listen()
    b.listen()
    await settle()
    assert.deepEqual([a.streams.length, b.streams.length], [1, 0])
    a.streams[0].ready({ id: '1-0' })
    a.close()
    await browser.pass(2 * HEARTBEAT_MS)

    assert.equal(b.streams.length, 1)
  })

  test('a hidden tab that is shown waits for the lock', async () => {
    const { browser, tabs } = await sharing({}, {})
    tabs[1].show(true)
    assert.equal(browser.locks.waiting.length, 0)
    tabs[1].show()

    assert.equal(browser.locks.waiting.length, 1)
  })

  test('a page that is seen again without an event is called at the next message', async () => {
    const { tabs, stream } = await sharing({}, { whileHidden: 'defer' })
    tabs[1].show(true)
    stream.refresh({ topic: 'seats' }, '2-0')
    await settle()
    tabs[1].document.hidden = false
    stream.heartbeat()
    await settle()

    assert.deepEqual(tabs[1].calls, [[['seats'], '2-0']])
  })

  test('a tab that defers hears on, and does not lead; shown, it asks', async () => {
    const { browser, tabs, stream } = await sharing({}, { whileHidden: 'defer' })
    tabs[1].show(true)
    stream.refresh({ topic: 'seats' }, '2-0')
    tabs[0].freeze()
    await browser.pass(10 * HEARTBEAT_MS)
    assert.deepEqual([tabs[1].calls, tabs[1].streams], [[], []])
    tabs[1].show()
    assert.deepEqual(tabs[1].calls, [[['seats'], '2-0']])
    await browser.pass(HEARTBEAT_MS)

    assert.equal(tabs[1].streams.length, 1)
  })

  test('a tab that defers gives the lead away after hiddenCloseMs', async () => {
    const { browser, tabs } = await sharing({ whileHidden: 'defer', hiddenCloseMs: 60_000 }, {})
    tabs[0].show(true)
    await browser.pass(75_000)

    assert.deepEqual([tabs[0].streams.length, tabs[1].streams.length], [0, 1])
  })
})

describe('tabs that share where streams are mute', () => {
  const owed = { 42: { id: '7-0', topics: null, reason: 'connected' } }

  test('one tab polls, and tells the others what it hears, and that it polls', async () => {
    const browser = new Browser()
    let asked = 0
    let answer = {}
    const fetch = async () => (asked++, told(answer))
    const tabs = []
    for (let i = 0; i < 3; i++) {
      tabs.push(browser.open().listen({ fetch }))
      await settle()
    }
    await clock.advance(45_000)
    await settle()
    await clock.advance(20_000)
    for (const tab of tabs) assert.deepEqual(tab.states, ['connecting', 'polling'])
    const before = asked
    answer = owed
    await clock.advance(10_000)

    for (const tab of tabs) assert.deepEqual(tab.calls, [['connected', '7-0']])
    assert.equal(asked, before + 1)
  })

  test('a tab that comes late is told where the page stands, and needs no call if it stands there', async () => {
    const browser = new Browser()
    const fetch = async () => told()
    browser.open().listen({ fetch }, '/events?merchant_id=42&last_event_id=7-0')
    await settle()
    await clock.advance(45_000)
    await settle()
    await clock.advance(20_000)
    const options = { fetch, firstCallMs: 5_000 }
    const late = browser.open().listen(options, '/events?merchant_id=42&last_event_id=7-0')
    await clock.advance(30_000)

    assert.deepEqual([late.states, late.calls], [['connecting', 'polling'], []])
  })

  test('a tab whose polls have stopped does not answer the others', async () => {
    const browser = new Browser()
    const fetch = async () => told()
    const [first, second] = [browser.open(), browser.open()]
    for (const tab of [first, second]) tab.listen({ fetch })
    await settle()
    await clock.advance(45_000)
    await settle()
    await clock.advance(20_000)
    first.freeze(true)
    await clock.advance(3 * HEARTBEAT_MS)

    assert.equal(second.streams.length, 1)
  })
})

describe('a browser that does not share', () => {
  for (const missing of ['navigator', 'BroadcastChannel']) {
    test(`each tab has a stream without ${missing}`, async () => {
      const browser = new Browser()
      for (let i = 0; i < 2; i++) browser.open({ missing: [missing] }).listen()
      await settle()

      assert.equal(browser.streams.length, 2)
      assert.equal(browser.channels.size, 0)
    })
  }

  test('each tab has a stream where locks are refused, as in a sandboxed frame', async () => {
    const browser = new Browser()
    browser.locks.refuse = true
    for (let i = 0; i < 2; i++) browser.open().listen()
    await settle()

    assert.deepEqual([browser.streams.length, browser.channels.size], [2, 0])
  })

  test('a tab has a stream of its own where the URL cannot be told from others', () => {
    const tab = new Browser().open()
    tab.document.baseURI = undefined
    tab.listen()

    assert.equal(tab.streams.length, 1)
  })
})
