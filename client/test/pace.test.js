/** When a call starts, and the ID that it has. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import { callback, calls, clock, handCallback, last, settle, URL_42, useFakes } from './fakes.js'

useFakes()

describe('the option minIntervalMs', () => {
  test('the first refresh is called for at once, and the others are one call at the end', async () => {
    onRefresh(URL_42, callback, { minIntervalMs: 2_000 })
    last().ready()
    last().refresh({ topic: 'seats' })
    assert.equal(calls.length, 1)

    for (const topic of ['orders', 'films']) {
      last().refresh({ topic })
      await clock.advance(500)
    }
    await clock.advance(999)
    assert.equal(calls.length, 1)

    await clock.advance(1)
    assert.deepEqual(calls[1].topics, ['orders', 'films'])
    await clock.advance(10_000)
    assert.equal(calls.length, 2)
    last().refresh()
    assert.equal(calls.length, 3, 'at once again')
  })

  test('changes without a pause are called for at the same pace', async () => {
    onRefresh(URL_42, callback, { minIntervalMs: 2_000 })
    last().ready()
    for (let ms = 0; ms < 10_000; ms += 100) {
      last().refresh()
      await clock.advance(100)
    }

    assert.equal(calls.length, 6)
  })

  test('a call that takes longer than the interval is followed by the next one at once', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback, { minIntervalMs: 2_000 })
    last().ready()
    last().refresh()
    last().refresh()
    await clock.advance(3_000)
    assert.equal(callback.calls.length, 1)

    callback.calls[0].resolve()
    await settle()
    assert.equal(callback.calls.length, 2)
  })

  for (const [minIntervalMs, waitBaseMs] of [
    [2_000, 1_000],
    [250, 4_000],
  ]) {
    test(`a repeated call keeps the longer one of ${minIntervalMs} and ${waitBaseMs / 2} ms`, async () => {
      const callback = handCallback()
      onRefresh(URL_42, callback, { minIntervalMs, waitBaseMs })
      last().ready()
      last().refresh()
      callback.calls[0].reject(new Error('offline'))
      await clock.advance(1_999)
      assert.equal(callback.calls.length, 1)

      await clock.advance(1)
      assert.equal(callback.calls.length, 2)
    })
  }

  test('a clock that was set back delays no call', async () => {
    onRefresh(URL_42, callback, { minIntervalMs: 2_000 })
    last().ready()
    last().refresh()
    last().refresh()
    clock.sleep(-3_600_000)
    await clock.advance(2_000)

    assert.equal(calls.length, 2)
  })

  test('the undo ends the wait for the next call', async () => {
    const stop = onRefresh(URL_42, callback, { minIntervalMs: 2_000 })
    last().ready()
    last().refresh()
    last().refresh()
    await settle()
    stop()

    assert.equal(clock.timers.size, 0)
    await clock.advance(10_000)
    assert.equal(calls.length, 1)
  })
})

test('calls that fail at once, without any wait, leave room for other tasks', async () => {
  let attempts = 0
  const stop = onRefresh(
    URL_42,
    async () => {
      if (++attempts === 100) stop()
      throw new Error('offline')
    },
    { waitBaseMs: 0 },
  )
  last().ready()
  last().refresh()
  await settle()
  assert.equal(attempts, 1)

  await clock.advance(100)
  assert.equal(attempts, 100)
})

describe('the ID of a call', () => {
  test('the ID is that of the latest refresh when the call starts', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({}, '5-0')
    last().refresh({}, '6-0')
    last().refresh({}, '7-0')
    callback.calls[0].resolve()
    await settle()

    assert.deepEqual(
      callback.refreshes().map(({ id }) => id),
      ['5-0', '7-0'],
    )
  })

  test('the ID of a repeated call is that of the latest refresh as well', async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({}, '5-0')
    last().refresh({}, '6-0')
    callback.calls[0].reject(new Error('offline'))
    await clock.advance(500)

    assert.equal(callback.refreshes()[1].id, '6-0')
  })

  test("the page's own change makes no call, but the next call has its ID", async () => {
    const callback = handCallback()
    onRefresh(URL_42, callback, { by: 'tab-7' })
    last().ready()
    last().refresh({}, '5-0')
    last().refresh({}, '6-0')
    last().refresh({ by: 'tab-7' }, '7-0')
    callback.calls[0].resolve()
    await settle()

    assert.equal(callback.refreshes()[1].id, '7-0')
    assert.equal(callback.calls.length, 2)
  })

  test('the latest ID counts, not the greatest: IDs fall when Redis has lost data', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({}, '9-0')
    await settle()
    last().drop()
    last().ready()
    last().refresh({ reason: 'resync' }, '3-0')
    await settle()

    assert.deepEqual(
      calls.map(({ id }) => id),
      ['9-0', '3-0'],
    )
  })
})
