/** The seats of the demo as data: answers that overtake each other, and what is news. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { countSeats, createHouse, seatState, tick, update } from '../demo/house.js'

const ME = 'tab-1'
const free = seat => ({ seat, sold: false })
const soldTo = (by, seat) => ({ seat, sold: true, by })

/** A house that has been drawn once, and a function that applies an answer to it. */
function loadedHouse(...seats) {
  const house = createHouse('roxy', ME)
  const apply = (seats, began = tick()) => update(house, { seats }, began)
  apply(seats)
  return { house, apply }
}

describe('an answer of the box office', () => {
  test('the first answer is no news', () => {
    const house = createHouse('roxy', ME)
    const news = update(house, { seats: [soldTo('tab-2', 'A1'), free('A2')] }, tick())

    assert.deepEqual(news, { sales: [], own: [], freed: 0 })
    assert.deepEqual(countSeats(house), { free: 1, sold: 1, mine: 0 })
  })

  test('sales to others, own sales and seats that are free again are news once', () => {
    const { apply } = loadedHouse(free('A1'), free('A2'), soldTo('tab-2', 'A3'), free('A4'))
    const seats = [soldTo('tab-2', 'A1'), soldTo(ME, 'A2'), free('A3'), free('A4')]

    assert.deepEqual(apply(seats), { sales: [seats[0]], own: [seats[1]], freed: 1 })
    assert.deepEqual(apply(seats), { sales: [], own: [], freed: 0 })
  })

  test('a seat that a POST has changed since the request keeps its state', () => {
    const { house, apply } = loadedHouse(free('A1'))
    const began = tick()
    house.seats.set('A1', { ...soldTo(ME, 'A1'), changed: tick() })

    assert.equal(apply([free('A1')], began).freed, 0)
    assert.equal(seatState(house, 'A1'), 'mine')
    assert.equal(apply([free('A1')]).freed, 1)
    assert.equal(seatState(house, 'A1'), 'free')
  })

  test('the sale of a pending seat is no news: its own POST is answered', () => {
    const { house, apply } = loadedHouse(free('A1'))
    house.pending.add('A1')

    assert.deepEqual(apply([soldTo('tab-2', 'A1')]).sales, [])
    assert.equal(seatState(house, 'A1'), 'pending')
    house.pending.delete('A1')
    assert.equal(seatState(house, 'A1'), 'sold')
  })
})
