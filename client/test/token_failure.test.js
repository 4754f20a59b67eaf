/** A token that is refused or does not arrive, and the HEAD request that shows its status. */

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
  handCallback,
  handToken,
  heads,
  last,
  lastHead,
  page,
  reported,
  set,
  settle,
  sources,
  tab,
  URL_42,
  urls,
  useFakes,
  visibility,
} from './fakes.js'

useFakes(BY_HAND)

/** The service refuses the EventSource that was opened last. */
async function refuse(status = 401) {
  last().giveUp()
  await settle()
  lastHead().answer(status)
  await settle()
}

describe('a refused token', () => {
  for (const status of [401, 403]) {
    test(`a token refused with ${status} is replaced at once, and the second refusal is final`, async () => {
      const token = countingToken()
      const states = []
      onRefresh(URL_42, callback, { token, onState: state => states.push(state) })
      await settle()
      await refuse(status)
      assert.deepEqual(urls(), [`${URL_42}&token=t1`, `${URL_42}&token=t2`])
      assert.deepEqual(states, ['connecting'])

      await refuse(status)
      assert.deepEqual(states, ['connecting', 'refused'])
      assert.deepEqual(reported.map(String), [`Error: event stream refused: ${status}`])
      assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)

      visibility('visible')
      tab.fire('online')
      tab.fire('pageshow', { persisted: true })
      await clock.advance(600_000)
      visibility('visible')
      await settle()
      assert.equal(token.asked, 2)
      assert.equal(sources.length, 2)
      assert.equal(heads.length, 2)
    })
  }

  test('a token may be refused once after each ready', async () => {
    const states = []
    onRefresh(URL_42, callback, { token: countingToken(), onState: state => states.push(state) })
    await settle()
    last().ready({ id: '1-0' })
    await clock.advance(20_000)
    for (let i = 0; i < 3; i++) {
      last().drop()
      await refuse()
      last().ready()
    }
    assert.equal(sources.length, 4)

    last().drop()
    await refuse()
    await refuse()
    assert.equal(states.at(-1), 'refused')
    assert.equal(sources.length, 5)
  })

  test('other failures between two refusals do not reset their count', async () => {
    const states = []
    onRefresh(URL_42, callback, { token: countingToken(), onState: state => states.push(state) })
    await settle()
    await refuse()
    await refuse(503)
    await clock.advance(500)
    await refuse()

    assert.deepEqual(states, ['connecting', 'refused'])
  })

  test('the final refusal drops pending calls, and ignores the failure of a running call', async () => {
    for (const rejectAt of ['before', 'after']) {
      const callback = handCallback()
      onRefresh(URL_42, callback, { token: countingToken() })
      await settle()
      last().ready()
      last().refresh()
      last().refresh()
      const fail = async () => {
        callback.calls[0].reject(new Error('offline'))
        await settle()
      }
      if (rejectAt === 'before') await fail()
      await refuse()
      await refuse()
      reported.length = 0
      if (rejectAt === 'after') await fail()
      await clock.advance(120_000)

      assert.equal(callback.calls.length, 1)
      assert.equal(clock.timers.size, 0)
      assert.deepEqual(reported, [])
    }
  })

  test('the undo and another onRefresh work after the final refusal', async () => {
    const states = []
    const token = countingToken()
    const stop = onRefresh(URL_42, callback, { token, onState: state => states.push(state) })
    await settle()
    await refuse()
    await refuse()
    stop()
    stop()
    assert.deepEqual(states, ['connecting', 'refused', 'closed'])
    assert.equal(page.listeners + tab.listeners, 0)

    onRefresh(URL_42, callback, { token })
    await settle()
    assert.equal(last().url, `${URL_42}&token=t3`)
  })

  for (const status of [200, 204, 302, 400, 402, 404, 429, 500, 503, undefined]) {
    test(`${status ?? 'a network error'} is no refusal, however often`, async () => {
      const token = countingToken()
      onRefresh(URL_42, callback, { token, waitCapMs: 1_000 })
      await settle()
      for (let i = 1; i <= 10; i++) {
        last().giveUp()
        await settle()
        if (status) lastHead().answer(status)
        else lastHead().fail(new TypeError('Failed to fetch'))
        await clock.advance(499)
        assert.equal(sources.length, i, 'after a wait')
        await clock.advance(1)
        assert.equal(sources.length, i + 1)
        assert.equal(token.asked, i + 1)
      }
      assert.deepEqual(reported, [])
    })
  }

  test('a runtime without fetch sees no refusal', async () => {
    set('fetch', undefined)
    onRefresh(URL_42, callback, { token: countingToken() })
    await settle()
    last().giveUp()
    await clock.advance(500)

    assert.equal(sources.length, 2)
  })
})

describe('a refused page without tokens', () => {
  for (const status of [401, 403]) {
    test(`a second ${status} is final, after a wait`, async () => {
      const states = []
      onRefresh(URL_42, callback, { onState: state => states.push(state) })
      await refuse(status)
      await clock.advance(499)
      assert.equal(sources.length, 1)
      await clock.advance(1)
      assert.equal(sources.length, 2)
      assert.deepEqual(states, ['connecting'])

      await refuse(status)
      assert.deepEqual(states, ['connecting', 'refused'])
      assert.deepEqual(reported.map(String), [`Error: event stream refused: ${status}`])
      assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)
      await clock.advance(600_000)
      visibility('visible')
      assert.equal(sources.length, 2)
      assert.equal(heads.length, 2)
      assert.deepEqual(calls, [])
    })
  }

  test('a ready between two refusals resets their count', async () => {
    const states = []
    onRefresh(URL_42, callback, { onState: state => states.push(state) })
    for (let i = 0; i < 3; i++) {
      await refuse()
      await clock.advance(500)
      last().ready()
    }

    assert.deepEqual(states.at(-1), 'open')
    assert.equal(sources.length, 4)
  })

  for (const status of [200, 204, 302, 404, 429, 500, 503]) {
    test(`${status} is no refusal, however often`, async () => {
      onRefresh(URL_42, callback, { waitCapMs: 1_000 })
      for (let i = 1; i <= 10; i++) {
        await refuse(status)
        await clock.advance(500)
        assert.equal(sources.length, i + 1)
      }
    })
  }

  test('an EventSource of the page is not asked for by a fetch of the browser', async () => {
    class Other extends FakeEventSource {}
    const asked = []
    const fetch = async url => asked.push(url) && { status: 401 }
    onRefresh(URL_42, callback, { EventSource: Other })
    last().giveUp()
    await clock.advance(500)
    assert.equal(sources.length, 2)
    assert.equal(heads.length, 0)

    onRefresh(URL_42, callback, { EventSource: Other, fetch })
    last().giveUp()
    await clock.advance(500)
    assert.deepEqual(asked, [URL_42])
  })
})

describe('the HEAD request', () => {
  test('the HEAD request repeats the URL and the credentials of the EventSource', async () => {
    for (const [options, credentials] of [
      [{}, undefined],
      [{ withCredentials: true }, 'include'],
    ]) {
      onRefresh(URL_42, callback, { token: countingToken(), ...options })
      await settle()
      last().giveUp()
      await settle()

      assert.equal(lastHead().url, last().url)
      assert.equal(lastHead().init.method, 'HEAD')
      assert.equal(lastHead().init.credentials, credentials)
    }
  })

  test('the option fetch replaces the global function', async () => {
    const asked = []
    const fetch = async url => {
      asked.push(url)
      return { status: 503 }
    }
    onRefresh(URL_42, callback, { token: countingToken(), fetch })
    await settle()
    last().giveUp()
    await clock.advance(500)

    assert.deepEqual(asked, [`${URL_42}&token=t1`])
    assert.equal(heads.length, 0)
    assert.equal(sources.length, 2)
  })

  test('the HEAD request is given up after 60 s', async () => {
    onRefresh(URL_42, callback, { token: countingToken() })
    await settle()
    last().giveUp()
    await clock.advance(59_999)
    assert.equal(lastHead().init.signal.aborted, false)

    await clock.advance(1)
    assert.equal(lastHead().init.signal.aborted, true)
    assert.equal(sources.length, 1)
    await clock.advance(500)
    assert.equal(sources.length, 2)
    assert.deepEqual(reported, [])
  })

  test('a wake-up drops the answer of the HEAD request', async () => {
    const answers = []
    const fetch = () => new Promise(resolve => answers.push(resolve))
    onRefresh(URL_42, callback, { token: countingToken(), fetch })
    await settle()
    last().giveUp()
    clock.sleep(31_000)
    visibility('visible')
    await settle()
    assert.equal(sources.length, 2)

    answers[0]({ status: 401 })
    await clock.advance(40_000)
    assert.equal(sources.length, 2)
  })

  test('the undo aborts the HEAD request', async () => {
    for (const status of [401, 503]) {
      const answers = []
      const fetch = (url, { signal }) => new Promise(resolve => answers.push({ resolve, signal }))
      const token = countingToken()
      const stop = onRefresh(URL_42, callback, { token, fetch })
      await settle()
      last().giveUp()
      stop()
      assert.equal(answers[0].signal.aborted, true)

      answers[0].resolve({ status })
      await clock.advance(120_000)
      assert.equal(token.asked, 1)
      assert.equal(clock.timers.size, 0)
    }
    assert.equal(sources.length, 2)
  })
})

describe('a missing token', () => {
  for (const [name, token] of Object.entries({
    rejects: async () => {
      throw new Error('push token: 500')
    },
    throws: () => {
      throw new Error('push token: 500')
    },
    'gives undefined': async () => undefined,
    'gives an object': async () => ({ token: 'eyJ' }),
  })) {
    test(`a token() that ${name} is reported, and called again after growing waits`, async () => {
      let asked = 0
      onRefresh(URL_42, callback, { token: () => (asked++, token()) })
      const waits = []
      for (let i = 1; i <= 7; i++) {
        await settle()
        assert.equal(reported.length, i)
        let ms = 0
        for (; asked === i; ms += 500) await clock.advance(500)
        waits.push(ms)
      }

      assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000])
      assert.ok(reported.every(error => /push token: 500|token\(\) gave/.test(error)))
      assert.equal(sources.length, 0)
    })
  }

  test('a token() that has not settled after 45 s is called again, and its late token dropped', async () => {
    const token = handToken()
    onRefresh(URL_42, callback, { token })
    await clock.advance(44_999)
    assert.deepEqual(reported, [])

    await clock.advance(1)
    assert.deepEqual(reported.map(String), ['Error: token() has not settled'])
    token.asked[0].resolve('late')
    await clock.advance(499)
    assert.equal(token.asked.length, 1)

    await clock.advance(1)
    assert.equal(token.asked.length, 2)
    assert.equal(sources.length, 0)
    token.asked[1].resolve('t2')
    await settle()
    assert.deepEqual(urls(), [`${URL_42}&token=t2`])
  })

  test('the waits start over only after a stream that has lasted', async () => {
    const token = countingToken()
    onRefresh(URL_42, callback, { token })
    await settle()
    for (const wait of [500, 1_000]) {
      last().ready()
      last().giveUp()
      await settle()
      lastHead().answer(503)
      await clock.advance(wait - 1)
      const before = token.asked
      await clock.advance(1)
      assert.equal(token.asked, before + 1)
    }

    last().ready()
    await clock.advance(5_001)
    last().heartbeat()
    last().giveUp()
    await settle()
    lastHead().answer(503)
    await clock.advance(500)
    assert.equal(sources.length, 4)
  })

  test('several wake-up events open one stream with the newest token', async () => {
    const token = handToken()
    onRefresh(URL_42, callback, { token })
    clock.sleep(60_000)
    visibility('visible')
    tab.fire('online')
    tab.fire('pagehide', { persisted: true })
    tab.fire('pageshow', { persisted: true })
    assert.equal(token.asked.length, 3)
    token.asked[2].resolve('t3')
    token.asked[1].resolve('t2')
    token.asked[0].reject(new Error('cut'))
    await clock.advance(40_000)

    assert.deepEqual(urls(), [`${URL_42}&token=t3`])
    assert.deepEqual(reported, [])
  })

  test('a token that arrives after the undo opens nothing', async () => {
    for (const end of ['resolve', 'reject']) {
      const token = handToken()
      const stop = onRefresh(URL_42, callback, { token })
      stop()
      token.asked[0][end]('t1')
      await clock.advance(120_000)

      assert.equal(token.asked.length, 1)
      assert.equal(sources.length, 0)
      assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)
    }
    assert.deepEqual(reported, [])
  })

  test('the undo may be called by token()', async () => {
    const states = []
    let asked = 0
    const stop = onRefresh(URL_42, callback, {
      onState: state => states.push(state),
      token: () => {
        if (++asked > 1) stop()
        throw new Error('logged out')
      },
    })
    await clock.advance(120_000)

    assert.equal(asked, 2)
    assert.deepEqual(states, ['connecting', 'closed'])
    assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)
    assert.equal(reported.length, 1)
  })

  test('an undo called by onState leaves no HEAD request behind', async () => {
    let stop
    stop = onRefresh(URL_42, callback, {
      token: countingToken(),
      onState: state => {
        if (state === 'connecting') stop?.()
      },
    })
    await settle()
    last().ready()
    last().giveUp()
    await clock.advance(120_000)

    assert.equal(lastHead().init.signal.aborted, true)
    assert.equal(clock.timers.size, 0)
    assert.equal(sources.length, 1)
  })
})

test('an error of the constructor is reported with the option token, and followed by a wait', async () => {
  class Refusing {
    constructor() {
      throw new SyntaxError('not a URL')
    }
  }
  const token = countingToken()
  onRefresh('http://[', callback, { token, EventSource: Refusing })
  await settle()
  assert.deepEqual(reported.map(String), ['SyntaxError: not a URL'])

  await clock.advance(499)
  assert.equal(token.asked, 1)
  await clock.advance(1)
  assert.equal(token.asked, 2)
})
