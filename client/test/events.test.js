/** Which events of the wire make a call, and with what content. */

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
  URL_42,
  useFakes,
} from './fakes.js'

useFakes()

const NOTHING = {
  merchantId: '42',
  id: undefined,
  topics: undefined,
  data: undefined,
  reason: undefined,
}

describe('the event stream', () => {
  test('a whole connection is parsed from its bytes', async () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })

    last().accept()
    last().receive(
      'retry: 2345\nid: 1712-0\nevent: ready\n' +
        'data: {"merchant_id":"42","heartbeat_s":15,"connection_id":"c-1"}\n\n',
    )
    last().receive(
      'id: 1712-3\nevent: refresh\n' +
        'data: {"merchant_id":"42","topic":"seats","data":{"row":7},"by":"tab-7","reason":"missed"}\n\n',
    )
    last().receive('event: heartbeat\ndata: {}\n\n')
    last().receive('retry: 1834\nevent: goodbye\ndata: {"reason":"server_stopping"}\n\n')
    last().drop()
    await settle()

    assert.deepEqual(calls, [
      { merchantId: '42', id: '1712-3', topics: ['seats'], data: { row: 7 }, reason: 'missed' },
    ])
    assert.deepEqual(states, ['connecting', 'open', 'connecting'])
    assert.equal(sources.length, 1)
  })

  test('a refresh without fields makes a call without topics, data and reason', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh()
    await settle()

    assert.deepEqual(calls, [NOTHING])
  })

  test('events other than refresh make no call', async () => {
    onRefresh(URL_42, callback)
    last().ready({ id: '1-0' })
    last().heartbeat()
    last().event('message', {})
    last().goodbye()
    last().drop()
    last().ready({ id: '1-0' })
    await settle()

    assert.deepEqual(calls, [])
  })

  for (const reason of ['connected', 'missed', 'resync']) {
    test(`the reason ${reason} reaches the callback`, async () => {
      onRefresh(URL_42, callback)
      last().ready()
      last().refresh({ reason })
      await settle()

      assert.deepEqual(calls, [{ ...NOTHING, reason }])
    })
  }

  test('an unknown reason reaches the callback as undefined', async () => {
    onRefresh(URL_42, callback)
    last().ready()
    last().refresh({ topic: 'seats', reason: 'moved' })
    await settle()

    assert.deepEqual(calls, [{ ...NOTHING, topics: ['seats'] }])
  })

  for (const data of ['', '{"topic":"seats"', 'null', '42', '"seats"', '[]', '{"topic":7}']) {
    test(`a refresh whose data is ${data || 'empty'} makes a call without topics`, async () => {
      onRefresh(URL_42, callback)
      last().ready()
      last().receive(`event: refresh\ndata: ${data}\n\n`)
      await settle()

      assert.deepEqual(calls, [NOTHING])
    })
  }

  for (const data of ['', 'null', '{}', '{"heartbeat_s":0}', '{"heartbeat_s":"soon"}']) {
    test(`a ready whose data is ${data || 'empty'} leaves the heartbeat at 15 s`, async () => {
      onRefresh(URL_42, callback)
      last().accept()
      last().receive(`event: ready\ndata: ${data}\n\n`)

      await clock.advance(44_999)
      assert.equal(last().readyState, FakeEventSource.OPEN)
      await clock.advance(1)
      assert.equal(last().readyState, FakeEventSource.CLOSED)
    })
  }
})
