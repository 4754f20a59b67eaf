/** The demonstration of the demo's page: when it sells a seat, and when it ends. */

import assert from 'node:assert/strict'
import { beforeEach, describe, mock, test } from 'node:test'
import { createShow } from '../demo/show.js'

const MINUTE = 60_000

describe('a demonstration', () => {
  const page = { hidden: false }
  let sales, hasSeats, click, button, show

  beforeEach(() => {
    mock.timers.reset()
    mock.timers.enable({ apis: ['setTimeout'] })
    globalThis.document = Object.assign(page, { hidden: false })
    sales = 0
    hasSeats = true
    button = { textContent: '', addEventListener: (_type, listener) => (click = listener) }
    show = createShow(button, () => hasSeats && Boolean(++sales))
    show.start()
  })

  /** Timers that a timer sets start at the time to which the clock has been set. */
  function pass(ms) {
    for (let passed = 0; passed < ms; passed += 100) mock.timers.tick(100)
  }

  test('sells at most once in three seconds, and not for ever', () => {
    pass(3_000)
    assert.equal(sales, 1)
    assert.equal(button.textContent, 'Pause')

    pass(10 * MINUTE)
    assert.equal(sales, 30)
    assert.equal(button.textContent, 'Play')
  })

  test('waits while nobody sees the page', () => {
    page.hidden = true
    pass(10 * MINUTE)
    assert.equal(sales, 0)

    page.hidden = false
    pass(5_000)
    assert.equal(sales, 1)
  })

  test('ends when there is nothing left to sell', () => {
    hasSeats = false
    pass(5_000)

    assert.equal(button.textContent, 'Play')
  })

  test('is paused and started again by its button', () => {
    click()
    pass(MINUTE)
    assert.equal(sales, 0)

    click()
    pass(2_000)
    assert.equal(sales, 1)
  })
})
