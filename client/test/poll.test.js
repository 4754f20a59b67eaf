/** Polling in the place of a stream that is mute: when it begins, its pace, and when it ends. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import { pollInstead } from '../poll.js'
import {
  calls,
  callback,
  clock,
  countingToken,
  FakeEventSource,
  last,
  openOnes,
  page,
  setHeadStatus,
  settle,
  sources,
  tab,
  URL_42,
  useFakes,
  visibility,
} from './fakes.js'
import { answerPolls, busy, polls, pollUrls, refused, SILENCE, told } from './polls.js'

useFakes()

const owed = (id, reason = 'missed', topics = null) => ({ 42: { id, topics, reason } })
const ENCODED_42 = '/events?merchant_id=42'

/** A page whose stream is silent, and what it is told of its state. */
function openPage(options = {}, url = URL_42) {
  const states = []
  const undo = onRefresh(url, callback, {
    firstCallMs: Infinity,
    onState: state => states.push(state),
    ...options,
  })
  return { states, undo }
}

/** Lets a stream be silent from its beginning, and the file be loaded. */
async function muteStream() {
  await clock.advance(45_000)
  await settle()
}

/** A page that polls, as its streams are mute. */
async function pollingPage(options, url) {
  const page = openPage(options, url)
  await muteStream()
  await clock.advance(20_000)
  assert.equal(page.states.at(-1), 'polling')
  return page
}

describe('polling begins', () => {
  test('a stream that is silent from its beginning is followed by a poll, and then by a trial', async () => {
    answerPolls(() => told(owed('7-0', 'connected')))
    const { states } = openPage()
    await clock.advance(44_999)
    assert.equal(polls.length, 0)
    await clock.advance(1)
    await settle()

    const [{ url, init }] = polls
    assert.equal(url, ENCODED_42)
    assert.deepEqual(init.headers, { Accept: 'application/json' })
    assert.equal(init.cache, 'no-store')
    assert.equal(init.credentials, 'same-origin')
    assert.deepEqual(
      calls.map(({ id, reason }) => [id, reason]),
      [['7-0', 'connected']],
    )
    assert.equal(last().url, `${URL_42}&last_event_id=7-0`, 'a stream is tried')
    assert.deepEqual(states, ['connecting'], 'one stream may have been slow')
    await clock.advance(16_000)
    assert.deepEqual(states, ['connecting', 'polling'])
    assert.deepEqual(openOnes(), [])
  })

  test('headers alone are silence', async () => {
    answerPolls(() => told())
    const { states } = openPage()
    last().accept()
    await muteStream()
    last().accept()
    await clock.advance(20_000)

    assert.deepEqual(states, ['connecting', 'polling'])
  })

  for (const [name, hasHeaders, end] of [
    ['gets its headers, and breaks', true, 'drop'],
    ['breaks without its headers', false, 'drop'],
    ['gets an error instead of a response', false, 'giveUp'],
  ]) {
    test(`a stream that ${name} after 20 s without an event is followed by a poll`, async () => {
      answerPolls(() => told(owed('7-0', 'connected')))
      const { states } = openPage()
      const mute = last()
      if (hasHeaders) mute.accept()
      await clock.advance(20_001)
      mute[end]()
      await settle()

      assert.equal(polls.length, 1)
      assert.equal(calls.length, 1)
      assert.equal(mute.readyState, FakeEventSource.CLOSED)
      await clock.advance(16_000)
      assert.deepEqual(states, ['connecting', 'polling'])
      assert.deepEqual(openOnes(), [])
    })
  }

  test('a service that is down is not polled again', async () => {
    answerPolls(() => SILENCE)
    const { states } = openPage()
    await muteStream()
    assert.equal(polls.length, 1)
    await clock.advance(15_000 + 2_000)
    assert.equal(polls.length, 1, 'a stream is tried next')
    last().ready({ id: '7-0' })

    assert.deepEqual(states, ['connecting', 'open'])
    await clock.advance(15_000)
    assert.equal(polls.length, 1)
  })

  for (const [name, answer] of [
    ['the poll is refused for now', () => busy()],
    ['the poll fails', () => Promise.reject(new TypeError('no network'))],
    ['another server answers', () => ({ status: 200, json: async () => null })],
    ['the answer is no answer to a poll', () => ({ status: 200, json: async () => ({}) })],
    ['the page asks with a fetch that gives a status only', () => ({ status: 200 })],
  ]) {
    test(`${name}: streams are opened as before`, async () => {
      answerPolls(answer)
      const { states } = openPage()
      await muteStream()
      await clock.advance(40_000)

      assert.equal(polls.length, 1)
      assert.deepEqual(openOnes(), [last()])
      assert.deepEqual(states, ['connecting'])
    })
  }

  test('a stream that comes to life in its trial is kept', async () => {
    answerPolls(() => told(owed('7-0')))
    const { states } = openPage()
    await muteStream()
    const count = polls.length
    last().ready({ id: '7-0' })
    last().refresh({ topic: 'seats', data: { seat: 'C7' } }, '8-0')
    await settle()

    assert.deepEqual(states, ['connecting', 'open'])
    assert.deepEqual(calls.at(-1).data, { seat: 'C7' })
    assert.equal(calls.at(-1).id, '8-0')
    await clock.advance(30_000)
    assert.equal(polls.length, count)
    last().drop()
    assert.deepEqual(states, ['connecting', 'open', 'connecting'])
    last().ready({ id: '8-0' })
    assert.equal(states.at(-1), 'open')
  })

  test('a soft answer to the trial is no silence', async () => {
    answerPolls(() => told())
    const { states } = openPage()
    await muteStream()
    last().accept()
    last().goodbye('full')
    last().drop()
    await clock.advance(30_000)

    assert.equal(polls.length, 1)
    assert.deepEqual(states, ['connecting'])
  })

  test('a stream that had an event, and a stream that broke, are followed by no poll', async () => {
    answerPolls(() => told())
    openPage()
    last().ready({ id: '7-0' })
    await clock.advance(45_000 + 500) // a stream that falls silent
    last().drop()
    await clock.advance(62_000) // a browser that reconnects for too long
    last().accept()
    last().goodbye()
    last().drop()
    await clock.advance(62_000)

    assert.equal(sources.length, 4)
    assert.equal(polls.length, 0)
  })

  test('a stream that ends within 20 s without an event is followed by no poll', async () => {
    answerPolls(() => told())
    openPage()
    last().accept()
    await clock.advance(20_000)
    last().drop()
    await clock.advance(59_000) // of its reconnection

    assert.deepEqual([polls.length, sources.length], [0, 1])
  })

  test('a stream that ends after an event, however late, is followed by no poll', async () => {
    answerPolls(() => told())
    openPage()
    await clock.advance(1_000)
    last().ready({ id: '7-0' })
    await clock.advance(30_000)
    last().drop()
    last().drop() // the second connection has no event
    await settle()

    assert.deepEqual([polls.length, sources.length], [0, 1])
  })

  test('a trial that fails ends the polls: the service may be down', async () => {
    answerPolls(() => told())
    const { states } = openPage()
    await muteStream()
    last().giveUp()
    await clock.advance(30_000)

    assert.equal(polls.length, 1)
    assert.deepEqual(states, ['connecting'])
  })

  test('the time in which a page is hidden, or a machine asleep, is no silence', async () => {
    answerPolls(() => told())
    const { states } = openPage()
    await muteStream()
    visibility('hidden')
    await clock.advance(40_000)
    assert.deepEqual(states, ['connecting'])
    page.hidden = false
    clock.sleep(15_000)
    await clock.advance(13_000)
    assert.deepEqual(states, ['connecting'])
    last().ready({ id: '7-0' })

    assert.deepEqual(states, ['connecting', 'open'])
  })

  test('a token that is not there in time is no mute stream', async () => {
    answerPolls(() => told())
    openPage({ token: () => new Promise(() => {}) })
    await clock.advance(100_000)

    assert.equal(polls.length + sources.length, 0)
  })

  test('a token that is late after a stream without an event is no mute stream', async () => {
    answerPolls(() => told())
    const tokens = ['t1', new Promise(() => {}), 't3']
    openPage({ token: async () => tokens.shift() })
    await settle()
    tab.fire('pagehide')
    tab.fire('pageshow')
    await clock.advance(60_000)

    assert.deepEqual([polls.length, sources.length], [0, 2])
  })

  test('a class of the page with no fetch of the page is not replaced by polls', async () => {
    answerPolls(() => told())
    openPage({ EventSource: class extends FakeEventSource {} })
    await clock.advance(100_000)

    assert.equal(polls.length, 0)
  })

  test('the fetch of the page polls', async () => {
    const asked = []
    openPage({ withCredentials: true, fetch: async (url, init) => (asked.push(init), told()) })
    await muteStream()

    assert.equal(asked[0].credentials, 'include')
    assert.equal(last().withCredentials, true)
  })

  test('a page that is undone while the file is loaded polls nothing', async () => {
    answerPolls(() => told())
    const { undo } = openPage()
    await clock.advance(44_999)
    const { timers } = clock
    for (const { run } of [...timers.values()]) ((clock.wall += 1), run())
    undo()
    await settle()

    assert.equal(polls.length + timers.size, 0)
  })
})

describe('a page that polls', () => {
  test('the pace is that of Retry-After, and 10 s without it', async () => {
    const paces = [7, 13, 0, 5_000, 7]
    answerPolls(() => told({}, { paceS: paces.shift() ?? 7 }))
    await pollingPage()
    await clock.advance(30_000)
    const gaps = polls.slice(1).map(({ at }, index) => at - polls[index].at)

    assert.deepEqual(gaps.slice(0, 3), [7_000, 13_000, 10_000])
    await clock.advance(3_580_000 - 1)
    const count = polls.length
    await clock.advance(1)
    assert.equal(polls.length, count + 1, 'at least one poll an hour')
  })

  test('its state is that of an EventSource: connecting until the first answer, then open', async () => {
    answerPolls(() => told())
    const source = pollInstead({}, [], Math.random, () => false)(URL_42)
    const states = [source.readyState]
    await settle()
    states.push(source.readyState)
    source.close()

    assert.deepEqual([...states, source.readyState], [0, 1, 2])
  })

  test('each change is a call, with its topics and its ID, which the next poll gives back', async () => {
    let change = {}
    answerPolls(() => told(change))
    await pollingPage()
    change = owed('8-0', 'missed', ['prices', 'seats'])
    await clock.advance(10_000)
    change = {}
    await clock.advance(10_000)

    assert.deepEqual(calls, [
      {
        merchantId: '42',
        id: '8-0',
        topics: ['prices', 'seats'],
        data: undefined,
        reason: 'missed',
      },
    ])
    assert.equal(pollUrls().at(-1), `${ENCODED_42}&last_event_id=8-0`)
  })

  test('a merchant without a stream in Redis has no position', async () => {
    answerPolls(({ url }) => told(url.includes('7-0') ? owed(null, 'missed') : {}))
    await pollingPage({}, `${URL_42}&last_event_id=7-0`)

    assert.equal(pollUrls()[0], `${ENCODED_42}&last_event_id=7-0`)
    assert.equal(pollUrls().at(-1), ENCODED_42)
    assert.equal(calls.length, 1)
  })

  test('a page that is owed nothing is not called, and its first load is done', async () => {
    answerPolls(() => told())
    await pollingPage({ firstCallMs: 50_000 }, `${URL_42}&last_event_id=7-0`)

    assert.deepEqual(calls, [])
  })

  test('each merchant has its own position and calls', async () => {
    const answers = [
      {
        42: { id: '42@7-0', topics: null, reason: 'connected' },
        43: { id: '43@9-0', topics: ['seats'], reason: 'missed' },
      },
    ]
    answerPolls(() => told(answers.shift()))
    await pollingPage({}, '/events?last_event_id=43%408-0')

    assert.deepEqual(
      calls.map(({ merchantId, id, topics }) => [merchantId, id, topics]),
      [
        ['42', '42@7-0', undefined],
        ['43', '43@9-0', ['seats']],
      ],
    )
    const asked = new URLSearchParams(pollUrls().at(-1).split('?')[1]).getAll('last_event_id')
    assert.deepEqual(asked.sort(), ['42@7-0', '43@9-0'])
  })

  test('a failed poll is repeated after a wait, and the state says so', async () => {
    let answer = () => told()
    answerPolls(() => answer())
    const { states } = await pollingPage()
    answer = () => Promise.reject(new TypeError('no network'))
    await clock.advance(10_000)
    assert.equal(states.at(-1), 'connecting')
    const count = polls.length
    answer = () => told(owed('8-0'))
    await clock.advance(1_000)

    assert.equal(polls.length, count + 1)
    assert.deepEqual(states.slice(-2), ['connecting', 'polling'])
    assert.equal(calls.length, 1)
    assert.equal(sources.length, 2, 'no stream is tried')
  })

  test('the waits between failed polls double, and start over after a success', async () => {
    let answer = () => told()
    answerPolls(() => answer())
    await pollingPage()
    const away = () => Promise.reject(new TypeError('no network'))
    answer = away
    await clock.advance(10_000 + 500 + 1_000)
    answer = () => told()
    await clock.advance(2_000)
    const count = polls.length
    answer = away
    await clock.advance(10_000 + 500)

    assert.equal(polls.length, count + 2)
  })

  test('an answer that takes longer than the pace is no silence', async () => {
    let answer = () => told({}, { paceS: 1 })
    answerPolls(() => answer())
    const { states } = await pollingPage()
    answer = () =>
      new Promise(resolve => clock.setTimeout(() => resolve(told({}, { paceS: 1 })), 12_000))
    await clock.advance(60_000)

    assert.deepEqual(states, ['connecting', 'polling'])
  })

  test('a hidden page that defers its calls is called for its first load', async () => {
    answerPolls(() => told(owed('7-0', 'connected')))
    visibility('hidden')
    openPage({ whileHidden: 'defer' })
    await muteStream()

    assert.equal(calls.length, 1)
  })

  test('a busy service is polled when it says', async () => {
    let answer = () => told()
    answerPolls(() => answer())
    const { states } = await pollingPage()
    answer = () => busy(90)
    await clock.advance(10_000)
    const count = polls.length
    answer = () => told()
    await clock.advance(89_999 - 5_000)
    assert.equal(polls.length, count)
    await clock.advance(6_000)

    assert.equal(polls.length, count + 1)
    assert.equal(states.at(-1), 'polling')
  })

  test('a refused poll renews the token, and needs no new trial', async () => {
    let isOld = false
    answerPolls(({ url }) => (isOld && url.includes('t2') ? refused(401) : told()))
    const { states } = await pollingPage({ token: countingToken() })
    const count = sources.length
    isOld = true
    setHeadStatus(401)
    await clock.advance(11_000)

    assert.match(pollUrls().at(-1), /token=t3/)
    assert.deepEqual(states.slice(-3), ['polling', 'connecting', 'polling'])
    assert.equal(sources.length, count)
    await clock.advance(300_000)
    assert.equal(sources.length, count + 1, 'the next trial is not put off')
  })

  test('a page whose polls are refused twice is refused', async () => {
    let answer = () => told()
    answerPolls(() => answer())
    const { states } = await pollingPage({ token: countingToken() })
    answer = () => refused(403)
    setHeadStatus(403)
    await clock.advance(12_000)

    assert.equal(states.at(-1), 'refused')
    assert.equal(clock.timers.size + page.listeners + tab.listeners, 0)
  })

  test('a stream is tried every 5 min, beside the polls, and kept if it has an event', async () => {
    answerPolls(() => told())
    const { states } = await pollingPage()
    await clock.advance(301_000)
    assert.equal(sources.length, 3)
    const count = polls.length
    await clock.advance(20_000)
    assert.ok(polls.length > count)
    assert.deepEqual(openOnes(), [], 'the trial was mute')
    await clock.advance(280_000 + 20_000)
    assert.equal(sources.length, 4)
    last().accept()
    last().ready({ id: '9-0' })

    assert.deepEqual(states, ['connecting', 'polling', 'open'])
    const polled = polls.length
    await clock.advance(15_000)
    assert.equal(polls.length, polled)
  })

  test('a trial that fails ends no polls', async () => {
    answerPolls(() => told())
    const { states } = await pollingPage()
    await clock.advance(301_000)
    last().giveUp()
    const count = polls.length
    await clock.advance(200_000)

    assert.ok(polls.length > count + 10)
    assert.equal(sources.length, 3)
    assert.equal(states.at(-1), 'polling')
  })

  test('a page that wakes up polls at once', async () => {
    answerPolls(() => told())
    await pollingPage()
    const count = polls.length
    clock.sleep(60_000)
    visibility('visible')

    assert.equal(polls.length, count + 1)
  })

  for (const [name, end] of Object.entries({
    'the undo': ({ undo }) => undo(),
    'the back/forward cache': () => tab.fire('pagehide', { persisted: true }),
  })) {
    test(`${name} ends polls and the trial`, async () => {
      answerPolls(() => (polls.length < 4 ? told() : SILENCE))
      const opened = openPage()
      await muteStream()
      await clock.advance(11_000)
      end(opened)
      await settle()
      await clock.advance(400_000)

      assert.deepEqual(openOnes(), [])
      assert.equal(clock.timers.size, 0)
    })
  }

  test('a poll that is on its way at the end of the page is dropped', async () => {
    let give
    answerPolls(() => new Promise(resolve => (give = resolve)))
    const { undo } = openPage()
    await muteStream()
    undo()
    assert.ok(polls[0].init.signal.aborted)
    give(told(owed('7-0')))
    await settle()

    assert.deepEqual(calls, [])
    assert.equal(clock.timers.size, 0)
  })

  test('the undo of a page that is told that it polls leaves nothing', async () => {
    answerPolls(() => told())
    const { undo } = openPage({ onState: state => state === 'polling' && undo() })
    await muteStream()
    await clock.advance(20_000)

    assert.deepEqual([clock.timers.size, openOnes()], [0, []])
  })
})
