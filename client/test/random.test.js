/** Random histories of a page: the promise is kept, and each rule is needed for it. */

import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { onRefresh } from '../index.js'
import { useFakes } from './fakes.js'
import { play } from './world.js'

useFakes()

const SEEDS = 1_000
const read = name => readFile(new URL(`../${name}`, import.meta.url), 'utf8')
const files = { 'index.js': await read('index.js'), 'poll.js': await read('poll.js') }
const folder = await mkdtemp(join(tmpdir(), 'sse-push-client-'))
let modules = 0
after(() => rm(folder, { recursive: true }))

/** The module with one of its rules taken out, which one of the two files has. */
async function without(rule, replacement) {
  const path = join(folder, `${++modules}`)
  await mkdir(path)
  await writeFile(join(path, 'package.json'), '{ "type": "module" }')
  let found = 0
  for (const [name, text] of Object.entries(files)) {
    found += text.split(rule).length - 1
    const changed = text.replace(rule, () => replacement)
    await writeFile(join(path, name), changed)
  }
  assert.equal(found, 1, `the module has this once: ${rule}`)
  await import(join(path, 'poll.js')) // to load a file takes real time
  return (await import(join(path, 'index.js'))).onRefresh
}

/** What the judge says of the first seed that it objects to. */
async function objection(changed) {
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      await play(changed, seed)
    } catch (error) {
      if (!(error instanceof assert.AssertionError)) throw error
      return error.message
    }
  }
}

test(`a page is right in the end, in ${SEEDS} random histories`, async () => {
  const all = { calls: 0, sources: 0, polls: 0 }
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      const { calls, sources, polls } = await play(onRefresh, seed)
      all.calls += calls
      all.sources += sources
      all.polls += polls
    } catch (error) {
      error.message = `seed ${seed}: ${error.message}`
      throw error
    }
  }
  assert.ok(all.calls > 5 * SEEDS, `${all.calls} calls`)
  assert.ok(all.sources > 2 * SEEDS, `${all.sources} EventSources`)
  assert.ok(all.polls > 10 * SEEDS, `${all.polls} polls`)
})

describe('a rule that is taken out is missed', () => {
  for (const [name, rule, replacement, expected] of [
    ['one call at a time', "if (state !== 'idle') return\n", '', /one call at a time/],
    ['what arrives meanwhile is owed', "state = owed ? 'due' : 'idle'", "state = 'idle'", /late/],
    [
      'a failed call is owed again',
      'owed = merge(taken, owed)',
      'owed ??= taken',
      /shows the rows/,
    ],
    ['a call takes all that is owed', 'owed = undefined\n', '', /a call has a reason/],
    ['topics add up', '[...new Set([...a.topics, ...b.topics])]', 'b.topics', /shows the rows/],
    [
      'merged refreshes have no data',
      '    reason: REASONS[Math',
      'data: b.data,\n    reason: REASONS[Math',
      /shows the rows|no data/,
    ],
    [
      'what arrives later moves no call',
      "if (state !== 'idle') return\n",
      "if (state === 'due') dueAt = performance.now() + minIntervalMs\nif (state !== 'idle') return\n",
      /late/,
    ],
    [
      'calls keep their distance',
      'dueAt = performance.now() + minIntervalMs',
      'dueAt = 0',
      /calls keep their distance/,
    ],
    [
      'a failed call waits',
      'const retryMs = waitMs(failures++)',
      'const retryMs = 0',
      /a failed call waits/,
    ],
    [
      'a failed call keeps the distance as well',
      'Math.max(dueAt, performance.now() + retryMs)',
      'performance.now() + retryMs',
      /calls keep their distance/,
    ],
    ['waits start over after a success', 'failures = 0\n      isLoaded', 'isLoaded', /late/],
    ['the ID of a call is the newest', 'id: lastEventId(merchant)', 'id: taken.id', /the ID/],
    [
      'a merchant has a slot of its own',
      'stream.merchants().forEach(slotOf)',
      'slotOf(stream.merchants()[0])',
      /late/,
    ],
    [
      'what nothing is known of is not confirmed',
      'else if (!owed) calls',
      'if (!owed) calls',
      /late|hidden page/,
    ],
    [
      'a position confirms',
      "if (type === 'position') calls.confirm(merchantOf(fields))",
      '',
      /a call has a reason|hidden page/,
    ],
    [
      'an ID is that of its merchant',
      "return id.includes('@') ? id.split('@')[0]",
      "return id.includes('@') ? merchants[0]",
      /the ID|rows/,
    ],
    ['a silent stream is replaced', 'else onSilence()', '', /shows the rows|the state/],
    ['the first load does not wait for the stream', 'calls.begin()\n', '', /late/],
    [
      'a refresh in time is the first load',
      'clearTimeout(firstTimer)\n    owed',
      'owed',
      /a call has a reason/,
    ],
    [
      'a page that has missed nothing needs no load',
      'else if (!owed) calls.confirm(merchant)',
      '',
      /a call has a reason|hidden page/,
    ],
    ['a hidden page defers its calls', ' || isDeferred()) return', ') return', /hidden page/],
    ['a loaded page is not loaded again', 'isLoaded = true\n      state', 'state', /hidden page/],
    ['a hidden page is loaded', 'isLoaded && isHeld()', 'isHeld()', /late/],
    ['a page that is shown is called', 'tabs.queue()\n    lookAtPage()', 'tabs.queue()', /late/],
    ['a page that is left has no stream', "if (type === 'pagehide') return pause()", '', /away/],
    [
      'a page that is shown again has a stream',
      '? !thePage()?.prerendering && !calls.areDeferred()',
      '? false',
      /shows the rows|late/,
    ],
    ['a page whose streams are mute polls', 'if (mayPoll) poll()', '', /the state/],
    [
      'a page whose mute streams are ended polls',
      'if (isMute && silence.silentMs() > MUTE_MS) return replace()\n',
      '',
      /the state/,
    ],
    [
      'a stream that the browser has opened again may be mute',
      "isMute = type === 'open'",
      "isMute &&= type === 'open'",
      /the state/,
    ],
    [
      'what a poll says is a refresh',
      "this.#emit('refresh', { merchant_id: merchant, topics, reason, ...beats(paceS) }, id ?? '')",
      '{}',
      /late|rows|the state/,
    ],
    [
      'a poll moves the position',
      'if (id) this.#positions.set(merchant, id)\n',
      'if (id);\n',
      /quiet|a call has a reason/,
    ],
    [
      'a poll is followed by the next',
      'this.#pollLater(paceS * 1_000)',
      '',
      /the state lasts|news/,
    ],
    [
      'a page that polls tries a stream',
      'setTimeout(() => this.#try(), Math.max(this.#trialMs(), 0))',
      '0',
      /the state/,
    ],
    [
      'a stream that is alive ends the polls',
      "      this.#stop()\n      clearTimeout(this.#trialTimer)\n      this.#state = 'relaying'",
      "      this.#state = 'relaying'",
      /the state|the ID/,
    ],
    ['a poll is a heartbeat', "this.#emit('heartbeat', beats(paceS))\n    if", 'if', /the state/],
    [
      'a page that has tried a mute stream polls',
      "if (this.#state === 'probing') this.#begin()",
      '',
      /one stream|the state|late/,
    ],
    [
      'a mute stream is closed',
      'this.#endTrial()\n      this.#tryLater()',
      'this.#tryLater()',
      /one stream/,
    ],
    [
      'a page that ends its polls closes the stream',
      "this.#stop()\n    this.#endTrial()\n    this.#state = 'ended'",
      "this.#stop()\n    this.#state = 'ended'",
      /one stream|nothing is left/,
    ],
    [
      'a page that ends polls no more',
      "this.#stop()\n    this.#endTrial()\n    this.#state = 'ended'",
      "this.#endTrial()\n    this.#state = 'ended'",
      /the ID|nothing is left|a reason/,
    ],
    [
      'what a poll says is owed is not confirmed',
      '{ owed: merchant in owed }',
      '{ owed: false }',
      /late|hidden page/,
    ],
    [
      'what is not owed is confirmed',
      '{ owed: merchant in owed }',
      '{ owed: true }',
      /a call has a reason|hidden page/,
    ],
    [
      'the headers of a stream are no event',
      "if (type === 'open') return // the headers may come through where no event does\n",
      '',
      /the state/,
    ],
    [
      'a prerendered page waits for its first event',
      'if (thePage()?.prerendering) pause()\n  else open()',
      'open()',
      /away|prerendered/,
    ],
  ]) {
    test(name, async () => {
      const found = await objection(await without(rule, replacement))

      assert.match(found ?? 'nothing', expected)
    })
  }
})
