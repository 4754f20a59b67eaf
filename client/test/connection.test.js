/** Opening an EventSource, and reconnecting where the browser does not. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import {
  callback,
  calls,
  clock,
  FakeEventSource,
  last,
  listening,
  page,
  set,
  setRandom,
  settle,
  sources,
  tab,
  URL_42,
  useFakes,
} from './fakes.js'

useFakes()

describe('the first opening', () => {
  test('the first URL is the one that the page gives', () => {
    onRefresh('events', callback)
    onRefresh(new URL('https://example.org/events?merchant_id=42'), callback)
    onRefresh('/events?merchant_id=42&last_event_id=5-0#top', callback)

    assert.deepEqual(
      sources.map(({ url }) => url),
      [
        'events?',
        'https://example.org/events?merchant_id=42',
        '/events?merchant_id=42&last_event_id=5-0',
      ],
    )
  })

  test('cookies go to other origins only with the option withCredentials', () => {
    onRefresh(URL_42, callback)
    onRefresh(URL_42, callback, { withCredentials: true })

    assert.deepEqual(
      sources.map(({ withCredentials }) => withCredentials),
      [false, true],
    )
  })

  test('the option EventSource replaces the global class', () => {
    class Other extends FakeEventSource {}
    onRefresh(URL_42, callback, { EventSource: Other })

    assert.ok(last() instanceof Other)
  })

  test('an error of the constructor is thrown, and no timer or listener is left', () => {
    class Refusing {
      constructor() {
        throw new SyntaxError('not a URL')
      }
    }

    assert.throws(() => onRefresh('http://[', callback, { EventSource: Refusing }), SyntaxError)
    assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)
  })

  test('a runtime without document and window is supported', async () => {
    set('document', undefined)
    for (const name of listening) set(name, undefined)
    const stop = onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    await settle()
    stop()

    assert.equal(calls.length, 1)
  })

  test('a worker without a document still follows the online event', async () => {
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

describe('a reconnection', () => {
  test('the browser reconnects by itself while it tries', async () => {
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

  test('a new EventSource is opened after a wait once the browser has given up', async () => {
    onRefresh(URL_42, callback)
    last().giveUp()
    await clock.advance(499)
    assert.equal(sources.length, 1)

    await clock.advance(1)
    assert.equal(sources.length, 2)
    assert.equal(last().readyState, FakeEventSource.CONNECTING)
  })

  test('the waits between openings double up to a cap, and start over after ready', async () => {
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

  test('the waits between openings have full jitter, within the limits of the options', async () => {
    for (const [say, ms] of [
      [0, 1],
      [0.25, 50],
      [0.999, 200],
    ]) {
      setRandom(say)
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

  test('a reconnection makes no call by itself', async () => {
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
    ['?a=1&b=%20+~&c', '?a=1&b=++%7E&c=&last_event_id=7-1'],
    ['/events?last_event_id=5-0&token=a=b?c', '/events?token=a%3Db%3Fc&last_event_id=7-1'],
    ['/events?merchant_id=42&last_event_id', '/events?merchant_id=42&last_event_id=7-1'],
    ['/events?my_last_event_id=3', '/events?my_last_event_id=3&last_event_id=7-1'],
    ['/events?merchant_id=42#a?b', '/events?merchant_id=42&last_event_id=7-1'],
    [new URL('https://example.org/events?a=1'), 'https://example.org/events?a=1&last_event_id=7-1'],
  ]) {
    test(`a reconnection of ${url} asks for ${resumed}`, async () => {
      onRefresh(url, callback)
      last().ready()
      last().refresh({}, '7-1')
      last().giveUp()
      await clock.advance(1_000)

      assert.equal(last().url, resumed)
    })
  }

  test('a reconnection without a last event ID asks for the position that the page gave', async () => {
    onRefresh('/events?merchant_id=42&last_event_id=5-0', callback)
    last().ready()
    last().giveUp()
    await clock.advance(1_000)

    assert.equal(last().url, '/events?merchant_id=42&last_event_id=5-0')
  })

  test('the last event ID is escaped in the URL', async () => {
    onRefresh('/events', callback)
    last().ready({ id: 'a&b=ü' })
    last().giveUp()
    await clock.advance(1_000)

    assert.equal(last().url, '/events?last_event_id=a%26b%3D%C3%BC')
  })

  test('the URL has the newest ID, which events without an ID and further openings leave as it is', async () => {
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
