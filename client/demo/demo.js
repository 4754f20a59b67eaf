// The demo's page: shows the seats of one cinema, sells them, and redraws them after a sale in
// another window. Does not know how refreshes travel: /client/index.js does.

import { onRefresh } from '/client/index.js'
import { getSeats, getToken, needsToken, reset, sell } from './box_office.js'
import { clear, countSeats, createHouse, seatState, tick, update } from './house.js'
import { drawBars, measure } from './latency.js'
import { addNews, addTime } from './news.js'
import { $, pageName } from './page.js'
import { buildMap, drawSeat, drawSeats, markSeat, onSeatClick, showBubble } from './seats.js'

/** @import { Answer, House } from './house.js' */

const RETRY_MS = [1_000, 2_000, 4_000, 8_000]
const STATES = { connecting: 'Connecting…', open: 'Live', refused: 'Refused', closed: 'Closed' }

const links = /** @type {HTMLAnchorElement[]} */ ([...document.querySelectorAll('#cinemas a')])
const hasTokens = await needsToken('roxy')

/** @type {House} the one on screen */
let shown

// ---------------------------------------------------------------- the cinema and its refreshes

/**
 * Leaves the cinema on screen, if there is one, and shows another.
 *
 * @param {string} id
 */
function enter(id) {
  shown?.stop()
  clearTimeout(shown?.retry)
  const name = links.find(link => link.dataset.cinema === id)?.textContent ?? id
  const house = createHouse(id, name)
  shown = house

  for (const link of links) {
    if (link.dataset.cinema === id) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  $('cinema').textContent = name
  document.title = name
  showState(house, 'connecting')
  house.stop = onRefresh(
    `/events?merchant_id=${encodeURIComponent(id)}`,
    async ({ data, reason }) => {
      house.updatedAt = Date.now()
      // If the request fails, so does this callback, and onRefresh repeats the call.
      const sales = await load(house)
      if (reason === undefined) measure(sales, data, () => house === shown)
      else sales.forEach(sale => addNews(`${sale.seat} sold in another window`))
    },
    {
      by: pageName,
      onState: state => showState(house, state),
      ...(hasTokens && { token: () => getToken(id) }),
    },
  )
  // Seats are sold without the event stream as well, so the first load does not wait for it.
  void loadUntilAnswered(house)
}

/** @param {House} house @param {keyof typeof STATES} state of its event stream */
function showState(house, state) {
  if (house !== shown) return
  if (state === 'open') {
    house.wasOpen = true
    house.updatedAt = Date.now()
  }
  $('state').dataset.state = state
  $('state').textContent = state === 'connecting' && house.wasOpen ? 'Reconnecting…' : STATES[state]
  showAge()
}

function showAge() {
  const seconds = Math.floor((Date.now() - shown.updatedAt) / 1_000)
  $('age').hidden = $('state').dataset.state !== 'open'
  if (seconds < 2) $('age').textContent = 'last update just now'
  else if (seconds < 120) $('age').textContent = `last update ${seconds} s ago`
  else $('age').textContent = `last update ${Math.floor(seconds / 60)} min ago`
}

// ---------------------------------------------------------------- the box office

/**
 * Requests the seats and draws them. Returns the seats that others have bought since the last time.
 *
 * Answers may overtake each other: an answer whose request is older than the one on screen is
 * dropped.
 *
 * @param {House} house
 */
async function load(house) {
  const began = tick()
  try {
    const answer = await getSeats(house.id)
    if (house !== shown || began < house.applied) return []
    house.applied = began
    $('notice').hidden = true
    return apply(house, answer, began)
  } catch (error) {
    if (house === shown) {
      $('notice').textContent = 'The box office does not answer. Trying again…'
      $('notice').hidden = false
    }
    throw error
  }
}

/**
 * Loads now and, after a failure, again: for changes that no refresh announces.
 *
 * @param {House} house
 */
async function loadUntilAnswered(house, failures = 0) {
  clearTimeout(house.retry)
  try {
    await load(house)
  } catch {
    if (house !== shown) return
    const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]
    house.retry = setTimeout(() => loadUntilAnswered(house, failures + 1), wait)
  }
}

/**
 * Draws an answer of the box office, adds its news except the sales to others, and returns those.
 *
 * @param {House} house
 * @param {Answer} answer
 * @param {number} began
 */
function apply(house, answer, began) {
  const { sales, own, freed } = update(house, answer, began)
  own.forEach(({ seat }) => addNews(`${seat} is yours: the sale had gone through`, 'mine'))
  $('film').textContent = answer.film
  $('starts').textContent = answer.starts
  document.title = `${answer.film} · ${house.name}`
  buildMap(house, answer.seats_per_row)
  drawSeats(house)
  sales.forEach(({ seat }) => markSeat(seat, 'just'))
  const { sold, mine } = countSeats(house)
  if (freed > 0 && sold + mine === 0) addNews('Another window emptied the house')
  else if (freed > 0) addNews(`${freed} ${freed === 1 ? 'seat is' : 'seats are'} free again`)
  return sales
}

/**
 * Buys a seat. It is pending until the box office has answered.
 *
 * @param {string} name
 */
async function buy(name) {
  const house = shown
  house.pending.add(name)
  drawSeat(house, name)
  const result = await sell(house.id, name)
  house.pending.delete(name)
  if (house !== shown) return

  if (result?.ok) {
    const { sold_at_ms } = result.answer
    house.seats.set(name, { seat: name, sold: true, by: pageName, sold_at_ms, changed: tick() })
    addNews(`You bought ${name}`, 'mine')
  } else if (result?.status === 409) {
    house.seats.set(name, { ...house.seats.get(name), seat: name, sold: true, changed: tick() })
    markSeat(name, 'lost')
    showBubble(name, 'Somebody was faster')
    const line = addNews(`Somebody was faster: ${name}`, 'alarm')
    const [earlier] = /[\d.]+ m?s earlier/.exec(result.answer.detail ?? '') ?? []
    if (earlier) addTime(line, ', ', earlier)
  } else {
    showBubble(name, 'Not sold')
    if (result) addNews(`${name} was not sold: the box office answered ${result.status}`, 'alarm')
    else addNews(`No answer about ${name}: asking again`, 'alarm')
  }
  drawSeats(house)
  if (!result?.ok) void loadUntilAnswered(house)
}

async function empty() {
  const house = shown
  $('reset').setAttribute('aria-disabled', 'true')
  const result = await reset(house.id)
  $('reset').removeAttribute('aria-disabled')
  if (house !== shown) return
  if (result?.ok) {
    clear(house)
    addNews('You emptied the house', 'mine')
    drawSeats(house)
  } else {
    const why = result ? `the box office answered ${result.status}` : 'no answer'
    addNews(`The house was not emptied: ${why}`, 'alarm')
  }
  void loadUntilAnswered(house)
}

// ---------------------------------------------------------------- clicks and the address

onSeatClick(name => {
  const state = seatState(shown, name)
  if (state === 'free') void buy(name)
  else if (state !== 'pending') {
    showBubble(name, state === 'mine' ? 'This seat is yours' : 'Sold')
  }
})

$('reset').addEventListener('click', () => {
  if ($('reset').getAttribute('aria-disabled') !== 'true') void empty()
})

$('second').addEventListener('click', () => {
  // The new window takes the other half of the screen.
  const {
    availWidth,
    availHeight,
    availLeft = 0,
    availTop = 0,
  } = /** @type {Screen & { availLeft?: number, availTop?: number }} */ (screen)
  const width = Math.min(720, Math.floor(availWidth / 2))
  const height = Math.min(920, availHeight)
  const isRight = screenX + outerWidth / 2 - availLeft > availWidth / 2
  const left = isRight ? availLeft : availLeft + availWidth - width
  const features = `popup,width=${width},height=${height},left=${left},top=${availTop}`
  if (open(location.href, '_blank', features)) return
  addNews('The browser blocked the window: open this address in another window', 'alarm')
})

/** @param {Location | URL} address */
function cinemaOf({ search }) {
  const id = new URLSearchParams(search).get('cinema') ?? ''
  return links.some(link => link.dataset.cinema === id) ? id : 'roxy'
}

for (const link of links) {
  link.addEventListener('click', event => {
    const { button, ctrlKey, metaKey, shiftKey, altKey } = event
    if (button !== 0 || ctrlKey || metaKey || shiftKey || altKey) return // opens a tab or window
    event.preventDefault()
    const to = cinemaOf(new URL(link.href))
    if (to === shown.id) return
    const left = shown.name
    history.pushState(null, '', link.href)
    enter(to)
    addNews(`Now at ${shown.name}, without the sales at ${left}`, 'plain')
  })
}

addEventListener('popstate', () => {
  if (cinemaOf(location) !== shown.id) enter(cinemaOf(location))
})

drawBars()
enter(cinemaOf(location))
setInterval(showAge, 1_000)
