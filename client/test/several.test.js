/** A stream of several merchants: a slot and a position for each of them. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import {
  callback,
  calls,
  clock,
  handCallback,
  last,
  openOnes,
  reported,
  settle,
  useFakes,
  visibility,
} from './fakes.js'
import { Browser } from './tabs.js'

useFakes()

const URL_OF_TWO = '/events?merchant_id=42&merchant_id=43'

/** The service says of each merchant where the page stands. */
function ready(merchants) {
  last().accept()
  last().event('ready', { merchants, heartbeat_s: 15, connection_id: 'c-1' })
}

const refresh = (merchant, id, fields = {}) =>
  last().event('refresh', { merchant_id: merchant, ...fields }, `${merchant}@${id}`)

const position = (merchant, id) =>
  last().event('position', { merchant_id: merchant }, `${merchant}@${id}`)

const reasons = () => calls.map(({ merchantId, reason }) => [merchantId, reason])

/** The positions that the newest EventSource came with. */
const positionsInUrl = () =>
  new URLSearchParams(last().url.split('?')[1]).getAll('last_event_id').sort()

async function reopen() {
  last().giveUp()
  await clock.advance(1_000)
}

describe('a page of two merchants', () => {
  test('each call is for one merchant, with the newest ID of that merchant', async () => {
    onRefresh(URL_OF_TWO, callback)
    ready({ 42: { owed: true }, 43: { owed: true } })
    refresh('42', '7-0', { reason: 'connected' })
    refresh('43', '9-0', { reason: 'connected' })
    await settle()

    assert.deepEqual(
      calls.map(({ merchantId, id, reason }) => [merchantId, id, reason]),
      [
        ['42', '42@7-0', 'connected'],
        ['43', '43@9-0', 'connected'],
      ],
    )
  })

  test('a call that is slow or fails holds up no call for the other merchant', async () => {
    const slow = handCallback()
    onRefresh(URL_OF_TWO, slow)
    ready({ 42: { owed: true }, 43: { owed: true } })
    refresh('42', '1-0')
    refresh('42', '2-0')
    refresh('43', '3-0')
    assert.deepEqual(
      slow.refreshes().map(({ merchantId }) => merchantId),
      ['42', '43'],
    )

    slow.calls[0].reject(new Error('offline'))
    slow.calls[1].resolve()
    await settle()
    refresh('43', '4-0')
    assert.deepEqual([slow.calls.length, reported.length], [3, 1])

    await clock.advance(500)
    assert.deepEqual([slow.calls.length, slow.refreshes()[3].id], [4, '42@2-0'])
  })

  test('a merchant that has missed nothing is not called, whether it has a position or none', async () => {
    onRefresh(URL_OF_TWO, callback, { firstCallMs: 3_000 })
    ready({ 42: { id: '42@7-0' }, 43: { id: null } })
    await clock.advance(10_000)

    assert.deepEqual(calls, [])
  })

  test('a page whose service is away is called for each merchant that the URL names', async () => {
    onRefresh(`${URL_OF_TWO}&merchant_id=42`, callback)
    await clock.advance(3_000)

    assert.deepEqual(reasons(), [
      ['42', 'unconfirmed'],
      ['43', 'unconfirmed'],
    ])
  })

  test('the URL has one position for each merchant, whoever has told it', async () => {
    onRefresh(`${URL_OF_TWO}&last_event_id=42@1-0&last_event_id=43@1-0`, callback)
    assert.deepEqual(positionsInUrl(), ['42@1-0', '43@1-0'])
    ready({ 42: { owed: true }, 43: { id: '43@5-0' } })
    refresh('42', '7-0')
    await reopen()
    assert.deepEqual(positionsInUrl(), ['42@7-0', '43@5-0'])

    ready({ 42: { id: '42@2-0' }, 43: { pending: true } })
    position('43', '6-0')
    await reopen()
    assert.deepEqual(positionsInUrl(), ['42@2-0', '43@6-0'])
  })

  test('a position that the page was rendered with stays until another one is heard', async () => {
    onRefresh(`${URL_OF_TWO}&last_event_id=42@1-0&last_event_id=43@1-0`, callback)
    ready({ 42: { owed: true }, 43: { pending: true } })
    refresh('42', '7-0')
    await reopen()

    assert.deepEqual(positionsInUrl(), ['42@7-0', '43@1-0'])
  })

  test('an ID without a name is the position of no merchant', async () => {
    onRefresh(`${URL_OF_TWO}&last_event_id=1-0`, callback)
    ready({ 42: { owed: true }, 43: { owed: true } })
    refresh('43', '7-0')
    await reopen()

    assert.deepEqual(positionsInUrl(), ['43@7-0'])
  })

  test('the URL has the position that the page gave until one is heard', async () => {
    onRefresh('/events?last_event_id=42@1-0&merchant_id=42&merchant_id=43', callback)
    await reopen()

    assert.equal(last().url, '/events?merchant_id=42&merchant_id=43&last_event_id=42%401-0')
  })

  test('a hidden page keeps its stream while a merchant has not been loaded', async () => {
    const slow = handCallback()
    onRefresh(URL_OF_TWO, slow, { whileHidden: 'defer', hiddenCloseMs: 60_000 })
    ready({ 42: { id: '42@1-0' }, 43: { owed: true } })
    refresh('43', '1-0')
    visibility('hidden')
    for (let ms = 0; ms < 120_000; ms += 15_000) {
      last().heartbeat()
      await clock.advance(15_000)
    }
    assert.equal(openOnes().length, 1)

    slow.calls[0].resolve()
    await settle()
    last().heartbeat()
    await clock.advance(60_000)
    assert.equal(openOnes().length, 0)
  })
})

describe('a merchant of which the service knows nothing yet', () => {
  for (const [name, follow] of Object.entries({
    'its position': () => position('43', '5-0'),
    'its refresh': () => refresh('43', '5-0'),
    "a refresh of the page's own": () => refresh('43', '5-0', { by: 'me' }),
  })) {
    test(`the state is open only after ${name}`, () => {
      const states = []
      onRefresh(URL_OF_TWO, callback, { by: 'me', onState: state => states.push(state) })
      ready({ 42: { id: '42@1-0' }, 43: { pending: true } })
      last().heartbeat()
      refresh('42', '2-0')
      assert.deepEqual(states, ['connecting'])

      follow()
      assert.deepEqual(states, ['connecting', 'open'])
    })
  }

  test('the state is open only when nothing is pending', () => {
    const states = []
    onRefresh(URL_OF_TWO, callback, { onState: state => states.push(state) })
    ready({ 42: { pending: true }, 43: { pending: true } })
    position('43', '5-0')
    assert.deepEqual(states, ['connecting'])

    position('42', '5-0')
    assert.deepEqual(states, ['connecting', 'open'])
  })

  test('it is called after 3 s, and not again if it has missed nothing', async () => {
    onRefresh(URL_OF_TWO, callback)
    ready({ 42: { id: '42@1-0' }, 43: { pending: true } })
    await clock.advance(3_000)
    assert.deepEqual(reasons(), [['43', 'unconfirmed']])

    position('43', '5-0')
    await clock.advance(10_000)
    assert.equal(calls.length, 1)
  })

  test('a new stream waits for nothing of the one before', async () => {
    const states = []
    onRefresh(URL_OF_TWO, callback, { onState: state => states.push(state) })
    ready({ 42: { id: '42@1-0' }, 43: { pending: true } })
    await reopen()
    ready({ 42: { id: '42@1-0' }, 43: { id: '43@1-0' } })

    assert.deepEqual(states, ['connecting', 'open'])
  })
})

describe('a URL that names no merchant', () => {
  test('the first load is for the page, and each merchant is called once it is known', async () => {
    onRefresh('/events', callback)
    await clock.advance(3_000)
    assert.deepEqual(reasons(), [[undefined, 'unconfirmed']])

    ready({ 42: { owed: true }, 43: { owed: true } })
    refresh('42', '1-0', { reason: 'connected' })
    refresh('43', '1-0', { reason: 'connected' })
    await settle()
    assert.deepEqual(reasons().slice(1), [
      ['42', 'connected'],
      ['43', 'connected'],
    ])
  })

  test('a first load that fails is repeated for each merchant', async () => {
    const slow = handCallback()
    onRefresh('/events', slow)
    await clock.advance(3_000)
    slow.calls[0].reject(new Error('offline'))
    await settle()
    ready({ 42: { id: '42@1-0' }, 43: { id: '43@1-0' } })
    await clock.advance(1_000)

    assert.deepEqual(
      slow
        .refreshes()
        .slice(1)
        .map(({ merchantId }) => merchantId)
        .sort(),
      ['42', '43'],
    )
  })

  test('a first load keeps its distance from the next call of the first merchant', async () => {
    onRefresh('/events', callback, { minIntervalMs: 10_000 })
    await clock.advance(3_000)
    ready({ 42: { owed: true } })
    refresh('42', '1-0', { reason: 'connected' })
    await clock.advance(9_000)
    assert.equal(calls.length, 1)

    await clock.advance(1_000)
    assert.deepEqual(reasons()[1], ['42', 'connected'])
  })

  test('a merchant of which the stream is no more is not called again, and leaves the URL', async () => {
    const slow = handCallback()
    const stop = onRefresh('/events', slow)
    ready({ 42: { owed: true }, 43: { owed: true } })
    refresh('42', '1-0')
    refresh('43', '1-0')
    await reopen()
    slow.calls[0].reject(new Error('logged out there'))
    await settle()
    ready({ 43: { id: '43@1-0' } })
    refresh('43', '2-0')
    slow.calls[1].resolve()
    await clock.advance(20_000)
    assert.deepEqual(
      slow.refreshes().map(({ merchantId }) => merchantId),
      ['42', '43', '43'],
    )

    await reopen()
    assert.deepEqual(positionsInUrl(), ['43@2-0'])
    stop()
  })
})

test('nothing is left of two slots after the undo', async () => {
  const slow = handCallback()
  const stop = onRefresh(URL_OF_TWO, slow)
  ready({ 42: { owed: true }, 43: { pending: true } })
  refresh('42', '1-0')
  slow.calls[0].reject(new Error('offline'))
  await settle()
  stop()

  assert.equal(clock.timers.size, 0)
  await clock.advance(60_000)
  assert.equal(slow.calls.length, 1)
})

test('nothing begins after an undo that a call makes while merchants become known', async () => {
  const slow = handCallback()
  const stop = onRefresh('/events', refresh => {
    if (slow.calls.length > 0) stop()
    return slow(refresh)
  })
  await clock.advance(3_000)
  ready({ 42: { owed: true }, 43: { owed: true }, 44: { owed: true } })

  assert.deepEqual([slow.calls.length, clock.timers.size], [2, 0])
})

describe('tabs that share a stream of several merchants', () => {
  const OPTIONS = { firstCallMs: 3_000 }

  /** A leader and a tab that follows it, whose URL leaves the merchants to the service. */
  async function sharing(url = '/events') {
    const browser = new Browser()
    const tabs = [browser.open(), browser.open()]
    for (const tab of tabs) {
      tab.seen = []
      const call = async ({ merchantId, id, reason }) => {
        tab.seen.push([merchantId, id, reason])
        if (tab.fails) throw new Error('offline')
      }
      tab.listen(OPTIONS, url, call)
      await settle()
    }
    return { browser, tabs, stream: browser.streams[0] }
  }

  const tell = (stream, merchants) => {
    stream.accept()
    stream.event('ready', { merchants, grant: 'ann', heartbeat_s: 15, connection_id: 'c-1' })
  }
  const told = (stream, merchant, id, fields = {}) =>
    stream.event('refresh', { merchant_id: merchant, ...fields }, `${merchant}@${id}`)

  test('a tab that follows learns which merchants there are, and is called for each', async () => {
    const { tabs, stream } = await sharing()
    await clock.advance(3_000)
    tell(stream, { 42: { id: '42@1-0' }, 43: { owed: true } })
    told(stream, '43', '1-0', { reason: 'connected' })
    await settle()

    for (const { seen } of tabs) {
      assert.deepEqual(seen[0], [undefined, undefined, 'unconfirmed'])
      assert.deepEqual(seen.at(-1), ['43', '43@1-0', 'connected'])
    }
  })

  test('a merchant of which the stream is no more is not called by a tab that follows', async () => {
    const { tabs, stream } = await sharing()
    tell(stream, { 42: { owed: true }, 43: { owed: true } })
    told(stream, '42', '1-0')
    told(stream, '43', '1-0')
    await settle()
    tabs[1].seen.length = 0
    stream.drop()
    tell(stream, { 43: { id: '43@1-0' } })
    const late = tabs[1].browser.open()
    late.seen = []
    late.listen(OPTIONS, '/events', ({ merchantId, reason }) =>
      late.seen.push([merchantId, reason]),
    )
    await clock.advance(10_000)

    assert.deepEqual([tabs[1].seen, late.seen], [[], [['43', 'connected']]])
  })

  test('a new leader that knows no merchant yet takes none away', async () => {
    const { browser, tabs, stream } = await sharing()
    tell(stream, { 42: { owed: true }, 43: { owed: true } })
    told(stream, '42', '1-0')
    await settle()
    const fresh = browser.open()
    fresh.listen(OPTIONS, '/events', () => {})
    fresh.leave()
    tabs[1].fails = true
    told(stream, '42', '2-0')
    await settle()
    tabs[1].fails = false
    tabs[1].show(true) // the fresh one is to lead
    tabs[0].close()
    fresh.comeBack()
    await settle()
    assert.equal(fresh.streams.length, 1)
    await clock.advance(1_000)

    assert.deepEqual(tabs[1].seen.slice(-2), [
      ['42', '42@2-0', undefined],
      ['42', '42@2-0', undefined],
    ])
  })

  test('a refresh before any position reaches the tabs that follow', async () => {
    const { tabs, stream } = await sharing('/events?merchant_id=42&merchant_id=43')
    tell(stream, { 42: { id: null }, 43: { owed: true } })
    await settle()
    stream.event('refresh', { merchant_id: '43', reason: 'connected' })
    await settle()

    assert.deepEqual(tabs[1].seen, [['43', undefined, 'connected']])
  })
})

test('the undo may be called by the first of two calls', async () => {
  const seen = []
  const stop = onRefresh(URL_OF_TWO, ({ merchantId }) => {
    seen.push(merchantId)
    stop()
  })
  await clock.advance(10_000)

  assert.deepEqual([seen, clock.timers.size], [['42'], 0])
})
