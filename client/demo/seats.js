// The map of seats: one button each, the keys that move between them, and what appears at a seat.
// Does not know how a seat is bought.

import { seatState } from './house.js'

/** @import { House } from './house.js' */

const MARK_MS = 1_400
const BUBBLE_MS = 2_600
const WORDS = { free: 'free', pending: 'being bought', sold: 'sold', mine: 'yours' }

/** @param {HTMLElement} map an empty element that becomes the map */
export function createMap(map) {
  let label = ''
  /** @type {Map<string, HTMLButtonElement>} */
  const buttons = new Map()
  /** @type {Map<string, HTMLElement>} */
  const rows = new Map()
  let cursor = '' // the seat that Tab reaches

  map.setAttribute('role', 'group')
  map.setAttribute('aria-description', 'The arrow keys move from seat to seat, Enter buys.')
  map.addEventListener('keydown', moveFocus)
  map.addEventListener('focusin', event => {
    moveCursor(/** @type {HTMLElement} */ (event.target).dataset.seat ?? cursor)
  })

  return { name, build, draw, drawSeat, mark, showBubble, onClick }

  /** @param {string} text what the map shows */
  function name(text) {
    label = text
  }

  /**
   * Gives the map exactly the rows and seats of a house. Seats that stay keep their element, and so
   * the focus.
   *
   * @param {House} house
   * @param {number} seatsPerRow
   */
  function build(house, seatsPerRow) {
    const { plan, columns } = planOf(house, seatsPerRow)
    const left = Math.ceil(columns / 2)
    map.style.setProperty('--left', String(left))
    map.style.setProperty('--right', String(Math.max(1, columns - left)))
    map.setAttribute('aria-label', `${label}, ${plan.size} rows of ${columns}`)

    removeOthers(rows, plan)
    removeOthers(buttons, house.seats)
    for (const [index, [letter, seats]] of [...plan].entries()) {
      const row = rows.get(letter) ?? createRow(letter)
      rows.set(letter, row)
      if (map.children[index] !== row) map.insertBefore(row, map.children[index] ?? null)
      fillRow(row, letter, seats, columns)
    }
    if (!buttons.has(cursor)) moveCursor(buttons.keys().next().value ?? '')
  }

  /**
   * @param {HTMLElement} row
   * @param {string} letter
   * @param {{ name: string, number: number }[]} seats
   * @param {number} columns
   */
  function fillRow(row, letter, seats, columns) {
    const [first, last] = /** @type {NodeListOf<HTMLElement>} */ (row.querySelectorAll('span'))
    const left = Math.ceil(columns / 2)
    /** @type {Element} */
    let previous = first
    for (const { name, number } of seats.sort((a, b) => a.number - b.number)) {
      const button = buttons.get(name) ?? createSeat(name, letter, number)
      buttons.set(name, button)
      const side = columns > 1 ? (2 * number - columns - 1) / (columns - 1) : 0
      button.style.gridColumn = String(number + (number > left ? 2 : 1))
      button.style.setProperty('--bow', (side * side).toFixed(3))
      if (previous.nextElementSibling !== button) previous.after(button)
      previous = button
    }
    last.style.gridColumn = '-2'
  }

  /** @param {House} house */
  function draw(house) {
    for (const name of buttons.keys()) drawSeat(house, name)
  }

  /** @param {House} house @param {string} name */
  function drawSeat(house, name) {
    const button = buttons.get(name)
    const state = seatState(house, name)
    if (!button || button.dataset.state === state) return
    button.dataset.state = state
    if (state === 'free') button.classList.remove('just', 'lost')
    button.setAttribute('aria-label', `${button.dataset.place}, ${WORDS[state]}`)
    // Not `disabled`: a focused seat that is sold meanwhile must not lose the focus.
    button.setAttribute('aria-disabled', String(state !== 'free'))
  }

  /**
   * Highlights a seat for a moment: it was 'just' sold elsewhere, or 'lost' to a faster buyer.
   *
   * @param {string} name
   * @param {'just' | 'lost'} kind
   */
  function mark(name, kind) {
    const button = buttons.get(name)
    if (!button) return
    const ring = document.createElement('i')
    button.classList.remove(kind)
    void button.offsetWidth // restarts the animation
    button.classList.add(kind)
    button.append(ring)
    setTimeout(() => {
      ring.remove()
      if (!button.querySelector('i')) button.classList.remove('just', 'lost')
    }, MARK_MS)
  }

  /**
   * Shows a text at a seat, for the eye only: a screen reader reads the news.
   *
   * @param {string} name
   * @param {string} text
   */
  function showBubble(name, text) {
    const seat = buttons.get(name)?.getBoundingClientRect()
    const frame = map.parentElement
    if (!seat || !frame) return
    frame.querySelector('.bubble')?.remove()
    const bubble = document.createElement('div')
    bubble.className = 'bubble'
    bubble.setAttribute('aria-hidden', 'true')
    bubble.textContent = text
    frame.append(bubble)
    const around = frame.getBoundingClientRect()
    const middle = seat.left + seat.width / 2 - around.left
    const rightmost = around.width - bubble.offsetWidth - 6
    const left = Math.max(6, Math.min(middle - bubble.offsetWidth / 2, rightmost))
    bubble.style.left = `${left}px`
    bubble.style.top = `${seat.top - around.top - bubble.offsetHeight - 3}px`
    bubble.style.setProperty('--tip', `${middle - left}px`)
    setTimeout(() => bubble.remove(), BUBBLE_MS)
  }

  /** @param {(name: string) => void} callback called with the seat that is clicked */
  function onClick(callback) {
    map.addEventListener('click', event => {
      const name = /** @type {Element} */ (event.target).closest('button')?.dataset.seat
      if (name) callback(name)
    })
  }

  /** @param {string} name */
  function moveCursor(name) {
    const old = buttons.get(cursor)
    const now = buttons.get(name)
    if (old) old.tabIndex = -1
    if (now) now.tabIndex = 0
    cursor = name
  }
}

/** @param {House} house @param {number} seatsPerRow */
function planOf(house, seatsPerRow) {
  /** @type {Map<string, { name: string, number: number }[]>} */
  const plan = new Map()
  let columns = seatsPerRow || 1
  for (const name of house.seats.keys()) {
    const [, letter = '', digits = ''] = /^(.*?)(\d+)$/.exec(name) ?? [name, name, '1']
    const number = Number(digits)
    columns = Math.max(columns, number)
    plan.set(letter, [...(plan.get(letter) ?? []), { name, number }])
  }
  return { plan, columns }
}

/** @param {Map<string, Element>} elements @param {Map<string, unknown>} kept */
function removeOthers(elements, kept) {
  for (const [name, element] of elements) {
    if (kept.has(name)) continue
    element.remove()
    elements.delete(name)
  }
}

/** @param {string} letter */
function createRow(letter) {
  const row = document.createElement('div')
  row.className = 'row'
  row.setAttribute('role', 'group')
  row.setAttribute('aria-label', `Row ${letter}`)
  for (let end = 0; end < 2; end++) {
    const label = document.createElement('span')
    label.setAttribute('aria-hidden', 'true')
    label.textContent = letter
    row.append(label)
  }
  return row
}

/** @param {string} name @param {string} letter @param {number} number */
function createSeat(name, letter, number) {
  const button = document.createElement('button')
  button.type = 'button'
  button.className = 'seat'
  button.tabIndex = -1
  button.dataset.seat = name
  button.dataset.number = String(number)
  button.dataset.place = `Row ${letter}, seat ${number}`
  button.textContent = String(number)
  return button
}

/** @param {Element | null} row @returns {HTMLButtonElement[]} */
const seatsOf = row => [...(row?.querySelectorAll('button') ?? [])]

/**
 * Returns the seat of another row that is nearest to a seat, the left one of two.
 *
 * @param {HTMLButtonElement} from
 * @param {Element | null} row
 */
function nearest(from, row) {
  /** @param {HTMLButtonElement} seat */
  const distance = seat => Math.abs(Number(seat.dataset.number) - Number(from.dataset.number))
  const [first, ...others] = seatsOf(row)
  return others.reduce((best, seat) => (distance(best) <= distance(seat) ? best : seat), first)
}

/** @param {KeyboardEvent} event */
function moveFocus(event) {
  const button = /** @type {HTMLElement} */ (event.target).closest('button')
  const row = button?.parentElement
  if (!button || !row || event.ctrlKey || event.altKey || event.metaKey) return
  const seats = seatsOf(row)
  const at = seats.indexOf(button)
  /** @type {Record<string, HTMLButtonElement | undefined>} */
  const targets = {
    ArrowLeft: seats[at - 1],
    ArrowRight: seats[at + 1],
    ArrowUp: nearest(button, row.previousElementSibling),
    ArrowDown: nearest(button, row.nextElementSibling),
    Home: seats[0],
    End: seats.at(-1),
  }
  if (!(event.key in targets)) return
  event.preventDefault()
  targets[event.key]?.focus()
}
