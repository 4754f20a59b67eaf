/** The module as a file: its export, its independence and its size. */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { minify } from 'terser'
import { onRefresh } from '../index.js'
import { clock, page, sources, tab, useFakes } from './fakes.js'

useFakes()

describe('the module', () => {
  test('several instances do not share state', async () => {
    const seen = { a: [], b: [] }
    const stopA = onRefresh('/events?merchant_id=a', ({ topics }) => seen.a.push(topics))
    onRefresh('/events?merchant_id=b', ({ topics }) => seen.b.push(topics))
    const [a, b] = sources
    a.ready({ id: '1-0', heartbeat_s: 1 })
    b.ready({ id: '2-0' })
    a.refresh({ topic: 'seats' })
    b.refresh({ topic: 'orders' })
    stopA()
    b.giveUp()
    await clock.advance(1_000)

    assert.deepEqual(seen, { a: [['seats']], b: [['orders']] })
    assert.deepEqual(
      sources.slice(2).map(({ url }) => url),
      ['/events?merchant_id=b&last_event_id=2-0'],
    )
    assert.equal(page.listeners + tab.listeners, 5)
  })

  test('the module has one export and does nothing when it is imported', async () => {
    const module = await import('../index.js?imported-again')

    assert.deepEqual(Object.keys(module), ['onRefresh'])
    assert.equal(sources.length + clock.timers.size + page.listeners + tab.listeners, 0)
  })

  test('the module loads one file, when it is needed, and is at most 4 KiB, minified and by gzip', async () => {
    const { code, bytes } = await minified('index.js')

    assert.doesNotMatch(code, /^import/)
    assert.deepEqual(code.match(/import\(.*?\)/g), ['import("./poll.js")'])
    assert.ok(bytes <= 4 * 1024, `expected at most 4096 bytes, got ${bytes}`)
    assert.ok(bytes > 1024, `got ${bytes} bytes`)
    const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8')
    const [, size] = /The module is ([0-9.]+)\s+KiB/.exec(readme)
    assert.ok(Math.abs(size * 1024 - bytes) < 100, `README says ${size} KiB of ${bytes} bytes`)
  })

  test('the file that polls imports nothing and is at most 2 KiB, minified and by gzip', async () => {
    const { code, bytes } = await minified('poll.js')

    assert.doesNotMatch(code, /^import|import\(/)
    assert.ok(bytes <= 2 * 1024, `expected at most 2048 bytes, got ${bytes}`)
  })
})

async function minified(name) {
  const text = await readFile(new URL(`../${name}`, import.meta.url), 'utf8')
  const { code } = await minify(text, { module: true })
  return { code, bytes: gzipSync(code).length }
}
