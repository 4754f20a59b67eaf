// The seats of one cinema as one browser knows them. Knows no element of the page and no request.

/**
 * @typedef {object} Seat
 * @property {string} seat such as 'C7'
 * @property {boolean} sold
 * @property {string} [by] the buyer
 * @property {number} [sold_at_ms] by the server's clock
 * @property {number} [changed] the tick at which the answer to an own POST changed the seat
 *
 * @typedef {object} Answer to GET /seats
 * @property {string} merchant_id
 * @property {string} film
 * @property {string} starts
 * @property {number} rows
 * @property {number} seats_per_row
 * @property {Seat[]} seats
 *
 * @typedef {object} House
 * @property {string} id the merchant ID
 * @property {string} by the name under which this browser buys
 * @property {Map<string, Seat>} seats
 * @property {Set<string>} pending the seats whose purchase has no answer yet
 * @property {boolean} loaded
 * @property {number} applied the tick at which the request for the seats on screen started
 * @property {boolean} wasOpen whether the event stream has been open
 * @property {number} retry the timer before the seats are requested again
 * @property {() => void} stop ends the event stream
 */

let ticks = 0

/** Orders the requests for the seats and the answers to POSTs, which may overtake each other. */
export const tick = () => ++ticks

/** @param {string} id @param {string} by @returns {House} */
export function createHouse(id, by) {
  return {
    id,
    by,
    seats: new Map(),
    pending: new Set(),
    loaded: false,
    applied: 0,
    wasOpen: false,
    retry: 0,
    stop() {},
  }
}

/**
 * Replaces the seats by those of an answer, except those that a POST has changed since its request.
 * Returns what the browser does not know yet: sales to others, own sales whose answer was lost, and
 * the number of seats that are free again.
 *
 * @param {House} house
 * @param {Answer} answer
 * @param {number} began the tick at which the request started
 */
export function update(house, answer, began) {
  const news = { sales: /** @type {Seat[]} */ ([]), own: /** @type {Seat[]} */ ([]), freed: 0 }
  const before = house.seats
  house.seats = new Map(
    answer.seats.map(seat => {
      const known = before.get(seat.seat)
      if (known?.changed !== undefined && known.changed > began) return [seat.seat, known]
      if (house.loaded && known?.sold && !seat.sold) news.freed++
      // The news of a pending seat are in the answer to its own POST.
      if (house.loaded && seat.sold && !known?.sold && !house.pending.has(seat.seat)) {
        if (seat.by === house.by) news.own.push(seat)
        else news.sales.push(seat)
      }
      return [seat.seat, seat]
    }),
  )
  house.loaded = true
  return news
}

/** @param {House} house @param {string} name */
export function seatState(house, name) {
  if (house.pending.has(name)) return 'pending'
  const seat = house.seats.get(name)
  if (!seat?.sold) return 'free'
  return seat.by === house.by ? 'mine' : 'sold'
}

/** @param {House} house */
export function countSeats(house) {
  const sold = [...house.seats.values()].filter(seat => seat.sold)
  const mine = sold.filter(seat => seat.by === house.by).length
  return { free: house.seats.size - sold.length, sold: sold.length - mine, mine }
}
