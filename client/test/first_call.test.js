/** The first load of a page, which does not wait for the event stream for long. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import {
  BY_HAND,
  callback,
  calls,
  clock,
  handCallback,
  handToken,
  last,
  lastHead,
  setHeadStatus,
  settle,
  sources,
  URL_42,
  useFakes,
} from './fakes.js'

useFakes()

const UNCONFIRMED = {
  merchantId: '42',
  id: undefined,
  topics: undefined,
  data: undefined,
  reason: 'unconfirmed',
}

describe('a page that has heard nothing', () => {
  for (const [name, meanwhile] of Object.entries({
    'is connecting': () => {},
    'cannot connect': () => last().giveUp(),
    'got an answer that says to come later': () => {
      last().accept()
      last().goodbye('not_ready')
      last().drop()
    },
    'is open, while the service knows no position': () => last().ready(),
  })) {
    test(`a page that ${name} is called after 3 s, and again by the first refresh`, async () => {
      onRefresh(URL_42, callback)
      meanwhile()
      await clock.advance(2_999)
      assert.deepEqual(calls, [])

      await clock.advance(1)
      assert.deepEqual(calls, [UNCONFIRMED])
      last().ready()
      last().refresh({ reason: 'connected' }, '5-0')
      await clock.advance(600_000)
      assert.equal(calls.length, 2)
      assert.deepEqual([calls[1].id, calls[1].reason], ['5-0', 'connected'])
    })
  }

  test('a page whose token is late is called', async () => {
    onRefresh(URL_42, callback, { token: handToken() })
    await clock.advance(3_000)

    assert.deepEqual(calls, [UNCONFIRMED])
    assert.equal(sources.length, 0)
  })

  test('a page is called once, however long the service is away', async () => {
    onRefresh(URL_42, callback)
    for (let i = 0; i < 60; i++) {
      last().giveUp()
      await clock.advance(10_000)
    }

    assert.deepEqual(calls, [UNCONFIRMED])
    assert.ok(sources.length > 20)
  })

  for (const [said, reason] of [
    [undefined, 'unconfirmed'],
    ['connected', 'connected'],
  ]) {
    test(`a first call that fails is repeated, and merged with a refresh as ${reason}`, async () => {
      const callback = handCallback()
      onRefresh(URL_42, callback)
      await clock.advance(3_000)
      last().ready()
      last().refresh({ topic: 'seats', reason: said })
      callback.calls[0].reject(new Error('offline'))
      await clock.advance(500)

      assert.equal(callback.calls.length, 2)
      assert.deepEqual(callback.refreshes()[1], { ...UNCONFIRMED, reason })
    })
  }
})

describe('a page that has heard something', () => {
  test('a page that was refreshed within 3 s is called for that alone', async () => {
    onRefresh(URL_42, callback)
    await clock.advance(2_999)
    last().ready()
    last().refresh({ reason: 'connected' })
    await clock.advance(600_000)

    assert.deepEqual(
      calls.map(({ reason }) => reason),
      ['connected'],
    )
  })

  test('a page that has missed nothing since it was rendered is not called', async () => {
    onRefresh('/events?merchant_id=42&last_event_id=5-0', callback)
    last().ready({ id: '5-0' })
    await clock.advance(600_000)

    assert.deepEqual(calls, [])
  })
})

describe('the option firstCallMs', () => {
  test('a page with 0 loads at once, in a task of its own', async () => {
    onRefresh(URL_42, callback, { firstCallMs: 0 })
    await settle()
    assert.deepEqual(calls, [])

    await clock.advance(1)
    assert.deepEqual(calls, [UNCONFIRMED])
  })

  for (const firstCallMs of [Infinity, 2 ** 31]) {
    test(`a page with ${firstCallMs} waits for the stream`, async () => {
      onRefresh(URL_42, callback, { firstCallMs })
      await clock.advance(600_000)

      assert.deepEqual(calls, [])
    })
  }

  test('the undo ends the wait for the first call', async () => {
    onRefresh(URL_42, callback)()
    assert.equal(clock.timers.size, 0)
    await clock.advance(10_000)

    assert.deepEqual(calls, [])
  })

  test('a page that is refused within 3 s is not called', async () => {
    setHeadStatus(401)
    onRefresh(URL_42, callback)
    last().giveUp()
    await clock.advance(500)
    last().giveUp()
    await clock.advance(600_000)

    assert.deepEqual(calls, [])
  })

  test('a first call that runs when the page is refused is not repeated', async () => {
    setHeadStatus(BY_HAND)
    const callback = handCallback()
    onRefresh(URL_42, callback, { token: async () => 'old' })
    await clock.advance(3_000)
    for (let i = 0; i < 2; i++) {
      last().giveUp()
      await settle()
      lastHead().answer(401)
      await settle()
    }
    callback.calls[0].reject(new Error('401'))
    await clock.advance(600_000)

    assert.equal(callback.calls.length, 1)
    assert.equal(clock.timers.size, 0)
  })
})
