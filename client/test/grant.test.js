/** Tabs of one name: each hears a stream of its own rights, and no other. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { clock, FakeEventSource, settle, useFakes } from './fakes.js'
import { told } from './polls.js'
import { Browser, HEARTBEAT_MS } from './tabs.js'

useFakes()

/** A tab of each of these users, all of one name. The first stream is open, at 1-0. */
async function opened(...users) {
  const browser = new Browser()
  const tabs = []
  for (const user of users) {
    tabs.push(open(browser, user))
    await settle()
    if (tabs.length === 1) tabs[0].sources[0].ready({ id: '1-0' })
    await settle()
  }
  return { browser, tabs, stream: tabs[0].sources[0] }
}

function open(browser, user, options) {
  const tab = browser.open()
  tab.grant = user
  return tab.listen({ share: 'the shop', ...options })
}

const heard = ({ calls }) => calls.map(([what]) => what)
const counts = tabs => tabs.map(({ streams }) => streams.length)

describe('a tab that joins', () => {
  test('it asks for its rights once, and hears what a tab of the same rights is told', async () => {
    const { tabs, stream } = await opened('ann', 'ann')
    stream.refresh({ topic: 'seats' }, '2-0')
    stream.heartbeat()
    await settle()

    assert.deepEqual(heard(tabs[1]), ['connected', ['seats']])
    assert.deepEqual([tabs[0].proofs, tabs[1].proofs], [[], ['/events?merchant_id=42&grant=1']])
  })

  test('it waits while the rights of the stream are not known yet, and needs no poll of its own', async () => {
    const browser = new Browser()
    const tabs = [open(browser, 'ann'), open(browser, 'ann')]
    await browser.pass(2 * HEARTBEAT_MS)

    assert.deepEqual([tabs[1].proofs, counts(tabs)], [[], [1, 0]])
  })

  test('a tab of other rights hears nothing, and has a stream with all tabs of its own rights', async () => {
    const { browser, tabs, stream } = await opened('ann', 'bob', 'bob', 'ann')
    assert.deepEqual(counts(tabs), [1, 1, 0, 0])
    tabs[1].sources[0].ready({ id: '7-0' })
    await settle()
    for (const tab of tabs) tab.calls.length = 0
    stream.refresh({ topic: 'of ann' }, '2-0')
    tabs[1].sources[0].refresh({ topic: 'of bob' }, '8-0')
    await browser.pass(HEARTBEAT_MS)

    assert.deepEqual(tabs.map(heard), [[['of ann']], [['of bob']], [['of bob']], [['of ann']]])
    assert.equal(browser.streams.length, 2)
  })

  test('a tab with tokens asks with one of its own, and again after one that it does not get', async () => {
    const { browser } = await opened('ann')
    const tokens = [Promise.reject(new Error('offline')), 't2']
    const tab = open(browser, 'ann', { token: async () => tokens.shift() })
    await settle()
    assert.equal(tab.errors.length, 1)
    await clock.advance(1_000)

    assert.deepEqual(tab.proofs, ['/events?merchant_id=42&grant=1&token=t2'])
    assert.deepEqual(heard(tab), ['connected'])
  })

  test('a page whose own class may send what a poll does not has a stream of its own', async () => {
    const { browser } = await opened('ann')
    const [tab, asking] = [browser.open(), browser.open()]
    class Other extends FakeEventSource {}
    tab.listen({ share: 'the shop', EventSource: Other })
    asking.listen({ share: 'the shop', EventSource: Other, fetch: async () => told() })
    await settle()

    assert.equal(browser.channels.size, 2)
  })
})

describe('the answer to the poll of a tab that joins', () => {
  test('without one, the tab hears nothing, and asks again after waits that grow', async () => {
    const { browser, stream } = await opened('ann')
    const answers = [{ status: 503 }, { status: 503 }]
    let asked = 0
    const fetch = async () => (asked++, answers.shift() ?? told())
    const tab = open(browser, 'ann', { fetch })
    await settle()
    stream.refresh({ topic: 'seats' }, '2-0')
    stream.heartbeat()
    await settle()
    assert.deepEqual([asked, tab.calls, tab.states], [1, [], ['connecting']])
    await clock.advance(500)
    assert.deepEqual([asked, tab.calls], [2, []])
    await clock.advance(999)
    assert.equal(asked, 2)
    await clock.advance(1)

    assert.deepEqual([asked, tab.calls], [3, [['connected', '2-0']]])
  })

  test('one that does not come in 45 s is not waited for', async () => {
    const { browser } = await opened('ann')
    let asked = 0
    const tab = open(browser, 'ann', { fetch: () => (asked++ ? told() : new Promise(() => {})) })
    await browser.pass(45_000)

    assert.deepEqual([asked, tab.calls, tab.streams], [2, [['connected', '1-0']], []])
  })

  for (const status of [401, 403]) {
    test(`a tab that is answered ${status} twice is refused`, async () => {
      const { browser, stream } = await opened('ann')
      const tab = open(browser, 'ann', { fetch: async () => ({ status }) })
      await clock.advance(1_000)
      stream.refresh({ topic: 'seats' }, '2-0')
      await settle()

      assert.deepEqual([tab.states, tab.calls], [['connecting', 'refused'], []])
      assert.equal(browser.channels.size, 1)
    })
  }

  test('a tab that was refused once is not refused for the next time, which is much later', async () => {
    const { browser, stream } = await opened('ann')
    const answers = [{ status: 401 }, told(), { status: 401 }, told()]
    const tab = open(browser, 'ann', { fetch: async () => answers.shift() })
    await clock.advance(1_000)
    tab.leave()
    tab.comeBack()
    await clock.advance(1_000)
    stream.refresh({ topic: 'seats' }, '2-0')
    await settle()

    assert.deepEqual([answers, tab.calls.at(-1)], [[], [['seats'], '2-0']])
  })

  for (const [what, answer] of [
    ['says nothing of rights', { status: 200, json: async () => ({ merchants: {} }) }],
    ['is not of the service', { status: 200 }],
  ]) {
    test(`a tab has a stream of its own if it ${what}`, async () => {
      const { browser } = await opened('ann')
      const tab = open(browser, 'ann', { fetch: async () => answer })
      await settle()

      assert.deepEqual([tab.streams.length, browser.channels.size], [1, 1])
    })
  }
})

describe('rights that change', () => {
  test('the others ask anew when the stream is opened anew with other rights', async () => {
    const { browser, tabs, stream } = await opened('ann', 'ann', 'ann')
    tabs[0].grant = tabs[1].grant = 'bob'
    stream.drop()
    stream.ready({ id: '7-0' })
    stream.refresh({ topic: 'of bob' }, '8-0')
    await browser.pass(HEARTBEAT_MS)

    assert.deepEqual(tabs.map(heard), [[['of bob']], ['connected', 'missed'], ['connected']])
    assert.deepEqual(counts(tabs), [1, 0, 1])
  })

  test('a tab of other rights than the second stream as well has one of its own', async () => {
    const { browser, tabs } = await opened('ann', 'bob', 'bob')
    const [stream] = tabs[1].sources
    stream.ready({ id: '7-0' })
    tabs[1].grant = 'cleo'
    stream.drop()
    stream.ready({ id: '9-0' })
    await settle()

    assert.deepEqual([counts(tabs), browser.channels.size], [[1, 1, 1], 2])
  })

  test('a page that comes back asks anew: it may be of another user now', async () => {
    const { tabs, stream } = await opened('ann', 'ann')
    tabs[1].leave()
    tabs[1].grant = 'bob'
    stream.refresh({ topic: 'of ann' }, '2-0')
    tabs[1].comeBack()
    await settle()

    assert.deepEqual([heard(tabs[1]), tabs[1].streams.length], [['connected'], 1])
  })

  test('the tab that polls for all says so when its polls have other rights', async () => {
    const browser = new Browser()
    let user = 'ann'
    const fetch = async () => ({ ...told(), json: async () => ({ merchants: {}, grant: user }) })
    const tabs = [open(browser, '', { fetch }), open(browser, '', { fetch })]
    await clock.advance(45_000)
    await clock.advance(30_000)
    assert.deepEqual(tabs[1].states, ['connecting', 'polling'])
    const grants = []
    const [, channel] = browser.channels
    const { onmessage } = channel
    channel.onmessage = event => (grants.push(event.data.grant), onmessage(event))
    user = 'bob'
    await clock.advance(11_000)

    assert.deepEqual(grants.at(-1), 'bob')
    assert.deepEqual(
      [tabs[1].states, counts(tabs)],
      [
        ['connecting', 'polling'],
        [0, 0],
      ],
    )
  })
})
