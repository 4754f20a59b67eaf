/** The states that onState reports, and the undo. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import {
  callback,
  calls,
  clock,
  FakeEventSource,
  handCallback,
  last,
  page,
  reported,
  settle,
  sources,
  tab,
  URL_42,
  useFakes,
  visibility,
} from './fakes.js'

useFakes()

describe('the state', () => {
  test('the state is reported at each change, and only then', async () => {
    const states = []
    const stop = onRefresh(URL_42, callback, { onState: state => states.push(state) })
    assert.deepEqual(states, ['connecting'])

    last().accept()
    assert.deepEqual(states, ['connecting'], 'headers alone promise nothing')

    last().ready()
    last().ready()
    last().heartbeat()
    last().refresh()
    assert.deepEqual(states, ['connecting', 'open'])

    last().drop()
    last().drop()
    last().giveUp()
    await clock.advance(1_000)
    last().ready()
    stop()
    stop()
    assert.deepEqual(states, ['connecting', 'open', 'connecting', 'open', 'closed'])
  })

  test('the state is connecting after silence', async () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })
    last().ready()
    await clock.advance(45_000)
    assert.deepEqual(states, ['connecting', 'open', 'connecting'])
  })

  test('the state is connecting after a wake-up', async () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })
    last().ready()
    clock.sleep(60_000)
    visibility('visible')
    assert.deepEqual(states, ['connecting', 'open', 'connecting'])
  })

  test('a goodbye in the place of a ready leaves the state connecting', () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })
    last().accept()
    last().goodbye()
    last().drop()

    assert.deepEqual(states, ['connecting'])
  })

  for (const [name, fail] of Object.entries({
    throws: error => {
      throw error
    },
    rejects: async error => {
      throw error
    },
  })) {
    test(`an onState that ${name} is reported and has no other effect`, async () => {
      const error = new Error('no such element')
      const stop = onRefresh(URL_42, callback, { onState: () => fail(error) })
      last().ready()
      last().refresh()
      last().giveUp()
      await clock.advance(1_000)
      stop()
      await settle()

      assert.equal(calls.length, 1)
      assert.equal(sources.length, 2)
      assert.deepEqual(reported, [error, error, error, error])
    })
  }

  test('the undo may be called by onState', async () => {
    for (const end of [source => source.giveUp(), source => source.drop()]) {
      let stop
      stop = onRefresh(URL_42, callback, {
        onState: state => {
          if (state === 'connecting') stop?.()
        },
      })
      last().ready()
      end(last())
      await settle()

      assert.equal(clock.timers.size, 0)
      assert.equal(last().readyState, FakeEventSource.CLOSED)
    }
  })
})

describe('the undo', () => {
  const nothingIsLeft = async () => {
    assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)
    const before = sources.length
    await clock.advance(120_000)
    assert.equal(sources.length, before)
    assert.equal(last().readyState, FakeEventSource.CLOSED)
  }

  test('the undo leaves no connection, no timer and no listener', async () => {
    const stop = onRefresh(URL_42, callback)
    last().ready()
    assert.equal(page.listeners + tab.listeners, 5)

    stop()
    await nothingIsLeft()
  })

  test('the undo may be called twice', async () => {
    const stop = onRefresh(URL_42, callback)
    last().ready()
    stop()
    stop()

    assert.equal(last().readyState, FakeEventSource.CLOSED)
    assert.deepEqual(reported, [])
  })

  test('the undo ends the wait before the next opening', async () => {
    const stop = onRefresh(URL_42, callback)
    last().giveUp()
    await settle()
    stop()

    await nothingIsLeft()
  })

  test('the undo ends the wait before the next call', async () => {
    const callback = handCallback()
    const stop = onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    callback.calls[0].reject(new Error('offline'))
    await settle()
    stop()

    await nothingIsLeft()
    assert.equal(callback.calls.length, 1)
  })

  test('the undo drops the refreshes that wait for a running call', async () => {
    const callback = handCallback()
    const stop = onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    last().refresh()
    stop()
    callback.calls[0].resolve()

    await nothingIsLeft()
    assert.equal(callback.calls.length, 1)
  })

  test('the failure of a running call is ignored after the undo', async () => {
    const callback = handCallback()
    const stop = onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    stop()
    callback.calls[0].reject(new Error('aborted'))

    await nothingIsLeft()
    assert.equal(callback.calls.length, 1)
    assert.deepEqual(reported, [])
  })

  test('the undo may be called by the callback', async () => {
    const stop = onRefresh(URL_42, refresh => {
      calls.push(refresh)
      stop()
    })
    last().ready()
    last().refresh()
    last().refresh()

    await nothingIsLeft()
    assert.equal(calls.length, 1)
  })

  test('events after close() are ignored after the undo', async () => {
    const stop = onRefresh(URL_42, callback)
    last().ready()
    stop()
    for (const type of ['refresh', 'ready', 'error']) {
      last().dispatchEvent(new MessageEvent(type, { data: '{}' }))
    }

    await nothingIsLeft()
    assert.deepEqual(calls, [])
  })
})
