/** Random histories of tabs that share: the promise is kept, and each rule is needed for it. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { useFakes } from './fakes.js'
import { source } from './tabs.js'
import { playTabs } from './tabs_world.js'

useFakes()

const SEEDS = 1_000

test(`each tab is right in the end, in ${SEEDS} random histories`, async () => {
  const all = { calls: 0, sources: 0, polls: 0 }
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      const { calls, sources, polls } = await playTabs(source, seed)
      all.calls += calls
      all.sources += sources
      all.polls += polls
    } catch (error) {
      error.message = `seed ${seed}: ${error.message}`
      throw error
    }
  }
  assert.ok(all.calls > 8 * SEEDS, `${all.calls} calls`)
  assert.ok(all.sources > 5 * SEEDS, `${all.sources} EventSources`)
  assert.ok(all.polls > 5 * SEEDS, `${all.polls} polls`)
})

/** What the judge says of the first seed that it objects to. */
async function objection(text) {
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      await playTabs(text, seed)
    } catch (error) {
      if (!(error instanceof assert.AssertionError)) throw error
      return error.message
    }
  }
}

describe('a rule that is taken out is missed', () => {
  for (const [name, rule, replacement, expected] of [
    [
      'a position that differs is missed',
      'else if (!isNext && id && id !== own)',
      'else if (0)',
      /rows/,
    ],
    [
      'a change counts only from the position before it',
      'if (isNext && merchant === changed)',
      'if (merchant === changed)',
      /rows/,
    ],
    [
      'a tab takes the position that it hears',
      'if (id) stream.moveTo(merchant, id)\n      if (isNext',
      'if (isNext',
      /rows|quiet/,
    ],
    ['a tab takes the state that it hears', 'enter(message.state)', '', /the stream is open/],
    ['a tab hears one of its own rights', 'message.grant !== grant', 'false', /rows/],
    ['the rights are those of the stream', "grant = fields.grant ?? 'none'", '', /rows/],
    [
      'tabs of other rights do not meet again',
      'if (own !== told) tabs.part(own)',
      '',
      /one stream|without a pause|rows/,
    ],
    [
      'tabs of other rights share with each other',
      'if (grant && name === common) name += grant',
      'if (false);',
      /one stream/,
    ],
    [
      'a request that has failed is repeated',
      'return open()\n    }\n    const isRefused',
      'return open()\n}\nreturn\n    const isRefused',
      /rows|open/,
    ],
    ['the name leaves positions out', "['token', 'last_event_id']", "['token']", /one stream/],
    ['a tab that has lost the lead closes', 'follow() {\n    close()', 'follow() {', /one stream/],
    [
      'a tab that has lost the lead follows',
      "error).name === 'AbortError') step()",
      "error).name === 'AbortError') goAlone()",
      /one stream/,
    ],
    ['a page that is left holds nothing', 'tabs.leave()\n    grant', 'grant', /left|nor/],
    ['a page that has ended holds nothing', 'tabs.leave()\n    clearTimeout', 'clearTimeout', /./],
    [
      'a tab waits for the lock once',
      'request(options) {\n    turn?.abort()',
      'request(options) {',
      /./,
    ],
  ]) {
    test(name, async () => {
      assert.equal(source.split(rule).length, 2, `the module has this once: ${rule}`)
      const found = await objection(source.replace(rule, () => replacement))

      assert.match(found ?? 'nothing', found ? expected : /found/)
    })
  }
})
