/** A token that is requested, expires and is replaced. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import {
  BY_HAND,
  callback,
  calls,
  clock,
  countingToken,
  FakeEventSource,
  handToken,
  heads,
  last,
  lastHead,
  openOnes,
  reported,
  settle,
  sources,
  URL_42,
  urls,
  useFakes,
  visibility,
} from './fakes.js'

useFakes(BY_HAND)

/** Opens with the first token, receives `ready` with an ID, and lets time pass. */
async function listenFor(options, ms = 20_000) {
  onRefresh(URL_42, callback, options)
  await settle()
  last().ready({ id: '1-0' })
  await clock.advance(ms)
}

describe('a token', () => {
  test('a token is requested before the first opening, which waits for it', async () => {
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
    ['/events?token=a=b&token&merchant_id=42', '/events?token=n&merchant_id=42'],
    ['/events?my_token=3&tokens=4', '/events?my_token=3&tokens=4&token=n'],
    [`${URL_42}&last_event_id=5-0#top`, `${URL_42}&token=n&last_event_id=5-0`],
    [new URL('https://example.org/events?a=1'), 'https://example.org/events?a=1&token=n'],
  ]) {
    test(`the token goes into the URL ${given}`, async () => {
      onRefresh(given, callback, { token: async () => 'n' })
      await settle()

      assert.deepEqual(urls(), [opened])
    })
  }

  test('the token is escaped in the URL', async () => {
    onRefresh('/events', callback, { token: async () => 'a&b=ü+ ' })
    await settle()

    assert.deepEqual(urls(), ['/events?token=a%26b%3D%C3%BC%2B+'])
  })

  test('each opening requests a token, and has the last event ID as well', async () => {
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

  test('a reconnection by the browser requests no token', async () => {
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

describe('an expiring token', () => {
  test('an expiring token is replaced, and no refresh is lost or doubled meanwhile', async () => {
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

  test('an expiring token is replaced once, and the late answer to an older request is dropped', async () => {
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

  test('a stream may fall silent while its new token is awaited', async () => {
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

  test('a stream may be cut while its new token is awaited', async () => {
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

  test('a token serves to its end if the new one fails, and is requested again then', async () => {
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

  test('an expiring token right after ready is not replaced, as the next may be as old', async () => {
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

  test('the event expiring has no effect without the option token', async () => {
    await listenFor({})
    last().expiring()
    await settle()
    last().goodbye('token_expired')
    assert.equal(last().readyState, FakeEventSource.OPEN)
    last().giveUp()
    await settle()
    lastHead().answer(503)
    await clock.advance(500)

    assert.deepEqual(urls(), [URL_42, `${URL_42}&last_event_id=1-0`])
    assert.deepEqual(reported, [])
  })
})

describe('an expired token', () => {
  test('an expired token is replaced at once, and the browser does not reconnect with it', async () => {
    await listenFor({ token: countingToken() })
    last().goodbye('token_expired')
    assert.equal(last().readyState, FakeEventSource.CLOSED)

    await settle()
    assert.deepEqual(urls().slice(1), ['/events?merchant_id=42&token=t2&last_event_id=1-0'])
  })

  test('tokens that expire right after ready are replaced after growing waits', async () => {
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

  test('a token that expired while the browser was away is replaced at once', async () => {
    const states = []
    await listenFor({ token: countingToken(), onState: state => states.push(state) })
    last().drop()
    last().giveUp()
    assert.equal(sources.length, 1)
    assert.equal(heads.length, 1)
    assert.equal(heads[0].url, '/events?merchant_id=42&token=t1&last_event_id=1-0')

    heads[0].answer(401)
    await settle()
    assert.equal(last().url, '/events?merchant_id=42&token=t2&last_event_id=1-0')
    last().ready()
    assert.deepEqual(states, ['connecting', 'open', 'connecting', 'open'])
    assert.deepEqual(reported, [])
  })
})
