/** A stream that falls silent, and a page that wakes up. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import {
  callback,
  calls,
  clock,
  FakeEventSource,
  last,
  settle,
  sources,
  tab,
  URL_42,
  useFakes,
  visibility,
} from './fakes.js'

useFakes()

describe('a silent stream', () => {
  test('a stream is closed after three silent heartbeats and opened anew after a wait', async () => {
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

  test('the limit of silence follows the heartbeat that ready announces', async () => {
    onRefresh(URL_42, callback)
    last().ready({ heartbeat_s: 2 })
    await clock.advance(5_999)
    assert.equal(last().readyState, FakeEventSource.OPEN)

    await clock.advance(1)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  for (const [sign, make] of Object.entries({
    'a ready': source => source.ready(),
    'a refresh': source => source.refresh(),
    "a refresh of the page's own change": source => source.refresh({ by: 'tab-7' }),
    'a heartbeat': source => source.heartbeat(),
    'a goodbye': source => source.goodbye(),
  })) {
    test(`${sign} resets the silence`, async () => {
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

  test('headers without events count as silence', async () => {
    onRefresh(URL_42, callback)
    await clock.advance(40_000)
    last().accept()
    await clock.advance(44_999)
    assert.equal(last().readyState, FakeEventSource.OPEN)

    await clock.advance(1)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('an opening whose headers never arrive is given up after 45 s', async () => {
    onRefresh(URL_42, callback)
    await clock.advance(44_999)
    assert.equal(last().readyState, FakeEventSource.CONNECTING)

    await clock.advance(501)
    assert.equal(sources[0].readyState, FakeEventSource.CLOSED)
    assert.equal(sources.length, 2)
  })

  test('an opening has 45 s, however short the heartbeat was', async () => {
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

  test('the waits after silent openings grow', async () => {
    onRefresh(URL_42, callback)
    await clock.advance(45_000 + 500 + 45_000 + 1_000 + 45_000 + 1_999)
    assert.equal(sources.length, 3)

    await clock.advance(1)
    assert.equal(sources.length, 4)
  })

  test('a browser that was asked to wait for 30 s is not disturbed', async () => {
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

  test('a browser that has not reconnected after 60 s is replaced', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().goodbye()
    last().drop()
    await clock.advance(59_999)
    assert.equal(last().readyState, FakeEventSource.CONNECTING)

    await clock.advance(1)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('the limit of silence is three heartbeats again once the browser has reconnected', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().drop()
    await clock.advance(2_000)
    last().ready()
    await clock.advance(45_000)

    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('silence is noticed soon after a sleep without a wake-up event', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    clock.sleep(3_600_000)
    await clock.advance(15_000)

    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('a clock that was set back counts as silence', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    clock.sleep(-3_600_000)
    await clock.advance(15_000)

    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('a heartbeat too long for a timer is split into shorter timers', async () => {
    onRefresh(URL_42, callback)
    last().ready({ heartbeat_s: 1e7 })

    assert.ok(clock.longest < 2 ** 31)
  })

  test('events of a replaced EventSource are ignored', async () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })
    last().ready({ id: '1-0' })
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
    assert.equal(last().url, `${URL_42}&last_event_id=1-0`)
  })
})

describe('a wake-up', () => {
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

  test('several wake-up events open one EventSource', () => {
    onRefresh(URL_42, callback)
    last().ready()
    clock.sleep(3_600_000)
    for (const wakes of Object.values(wakings)) wakes()

    assert.equal(sources.length, 2)
  })

  test('the limit at a wake-up follows the heartbeat that ready announces', () => {
    onRefresh(URL_42, callback)
    last().ready({ heartbeat_s: 60 })
    clock.sleep(90_000)
    visibility('visible')
    assert.equal(sources.length, 1)

    clock.sleep(1)
    visibility('visible')
    assert.equal(sources.length, 2)
  })

  test('a page that is being hidden opens nothing', () => {
    onRefresh(URL_42, callback)
    last().ready()
    clock.sleep(30_000)
    visibility('hidden')

    assert.equal(sources.length, 1)
  })

  test('a wake-up leaves a reconnecting browser alone for 30 s', async () => {
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

  test('a wake-up ends a wait whose timer stood still', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().giveUp()
    await settle()
    clock.sleep(30_001)
    visibility('visible')
    assert.equal(sources.length, 2)

    last().ready()
    await clock.advance(40_000)
    assert.equal(sources.length, 2, 'the wait is over for good')
  })
})
