/** A page that nobody sees: hidden, left, or made before it is shown. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import {
  callback,
  calls,
  clock,
  countingToken,
  FakeEventSource,
  handCallback,
  last,
  openOnes,
  page,
  set,
  settle,
  sources,
  tab,
  URL_42,
  useFakes,
  visibility,
} from './fakes.js'

useFakes()

const RESUMED = `${URL_42}&last_event_id=1-0`
const nothingIsLeft = () =>
  assert.equal(clock.timers.size + page.listeners + tab.listeners + openOnes().length, 0)

/** A page that has been loaded, and is hidden then. */
async function hide(options = {}, loaded = callback) {
  const stop = onRefresh(URL_42, loaded, { whileHidden: 'defer', ...options })
  await settle()
  last().ready({ id: '1-0' })
  visibility('hidden')
  return stop
}

/** Lets time pass on a stream that works. */
async function beat(ms) {
  for (let leftMs = ms; leftMs > 0; leftMs -= 15_000) {
    last().heartbeat()
    await clock.advance(Math.min(leftMs, 15_000))
  }
}

describe('a hidden page', () => {
  test('a hidden page is called like any other by default', async () => {
    await hide({ whileHidden: undefined })
    last().refresh()
    await beat(3_600_000)

    assert.equal(calls.length, 1)
    assert.equal(last().readyState, FakeEventSource.OPEN)
  })

  test('a page that defers is called once when it is shown, for all that has arrived', async () => {
    await hide()
    last().refresh({ topic: 'seats' }, '2-0')
    last().refresh({ topic: 'orders' }, '3-0')
    await beat(60_000)
    assert.deepEqual(calls, [])

    visibility('visible')
    assert.deepEqual(calls, [
      {
        merchantId: '42',
        id: '3-0',
        topics: ['seats', 'orders'],
        data: undefined,
        reason: undefined,
      },
    ])
    await beat(60_000)
    last().refresh()
    assert.equal(calls.length, 2, 'at once again')
  })

  test('the first load is made although the page is hidden, and repeated until it succeeds', async () => {
    visibility('hidden')
    const callback = handCallback()
    onRefresh(URL_42, callback, { whileHidden: 'defer' })
    last().ready()
    last().refresh({ reason: 'connected' })
    callback.calls[0].reject(new Error('offline'))
    await clock.advance(500)
    assert.equal(callback.calls.length, 2)

    last().refresh()
    callback.calls[1].resolve()
    await beat(60_000)
    assert.equal(callback.calls.length, 2, 'the next one is deferred')
    visibility('visible')
    assert.equal(callback.calls.length, 3)
  })

  test('a page without a stream is loaded although it is hidden', async () => {
    visibility('hidden')
    onRefresh(URL_42, callback, { whileHidden: 'defer' })
    last().giveUp()
    await clock.advance(3_000)

    assert.equal(calls.length, 1)
  })

  test('a call that fails while the page is hidden is repeated when it is shown', async () => {
    const callback = handCallback()
    await hide({}, callback)
    visibility('visible')
    last().refresh()
    visibility('hidden')
    callback.calls[0].reject(new Error('offline'))
    await beat(60_000)
    assert.equal(callback.calls.length, 1)

    visibility('visible')
    assert.equal(callback.calls.length, 2)
  })

  test('a page that is shown keeps its pace', async () => {
    await hide({ minIntervalMs: 10_000 })
    visibility('visible')
    last().refresh()
    visibility('hidden')
    last().refresh()
    await clock.advance(5_000)
    visibility('visible')
    assert.equal(calls.length, 1)

    await clock.advance(5_000)
    assert.equal(calls.length, 2)
  })

  test('a page with a window on top counts as visible, from the next event on', async () => {
    await hide()
    last().refresh()
    set('documentPictureInPicture', { window: null })
    last().heartbeat()
    assert.deepEqual(calls, [])

    set('documentPictureInPicture', { window: {} })
    last().heartbeat()
    delete globalThis.documentPictureInPicture
    assert.equal(calls.length, 1)
  })

  test('a worker counts as visible', async () => {
    set('document', undefined)
    onRefresh(URL_42, callback, { whileHidden: 'defer' })
    last().ready({ id: '1-0' })
    last().refresh()

    assert.equal(calls.length, 1)
  })
})

describe('the stream of a hidden page', () => {
  test('the stream is closed after 5 min, and opened anew when the page is shown', async () => {
    const states = []
    await hide({ onState: state => states.push(state) })
    await beat(299_999)
    assert.equal(last().readyState, FakeEventSource.OPEN)

    await clock.advance(1)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
    assert.equal(clock.timers.size, 0)
    tab.fire('online')
    tab.fire('pageshow', { persisted: false })
    assert.equal(sources.length, 1)
    assert.deepEqual(states, ['connecting', 'open', 'connecting'])

    visibility('visible')
    assert.equal(sources.length, 2)
    assert.equal(last().url, RESUMED)
    last().ready()
    last().refresh({ reason: 'missed' })
    assert.equal(calls.length, 1)
  })

  test('what a hidden page had heard is not lost with its stream', async () => {
    await hide()
    last().refresh({ topic: 'seats' }, '2-0')
    await beat(300_000)
    visibility('visible')

    assert.deepEqual(calls[0].topics, ['seats'])
    assert.equal(last().url, `${URL_42}&last_event_id=2-0`)
  })

  test('the time begins anew when the page has been shown', async () => {
    await hide()
    await beat(299_000)
    visibility('visible')
    visibility('hidden')
    await beat(299_000)
    assert.equal(last().readyState, FakeEventSource.OPEN)

    await beat(1_000)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  for (const [options, name] of [
    [{ whileHidden: 'call' }, 'is called'],
    [{ hiddenCloseMs: Infinity }, 'has hiddenCloseMs: Infinity'],
  ]) {
    test(`the stream of a page that ${name} stays open`, async () => {
      await hide(options)
      await beat(3_600_000)

      assert.equal(sources.length, 1)
      assert.equal(last().readyState, FakeEventSource.OPEN)
    })
  }

  test('the stream of a page that was not loaded stays, and the time begins with the load', async () => {
    visibility('hidden')
    const callback = handCallback()
    onRefresh(URL_42, callback, { whileHidden: 'defer' })
    last().ready()
    last().refresh({ reason: 'connected' })
    await beat(600_000)
    assert.equal(last().readyState, FakeEventSource.OPEN)

    callback.calls[0].resolve()
    await settle()
    await beat(300_000)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('the stream of a page stays when a window is on top at the last moment', async () => {
    await hide()
    await beat(299_000)
    set('documentPictureInPicture', { window: {} })
    await clock.advance(1_000)
    delete globalThis.documentPictureInPicture
    assert.equal(last().readyState, FakeEventSource.OPEN)

    await beat(300_001)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  })

  test('a hidden page neither reconnects nor requests a token once its time is over', async () => {
    const token = countingToken()
    await hide({ token })
    last().giveUp()
    await clock.advance(600_000)
    const { asked } = token
    await clock.advance(3_600_000)
    assert.equal(token.asked, asked)
    assert.equal(openOnes().length, 0)

    visibility('visible')
    await settle()
    assert.equal(token.asked, asked + 1)
    assert.equal(openOnes().length, 1)
  })

  test('the undo of a hidden page leaves nothing', async () => {
    for (const ms of [1_000, 300_000]) {
      const stop = await hide()
      await beat(ms)
      stop()
      nothingIsLeft()
      visibility('visible')
    }
  })

  test('the undo may be called by the call that showing the page starts', async () => {
    for (const sleepMs of [0, 60_000]) {
      let stop
      stop = await hide({}, () => stop())
      last().refresh()
      clock.sleep(sleepMs)
      visibility('visible')

      nothingIsLeft()
    }
  })

  test('the undo may be called by the call that an event starts', async () => {
    for (const end of [source => source.goodbye('token_expired'), source => source.expiring()]) {
      let stop
      stop = await hide({ token: async () => 't' }, () => stop())
      await beat(15_000)
      last().refresh()
      set('documentPictureInPicture', { window: {} })
      end(last())
      delete globalThis.documentPictureInPicture
      await settle()

      nothingIsLeft()
    }
  })
})

describe('the back/forward cache', () => {
  test('a page that is left has no stream, and a page that is shown again opens at once', async () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })
    last().ready({ id: '1-0' })
    tab.fire('pagehide', { persisted: true })
    assert.equal(last().readyState, FakeEventSource.CLOSED)
    assert.equal(clock.timers.size, 0)
    visibility('hidden')
    await clock.advance(600_000)
    assert.equal(sources.length, 1)

    page.hidden = false
    tab.fire('pageshow', { persisted: true })
    assert.equal(last().url, RESUMED)
    visibility('visible')
    assert.equal(sources.length, 2)
    last().ready()
    assert.deepEqual(states, ['connecting', 'open', 'connecting', 'open'])
  })

  test('a page that comes back hidden and defers opens when it is shown', async () => {
    await hide()
    tab.fire('pagehide', { persisted: true })
    tab.fire('pageshow', { persisted: true })
    assert.equal(sources.length, 1)

    visibility('visible')
    assert.equal(sources.length, 2)
  })

  test('a token is requested again by a page that is shown again', async () => {
    const token = countingToken()
    onRefresh(URL_42, callback, { token })
    tab.fire('pagehide', { persisted: true })
    await clock.advance(60_000)
    assert.equal(sources.length, 0)

    tab.fire('pageshow', { persisted: true })
    await settle()
    assert.equal(token.asked, 2)
    assert.equal(last().url, `${URL_42}&token=t2`)
  })

  test('the undo of a page that is left leaves nothing', () => {
    const stop = onRefresh(URL_42, callback)
    tab.fire('pagehide', { persisted: true })
    stop()

    nothingIsLeft()
  })
})

describe('a prerendered page', () => {
  for (const whileHidden of ['call', 'defer']) {
    test(`a prerendered page does nothing before it is shown: ${whileHidden}`, async () => {
      const token = countingToken()
      const states = []
      page.prerendering = true
      page.hidden = true
      onRefresh(URL_42, callback, { token, whileHidden, onState: state => states.push(state) })
      tab.fire('pageshow', { persisted: false })
      tab.fire('online')
      await clock.advance(600_000)
      assert.equal(token.asked + sources.length + calls.length, 0)
      assert.deepEqual(states, ['connecting'])

      page.prerendering = false
      page.fire('prerenderingchange')
      visibility('visible')
      await settle()
      assert.equal(token.asked, 1)
      assert.equal(sources.length, 1)
      await clock.advance(2_999)
      assert.deepEqual(calls, [])
      await clock.advance(1)
      assert.equal(calls.length, 1)
    })
  }

  test('the undo of a prerendered page leaves nothing', () => {
    page.prerendering = true
    onRefresh(URL_42, callback)()

    nothingIsLeft()
  })
})
