/** One call at a time: merging, repetition after a failure, and the page's own changes. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import {
  callback,
  calls,
  clock,
  handCallback,
  last,
  reported,
  set,
  setRandom,
  settle,
  URL_42,
  useFakes,
} from './fakes.js'

useFakes()

describe('one call at a time', () => {
  test('refreshes during a call become exactly one more call after it', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats' })
    for (const topic of ['orders', 'films', 'orders']) last().refresh({ topic })
    await settle()
    assert.equal(callback.calls.length, 1)

    callback.calls[0].resolve()
    await settle()
    assert.deepEqual(callback.refreshes()[1], {
      merchantId: '42',
      id: undefined,
      topics: ['orders', 'films'],
      data: undefined,
      reason: undefined,
    })

    callback.calls[1].resolve()
    await settle()
    assert.equal(callback.calls.length, 2)
  })

  test('a refresh without topic makes the merged call one without topics', async () => {
    for (const order of [
      [{}, { topic: 'seats' }],
      [{ topic: 'seats' }, {}],
    ]) {
      const callback = handCallback()
      onRefresh(URL_42, callback)
      last().ready()
      for (const said of [{}, ...order]) last().refresh(said)
      callback.calls[0].resolve()
      await settle()

      assert.equal(callback.refreshes()[1].topics, undefined)
    }
  })

  test('data is passed on if exactly one refresh stands behind the call', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats', data: 1 })
    last().refresh({ topic: 'seats', data: 2 })
    callback.calls[0].resolve()
    await settle()
    last().refresh({ topic: 'seats', data: 3 })
    last().refresh({ topic: 'seats', data: 3 })
    callback.calls[1].resolve()
    await settle()

    assert.deepEqual(
      callback.refreshes().map(({ data }) => data),
      [1, 2, undefined],
    )
  })

  for (const [reasons, strongest] of [
    [['connected', 'resync', 'missed'], 'resync'],
    [['missed', undefined, 'connected'], 'missed'],
    [[undefined, 'connected'], 'connected'],
    [['connected', undefined], 'connected'],
    [[undefined, undefined], undefined],
  ]) {
    test(`of the reasons ${reasons.join(', ')} the merged call has ${strongest}`, async () => {
      const callback = handCallback()
      onRefresh(URL_42, callback)
      last().ready()
      last().refresh()
      for (const reason of reasons) last().refresh({ reason })
      callback.calls[0].resolve()
      await settle()

      assert.equal(callback.refreshes()[1].reason, strongest)
    })
  }

  test('a callback that returns nothing is called for each refresh', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats' })
    await settle()
    last().refresh({ topic: 'orders' })
    await settle()

    assert.deepEqual(
      calls.map(({ topics }) => topics),
      [['seats'], ['orders']],
    )
  })

  test('a call outlives the connection that caused it', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats' })
    last().giveUp()
    await clock.advance(500)
    last().ready()
    last().refresh({ topic: 'orders' })
    await settle()
    assert.equal(callback.calls.length, 1)

    callback.calls[0].resolve()
    await settle()
    assert.deepEqual(callback.refreshes()[1].topics, ['orders'])
  })
})

describe('a failed call', () => {
  test('a failed call is repeated after a wait, with the same content', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats', data: 1, reason: 'missed' }, '5-0')
    callback.calls[0].reject(new Error('offline'))
    await clock.advance(499)
    assert.equal(callback.calls.length, 1)

    await clock.advance(1)
    assert.deepEqual(callback.refreshes()[1], {
      merchantId: '42',
      id: '5-0',
      topics: ['seats'],
      data: 1,
      reason: 'missed',
    })

    callback.calls[1].resolve()
    await clock.advance(10_000)
    assert.equal(callback.calls.length, 2)
  })

  test('a call is repeated if the callback throws', async () => {
    let attempts = 0
    onRefresh(URL_42, () => {
      if (++attempts === 1) throw new Error('not rendered')
    })
    last().ready()
    last().refresh()
    await clock.advance(1_000)

    assert.equal(attempts, 2)
  })

  test('a failed call is merged with the refreshes that arrive during the call and the wait', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats', data: 1 })
    last().refresh({ topic: 'orders', reason: 'resync' })
    callback.calls[0].reject(new Error('offline'))
    await clock.advance(250)
    last().refresh({ topic: 'films', reason: 'missed' })
    last().refresh({ topic: 'seats' })
    await clock.advance(249)
    assert.equal(callback.calls.length, 1)

    await clock.advance(1)
    assert.deepEqual(callback.refreshes()[1], {
      merchantId: '42',
      id: undefined,
      topics: ['seats', 'orders', 'films'],
      data: undefined,
      reason: 'resync',
    })
  })

  test('the waits between repeated calls double up to a cap, and start over after a success', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    const fails = async () => {
      const before = callback.calls.length
      callback.calls[before - 1].reject(new Error('offline'))
      for (let ms = 500; ms <= 60_000; ms += 500) {
        last().heartbeat()
        await clock.advance(500)
        if (callback.calls.length > before) return ms
      }
    }

    const waits = []
    for (let i = 0; i < 7; i++) waits.push(await fails())
    assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000])

    callback.calls[callback.calls.length - 1].resolve()
    await settle()
    last().refresh()
    assert.equal(await fails(), 500)
    assert.equal(await fails(), 1_000)

    last().refresh()
    callback.calls[callback.calls.length - 1].resolve()
    await settle()
    assert.equal(await fails(), 500, 'also if the next call was already waiting')
  })

  test('the waits between calls have full jitter, within the limits of the options', async () => {
    for (const [say, ms] of [
      [0, 1],
      [0.25, 50],
      [0.999, 200],
    ]) {
      setRandom(say)
      const callback = handCallback()
      onRefresh(URL_42, callback, { waitBaseMs: 200, waitCapMs: 200 })
      last().ready()
      last().refresh()
      callback.calls[0].reject(new Error('offline'))
      await clock.advance(ms - 1)
      assert.equal(callback.calls.length, 1)
      await clock.advance(1)
      assert.equal(callback.calls.length, 2)
    }
  })

  test('the error of a failed call is reported', async () => {
    const error = new Error('offline')
    onRefresh(URL_42, async () => {
      throw error
    })
    last().ready()
    last().refresh()
    await settle()

    assert.deepEqual(reported, [error])
  })

  test('the error of a failed call goes to the console where reportError is missing', async t => {
    const printed = []
    t.mock.method(console, 'error', error => printed.push(error))
    set('reportError', undefined)
    const error = new Error('offline')
    onRefresh(URL_42, async () => {
      throw error
    })
    last().ready()
    last().refresh()
    await settle()

    assert.deepEqual(printed, [error])
  })
})

describe("the page's own refreshes", () => {
  test("refreshes of the page's own changes make no call, and those of others do", async () => {
    onRefresh(URL_42, callback, { by: 'tab-7' })
    last().ready()
    last().refresh({ topic: 'seats', by: 'tab-7' })
    last().refresh({ topic: 'orders', by: 'tab-8' })
    await settle()
    last().refresh({ topic: 'films' })
    await settle()

    assert.deepEqual(
      calls.map(({ topics }) => topics),
      [['orders'], ['films']],
    )
  })

  for (const reason of ['connected', 'missed', 'resync', 'moved']) {
    test(`a refresh of the page's own change with the reason ${reason} makes a call`, async () => {
      onRefresh(URL_42, callback, { by: 'tab-7' })
      last().ready()
      last().refresh({ by: 'tab-7', reason })
      await settle()

      assert.equal(calls.length, 1)
    })
  }

  test('without the option by, all refreshes make a call', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats' })
    await settle()
    last().refresh({ topic: 'seats', by: 'tab-7' })
    await settle()

    assert.equal(calls.length, 2)
  })

  test("a refresh of the page's own change moves the last event ID", async () => {
    onRefresh(URL_42, callback, { by: 'tab-7' })
    last().ready({ id: '1-0' })
    last().refresh({ by: 'tab-7' }, '2-0.9f86d081')
    last().giveUp()
    await clock.advance(1_000)

    assert.equal(last().url, '/events?merchant_id=42&last_event_id=2-0.9f86d081')
  })

  test("a refresh of the page's own change is not merged into the next call", async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback, { by: 'tab-7' })
    last().ready()
    last().refresh({ data: 1 })
    last().refresh({ data: 2, by: 'tab-8' })
    last().refresh({ data: 3, by: 'tab-7' })
    callback.calls[0].resolve()
    await settle()

    assert.equal(callback.refreshes()[1].data, 2)
  })
})
