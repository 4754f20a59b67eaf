// The demo's page: draws one cinema's seats, sells them, and redraws when another window sold one.
// It does not know how refreshes travel; that is the job of /client/index.js.

import { onRefresh } from '/client/index.js'

/**
 * @typedef {{seat: string, sold: boolean, by?: string, sold_at_ms?: number, changed?: number}} Seat
 *   `changed` is ours: the tick of `clock` at which this page itself learned it from an answer to a POST
 * @typedef {{merchant_id: string, film: string, starts: string, rows: number, seats_per_row: number, seats: Seat[]}} Answer
 * @typedef {{id: string, name: string, seats: Map<string, Seat>, pending: Set<string>, loaded: boolean,
 *   applied: number, wasOpen: boolean, heardAt: number, retry: number, stop: () => void}} House
 */

// One name per page load, not per browser: a duplicated tab must not take our refreshes for its own.
const me =
  'tab-' + (crypto.randomUUID?.() ?? Math.random().toString(36).slice(2) + Date.now().toString(36))

const ANSWER_WITHIN_MS = 8000
const RETRY_MS = [1000, 2000, 4000, 8000]
const MEASURES = 20
const NEWS = 6

// `sse-push demo --tokens`: the box office hands out what the service asks for then; 204 if it doesn't.
const getToken = (/** @type {string} */ id) =>
  fetch(`/token?merchant_id=${encodeURIComponent(id)}`, {
    cache: 'no-store',
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
  })
const newToken = async (/** @type {string} */ id) => {
  const response = await getToken(id)
  if (!response.ok) throw new Error(`GET /token answered ${response.status}`)
  return response.text()
}
const hasTokens = await getToken('roxy').then(
  ({ status }) => status === 200,
  () => false,
)

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id))
const map = $('map')
const links = /** @type {HTMLAnchorElement[]} */ ([...document.querySelectorAll('#cinemas a')])

/** @type {Map<string, HTMLButtonElement>} */
const buttons = new Map()
/** @type {Map<string, HTMLElement>} */
const rows = new Map()
/** @type {number[]} */
const measures = []

/** @type {House} */
let house
let clock = 0 // ticks when a request for the seats starts and when a POST's answer changes a seat
let cursor = '' // the seat that Tab reaches

// ---------------------------------------------------------------- the cinema and its refreshes

/** Leave the cinema on screen, if any, and show another. */
function enter(/** @type {string} */ id) {
  house?.stop()
  clearTimeout(house?.retry)
  const name = links.find(link => link.dataset.cinema === id)?.textContent ?? id
  /** @type {House} */
  const entered = {
    id,
    name,
    seats: new Map(),
    pending: new Set(),
    loaded: false,
    applied: 0,
    wasOpen: false,
    heardAt: 0,
    retry: 0,
    stop() {},
  }
  house = entered

  for (const link of links) {
    if (link.dataset.cinema === id) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  $('cinema').textContent = name
  document.title = name
  showState(entered, 'connecting')
  entered.stop = onRefresh(
    `/events?merchant_id=${encodeURIComponent(id)}`,
    async ({ data, reason }) => {
      entered.heardAt = Date.now()
      // If the fetch fails, so does this callback, and onRefresh calls it again.
      const sales = await load(entered)
      if (reason === undefined) measure(entered, sales, data)
      else sales.forEach(sale => tell(`${sale.seat} sold in another window`))
    },
    {
      by: me,
      onState: (/** @type {string} */ state) => showState(entered, state),
      ...(hasTokens && { token: () => newToken(id) }),
    },
  )
  // Don't wait for the stream: the house can be sold without it.
  void loadUntilAnswered(entered)
}

/** Show the state of the event stream: 'connecting', 'open', 'closed' or 'refused'. */
function showState(/** @type {House} */ of, /** @type {string} */ state) {
  if (of !== house) return
  if (state === 'open') {
    of.wasOpen = true
    of.heardAt = Date.now()
  }
  const words = {
    open: 'Live',
    connecting: of.wasOpen ? 'Reconnecting…' : 'Connecting…',
    closed: 'Closed',
    refused: 'Refused',
  }
  const pill = $('state')
  pill.dataset.state = state
  pill.textContent = words[/** @type {keyof words} */ (state)] ?? state
  showAge()
}

function showAge() {
  const seconds = Math.floor((Date.now() - house.heardAt) / 1000)
  $('age').hidden = $('state').dataset.state !== 'open'
  $('age').textContent =
    'last heard ' +
    (seconds < 2
      ? 'just now'
      : seconds < 120
        ? `${seconds} s ago`
        : `${Math.floor(seconds / 60)} min ago`)
}

// ---------------------------------------------------------------- the box office

/**
 * Fetch the seats and draw them.
 *
 * Answers may overtake each other: one that was asked for before the answer on screen is dropped, and
 * a seat that a POST's answer changed since is kept.
 *
 * @param {House} of
 * @returns {Promise<Seat[]>} the seats that others have sold since the last time
 */
async function load(of) {
  const began = ++clock
  try {
    const response = await fetch(`/seats?merchant_id=${encodeURIComponent(of.id)}`, {
      cache: 'no-store',
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    })
    if (!response.ok) throw new Error(`GET /seats answered ${response.status}`)
    const answer = /** @type {Answer} */ (await response.json())
    if (of !== house || began < of.applied) return []
    of.applied = began
    $('notice').hidden = true
    return apply(of, answer, began)
  } catch (error) {
    if (of === house) {
      $('notice').textContent = 'The box office does not answer. Trying again…'
      $('notice').hidden = false
    }
    throw error
  }
}

/** Load now and, while that fails, again: for what no refresh will ask for. */
async function loadUntilAnswered(/** @type {House} */ of, failures = 0) {
  clearTimeout(of.retry)
  try {
    await load(of)
  } catch {
    if (of !== house) return
    const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]
    of.retry = setTimeout(() => loadUntilAnswered(of, failures + 1), wait)
  }
}

/** Take over what the box office says, tell what is new but others' sales, and return those. */
function apply(/** @type {House} */ of, /** @type {Answer} */ answer, /** @type {number} */ began) {
  const before = of.seats
  /** @type {Seat[]} */
  const sales = []
  let given = 0
  of.seats = new Map(
    answer.seats.map(seat => {
      const known = before.get(seat.seat)
      if (known?.changed !== undefined && known.changed > began) return [seat.seat, known]
      if (of.loaded && known?.sold && !seat.sold) given++
      // A pending seat's news is what its own POST will answer.
      if (of.loaded && seat.sold && !known?.sold && !of.pending.has(seat.seat)) {
        if (seat.by === me) tell(`${seat.seat} is yours: the sale had gone through`, 'mine')
        else sales.push(seat)
      }
      return [seat.seat, seat]
    }),
  )
  of.loaded = true

  $('film').textContent = answer.film
  $('starts').textContent = answer.starts
  document.title = `${answer.film} · ${of.name}`
  build(answer.seats_per_row)
  draw()
  sales.forEach(sale => mark(sale.seat, 'just'))
  if (given > 0) {
    tell(
      soldCount() === 0
        ? 'Another window emptied the house'
        : `${given} ${given === 1 ? 'seat is' : 'seats are'} free again`,
    )
  }
  return sales
}

/** POST JSON and return the status with the answer, which is {} if it was not JSON. */
async function post(/** @type {string} */ url, /** @type {House} */ of) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ merchant_id: of.id, by: me }),
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
  })
  return {
    ok: response.ok,
    status: response.status,
    answer: await response.json().catch(() => ({})),
  }
}

/** Buy a seat. It is pending, and nothing more, until the box office has answered. */
async function buy(/** @type {string} */ name) {
  const of = house
  of.pending.add(name)
  drawSeat(name)
  const result = await post(`/seats/${encodeURIComponent(name)}/sell`, of).catch(() => null)
  of.pending.delete(name)
  if (of !== house) return

  if (result?.ok) {
    of.seats.set(name, {
      seat: name,
      sold: true,
      by: me,
      sold_at_ms: result.answer.sold_at_ms,
      changed: ++clock,
    })
    tell(`You bought ${name}`, 'mine')
  } else if (result?.status === 409) {
    of.seats.set(name, { ...of.seats.get(name), seat: name, sold: true, changed: ++clock })
    mark(name, 'lost')
    say(name, 'Somebody was faster')
    const line = tell(`Somebody was faster: ${name}`, 'alarm')
    const [earlier] = /[\d.]+ m?s earlier/.exec(result.answer.detail ?? '') ?? []
    if (earlier) add(line, ', ', earlier)
  } else {
    say(name, 'Not sold')
    tell(
      result
        ? `${name} was not sold: the box office answered ${result.status}`
        : `No answer about ${name}: asking again`,
      'alarm',
    )
  }
  draw()
  if (!result?.ok) void loadUntilAnswered(of)
}

async function empty() {
  const of = house
  const button = /** @type {HTMLButtonElement} */ ($('reset'))
  button.setAttribute('aria-disabled', 'true')
  const result = await post('/seats/reset', of).catch(() => null)
  button.removeAttribute('aria-disabled')
  if (of !== house) return
  if (result?.ok) {
    const changed = ++clock
    for (const seat of of.seats.keys()) of.seats.set(seat, { seat, sold: false, changed })
    tell('You emptied the house', 'mine')
    draw()
  } else {
    tell(
      'The house was not emptied: ' +
        (result ? `the box office answered ${result.status}` : 'no answer'),
      'alarm',
    )
  }
  void loadUntilAnswered(of)
}

// ---------------------------------------------------------------- drawing

const stateOf = (/** @type {string} */ name) => {
  const seat = house.seats.get(name)
  return house.pending.has(name)
    ? 'pending'
    : !seat?.sold
      ? 'free'
      : seat.by === me
        ? 'mine'
        : 'sold'
}
const soldCount = () => [...house.seats.values()].filter(seat => seat.sold).length

/** Make the map have exactly the house's rows and seats; those that stay keep their element and focus. */
function build(/** @type {number} */ seatsPerRow) {
  /** @type {Map<string, {name: string, number: number}[]>} */
  const plan = new Map()
  let columns = seatsPerRow || 1
  for (const name of house.seats.keys()) {
    const [, letter = '', digits = ''] = /^(.*?)(\d+)$/.exec(name) ?? [name, name, '1']
    const number = Number(digits)
    columns = Math.max(columns, number)
    plan.set(letter, [...(plan.get(letter) ?? []), { name, number }])
  }
  const left = Math.ceil(columns / 2)
  map.style.setProperty('--left', String(left))
  map.style.setProperty('--right', String(Math.max(1, columns - left)))
  map.setAttribute('aria-label', `Seats, ${plan.size} rows of ${columns}`)

  for (const [letter, row] of rows) {
    if (plan.has(letter)) continue
    row.remove()
    rows.delete(letter)
  }
  for (const [name, button] of buttons) {
    if (house.seats.has(name)) continue
    button.remove()
    buttons.delete(name)
  }
  ;[...plan].forEach(([letter, seats], index) => {
    const row = rows.get(letter) ?? newRow(letter)
    if (map.children[index] !== row) map.insertBefore(row, map.children[index] ?? null)
    const [first, last] = /** @type {NodeListOf<HTMLElement>} */ (row.querySelectorAll('span'))
    seats.sort((one, other) => one.number - other.number)
    /** @type {Element} */
    let previous = first
    for (const { name, number } of seats) {
      const button = buttons.get(name) ?? newSeat(name, letter, number)
      const side = columns > 1 ? (2 * number - columns - 1) / (columns - 1) : 0
      button.style.gridColumn = String(number + (number > left ? 2 : 1))
      button.style.setProperty('--bow', (side * side).toFixed(3))
      if (previous.nextElementSibling !== button) previous.after(button)
      previous = button
    }
    last.style.gridColumn = '-2'
  })
  if (!buttons.has(cursor)) moveCursor(buttons.keys().next().value ?? '')
}

function newRow(/** @type {string} */ letter) {
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
  rows.set(letter, row)
  return row
}

function newSeat(
  /** @type {string} */ name,
  /** @type {string} */ letter,
  /** @type {number} */ number,
) {
  const button = document.createElement('button')
  button.type = 'button'
  button.className = 'seat'
  button.tabIndex = -1
  button.dataset.seat = name
  button.dataset.number = String(number)
  button.dataset.place = `Row ${letter}, seat ${number}`
  button.textContent = String(number)
  buttons.set(name, button)
  return button
}

function draw() {
  for (const name of buttons.keys()) drawSeat(name)
  const seats = [...house.seats.values()]
  const sold = soldCount()
  const mine = seats.filter(seat => seat.sold && seat.by === me).length
  $('free').textContent = String(seats.length - sold)
  $('sold').textContent = String(sold - mine)
  $('mine').textContent = String(mine)
}

function drawSeat(/** @type {string} */ name) {
  const button = buttons.get(name)
  const state = stateOf(name)
  if (!button || button.dataset.state === state) return
  const words = { free: 'free', pending: 'being bought', sold: 'sold', mine: 'yours' }
  button.dataset.state = state
  if (state === 'free') button.classList.remove('just', 'lost')
  button.setAttribute('aria-label', `${button.dataset.place}, ${words[state]}`)
  // Not `disabled`: a seat that is sold under the keyboard's focus must not lose it.
  button.setAttribute('aria-disabled', String(state !== 'free'))
}

/** Let a seat be noticed for a moment: 'just' sold elsewhere, or 'lost' to somebody faster. */
function mark(/** @type {string} */ name, /** @type {string} */ what) {
  const button = buttons.get(name)
  if (!button) return
  const ring = document.createElement('i')
  button.classList.remove(what)
  void button.offsetWidth // restarts the animation
  button.classList.add(what)
  button.append(ring)
  setTimeout(() => {
    ring.remove()
    if (!button.querySelector('i')) button.classList.remove('just', 'lost')
  }, 1400)
}

/** Say something at a seat, for the eye; the news say it to everybody. */
function say(/** @type {string} */ name, /** @type {string} */ text) {
  const seat = buttons.get(name)?.getBoundingClientRect()
  const frame = $('keys').parentElement
  if (!seat || !frame) return
  frame.querySelector('.bubble')?.remove()
  const bubble = document.createElement('div')
  bubble.className = 'bubble'
  bubble.setAttribute('aria-hidden', 'true')
  bubble.textContent = text
  frame.append(bubble)
  const around = frame.getBoundingClientRect()
  const middle = seat.left + seat.width / 2 - around.left
  const left = Math.max(
    6,
    Math.min(middle - bubble.offsetWidth / 2, around.width - bubble.offsetWidth - 6),
  )
  bubble.style.left = `${left}px`
  bubble.style.top = `${seat.top - around.top - bubble.offsetHeight - 3}px`
  bubble.style.setProperty('--tip', `${middle - left}px`)
  setTimeout(() => bubble.remove(), 2600)
}

// ---------------------------------------------------------------- news and measures

/** Put a line on top of the news. Returns it, for what is known only later. */
function tell(/** @type {string} */ text, kind = 'other') {
  const line = document.createElement('li')
  const words = document.createElement('span')
  line.dataset.kind = kind
  words.textContent = text
  line.append(words)
  $('news').prepend(line)
  while ($('news').children.length > NEWS) $('news').lastElementChild?.remove()
  $('hint').hidden = true
  return line
}

/** End a line with a time, at its right edge; `link` is read, not seen. */
function add(
  /** @type {HTMLElement} */ line,
  /** @type {string} */ link,
  /** @type {string} */ time,
) {
  const read = document.createElement('span')
  const seen = document.createElement('span')
  read.className = 'unseen'
  read.textContent = link
  seen.className = 'time'
  seen.textContent = time
  line.firstElementChild?.append(read)
  line.append(seen)
}

/**
 * Tell others' sales and how long the newest took from the box office to this screen.
 *
 * The sale is timed by the server's clock, the screen by ours: one clock only on one machine. A hidden page
 * paints nothing, so nothing is measured there.
 *
 * @param {House} of
 * @param {Seat[]} sales
 * @param {{seat?: string, sold_at_ms?: number} | undefined} data of the refresh that brought them
 */
function measure(of, sales, data) {
  if (sales.length === 0) return
  const newest =
    sales.find(sale => sale.seat === data?.seat) ??
    sales.reduce((one, other) => ((other.sold_at_ms ?? 0) > (one.sold_at_ms ?? 0) ? other : one))
  const soldAt = (newest.seat === data?.seat && data?.sold_at_ms) || newest.sold_at_ms
  const line = tell(
    sales.length === 1
      ? `${newest.seat} sold in another window`
      : `${sales.length} seats sold in other windows, ${newest.seat} last`,
  )
  if (soldAt === undefined || document.hidden) return

  const seen = new AbortController()
  document.addEventListener('visibilitychange', () => seen.abort(), {
    once: true,
    signal: seen.signal,
  })
  // The second frame's callback runs when the first, with the redrawn seat, has been painted.
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      const ms = Date.now() - soldAt
      if (seen.signal.aborted || of !== house || ms < 0) return
      seen.abort()
      add(line, ', on this screen ', `${ms} ms later`)
      measures.push(ms)
      if (measures.length > MEASURES) measures.shift()
      showMeasures()
    }),
  )
}

function showMeasures() {
  const sorted = [...measures].sort((one, other) => one - other)
  const middle = sorted.length >> 1
  const median =
    sorted.length % 2 ? sorted[middle] : Math.round((sorted[middle - 1] + sorted[middle]) / 2)
  const highest = Math.max(20, ...measures)
  $('latency').textContent = String(measures.at(-1))
  $('latency').parentElement?.removeAttribute('data-none')
  $('median').textContent =
    sorted.length === 1
      ? 'The first one. Sell another.'
      : `Median of the last ${sorted.length}: ${median} ms`
  ;[...$('spark').children].forEach((bar, index) => {
    const at = index - (MEASURES - measures.length)
    const height = at < 0 ? 1.5 : Math.max(3, (measures[at] / highest) * 40)
    bar.setAttribute('height', String(height))
    bar.setAttribute('y', String(40 - height))
    bar.setAttribute('class', at < 0 ? '' : at === measures.length - 1 ? 'newest' : 'value')
  })
}

function drawSpark() {
  for (let index = 0; index < MEASURES; index++) {
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect')
    for (const [name, value] of Object.entries({
      x: index * 10 + 1.5,
      y: 38.5,
      width: 7,
      height: 1.5,
    })) {
      bar.setAttribute(name, String(value))
    }
    $('spark').append(bar)
  }
}

// ---------------------------------------------------------------- hands

map.addEventListener('click', event => {
  const name = /** @type {Element} */ (event.target).closest('button')?.dataset.seat
  if (!name) return
  const state = stateOf(name)
  if (state === 'free') void buy(name)
  else if (state !== 'pending') say(name, state === 'mine' ? 'This one is yours' : 'Sold')
})

function moveCursor(/** @type {string} */ name) {
  const old = buttons.get(cursor)
  const now = buttons.get(name)
  if (old) old.tabIndex = -1
  if (now) now.tabIndex = 0
  cursor = name
}

map.addEventListener('focusin', event => {
  moveCursor(/** @type {HTMLElement} */ (event.target).dataset.seat ?? cursor)
})

map.addEventListener('keydown', event => {
  const button = /** @type {HTMLElement} */ (event.target).closest('button')
  const row = button?.parentElement
  if (!button || !row || event.ctrlKey || event.altKey || event.metaKey) return
  const inRow = (/** @type {Element | null} */ of) =>
    /** @type {HTMLButtonElement[]} */ ([...(of?.querySelectorAll('button') ?? [])])
  const nearest = (/** @type {HTMLButtonElement[]} */ seats) => {
    const away = (/** @type {HTMLButtonElement} */ seat) =>
      Math.abs(Number(seat.dataset.number) - Number(button.dataset.number))
    return seats.reduce(
      (/** @type {HTMLButtonElement | undefined} */ best, seat) =>
        best && away(best) <= away(seat) ? best : seat,
      undefined,
    )
  }
  const seats = inRow(row)
  const at = seats.indexOf(button)
  /** @type {Record<string, HTMLButtonElement | undefined>} */
  const to = {
    ArrowLeft: seats[at - 1],
    ArrowRight: seats[at + 1],
    ArrowUp: nearest(inRow(row.previousElementSibling)),
    ArrowDown: nearest(inRow(row.nextElementSibling)),
    Home: seats[0],
    End: seats.at(-1),
  }
  if (!(event.key in to)) return
  event.preventDefault()
  to[event.key]?.focus()
})

$('reset').addEventListener('click', () => {
  if ($('reset').getAttribute('aria-disabled') !== 'true') void empty()
})

$('second').addEventListener('click', () => {
  // On the side of the screen where this window is not.
  const { availWidth, availHeight } = screen
  const from = /** @type {{availLeft?: number, availTop?: number}} */ (
    /** @type {unknown} */ (screen)
  )
  const width = Math.min(720, Math.floor(availWidth / 2))
  const height = Math.min(920, availHeight)
  const start = from.availLeft ?? 0
  const isRight = screenX + outerWidth / 2 - start > availWidth / 2
  const left = isRight ? start : start + availWidth - width
  const opened = open(
    location.href,
    '_blank',
    `popup,width=${width},height=${height},left=${left},top=${from.availTop ?? 0}`,
  )
  if (!opened) tell('The browser kept the window back: open this address in another one', 'alarm')
})

function cinemaOf(/** @type {Location | URL} */ { search }) {
  const id = new URLSearchParams(search).get('cinema') ?? ''
  return links.some(link => link.dataset.cinema === id) ? id : 'roxy'
}

for (const link of links) {
  link.addEventListener('click', event => {
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey)
      return
    event.preventDefault()
    const to = cinemaOf(new URL(link.href))
    if (to === house.id) return
    const left = house.name
    history.pushState(null, '', link.href)
    enter(to)
    tell(`Now at ${house.name}: no sale at ${left} is heard here`, 'plain')
  })
}
addEventListener('popstate', () => {
  if (cinemaOf(location) !== house.id) enter(cinemaOf(location))
})

drawSpark()
enter(cinemaOf(location))
setInterval(showAge, 1000)
