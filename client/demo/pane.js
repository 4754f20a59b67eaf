// One of the two panes: shows the seats of a cinema, sells them, and fetches them again after a
// refresh. Alone it is a browser with an EventSource of its own; otherwise it is told of refreshes by
// `joint.js`. Does not know how refreshes travel: /client/index.js does.

import { onRefresh } from '/client/index.js'
import { getSeats, sell } from './box_office.js'
import { countSeats, createHouse, seatState, tick, update } from './house.js'
import { $, newName } from './page.js'
import { createMap } from './seats.js'
import { createSession } from './session.js'

/** @import { Refresh, State } from '/client/index.js' */
/** @import { Answer, House, Seat } from './house.js' */

/**
 * A notification on its way to one browser. The backend's times are by its own clock.
 *
 * @typedef {object} Trip
 * @property {string} [by] who caused it
 * @property {string} [seat] the seat that was sold
 * @property {number} [soldAt] the time of the commit
 * @property {number} [postedAt] the time of POST /notify
 * @property {string} id of the event
 * @property {string} text of the event: the notification as it was posted
 * @property {number} arrivedAt the time at which the refresh arrived here
 * @property {number} [fetchedAt]
 * @property {number} [drawnAt]
 *
 * @typedef {object} Options
 * @property {string} label how the browser is called, when it is one of its own
 * @property {boolean} hasTokens whether the service expects a token
 * @property {(trip: Trip) => void} onTrip called whenever a trip has come further
 * @property {(count: any) => void} onCount called with the `data` of a notification about the crowd
 */

const RETRY_MS = [1_000, 2_000, 4_000, 8_000]
/** @type {Record<State, string>} */
const STATES = {
  connecting: 'Connecting…',
  open: 'Live',
  polling: 'Polling',
  refused: 'Refused',
  closed: 'Closed',
}

/** @param {HTMLElement} root @param {Options} options */
export function createPane(root, { label, hasTokens, onTrip, onCount }) {
  const by = newName(root.id)
  root.append(/** @type {HTMLTemplateElement} */ ($('pane')).content.cloneNode(true))
  const map = createMap(part('map'))
  const session = hasTokens ? createSession(part, { start, stop: () => shown.stop() }) : undefined
  /** @type {House} the one on screen */
  let shown
  /** @type {Trip | undefined} the newest one */
  let trip

  map.onClick(name => {
    const state = seatState(shown, name)
    if (state === 'free') void buy(name)
    else if (state !== 'pending') map.showBubble(name, state === 'mine' ? 'Yours' : 'Sold')
  })

  return { by, enter, enterAs, leave, sellAny, showState, refresh }

  /** @param {string} name @returns {HTMLElement} */
  function part(name) {
    return /** @type {HTMLElement} */ (root.querySelector(`[data-part=${name}]`))
  }

  /** @param {string} text @param {'alarm' | 'plain'} kind */
  function tell(text, kind = 'plain') {
    part('news').textContent = text
    part('news').dataset.kind = kind
  }

  // -------------------------------------------------------------- the cinema and its refreshes

  /**
   * Leaves the cinema on screen, if there is one, and shows another, as a browser of its own.
   *
   * @param {string} id the merchant ID
   */
  function enter(id) {
    enterAs(by, id, label)
    if (!session?.hasEnded()) start()
  }

  /**
   * Shows a cinema of which the pane is told by somebody else.
   *
   * @param {string} buyer the name under which the pane buys
   * @param {string} id the merchant ID
   * @param {string} title
   */
  function enterAs(buyer, id, title) {
    leave()
    shown = createHouse(id, buyer)
    root.setAttribute('aria-label', title)
    part('label').textContent = title
    map.name(`Seats in ${title}`)
    tell('')
  }

  function leave() {
    shown?.stop()
    clearTimeout(shown?.retry)
  }

  function start() {
    const house = shown
    house.stop() // an event stream that is replaced
    house.stop = onRefresh(
      `/events?merchant_id=${encodeURIComponent(house.id)}`,
      async call => {
        const latest = trip
        await refresh(call)
        if (latest && !latest.fetchedAt && call.reason === undefined) finish(latest)
      },
      {
        by,
        EventSource: /** @type {any} */ (openSource), // a function can be called with new
        onState: state => house === shown && showState(state),
        ...(session && { token: () => session.token(house.id) }),
      },
    )
    // Seats are sold without the event stream as well, so the first load does not wait for it.
    void loadUntilAnswered(house)
  }

  /** Fetches and shows what a call is for; fails if a request does. @param {Refresh} call */
  async function refresh({ topics, data }) {
    if (!topics || topics.includes('seats')) tellOfSales(await load(shown))
    else if (data) onCount(data) // of several merged counts there is none: the next one tells
  }

  /** @param {State} state of the event stream */
  function showState(state) {
    const isAgain = state === 'connecting' && shown.wasOpen
    shown.wasOpen ||= state === 'open'
    part('state').dataset.state = state
    part('state').textContent = isAgain ? 'Reconnecting…' : STATES[state]
  }

  // -------------------------------------------------------------- the trace

  /**
   * The browser's own EventSource, at whose events this page looks as well.
   *
   * @param {string} url
   * @param {EventSourceInit} [init]
   */
  function openSource(url, init) {
    const source = new EventSource(url, init)
    source.addEventListener('refresh', observe)
    source.addEventListener('goodbye', ({ data }) => session?.handleGoodbye(JSON.parse(data)))
    return source
  }

  /** @param {MessageEvent} event */
  function observe({ data: text, lastEventId: id }) {
    const { topic, by: buyer, data, reason } = JSON.parse(text)
    if (buyer === by || reason !== undefined || topic === 'crowd') return
    const { seat, sold_at_ms: soldAt, posted_at_ms: postedAt } = data ?? {}
    trip = { by: buyer, seat, soldAt, postedAt, id, text, arrivedAt: Date.now() }
    onTrip(trip)
  }

  /** @param {Trip} latest whose seats have been fetched */
  function finish(latest) {
    latest.fetchedAt = Date.now()
    onTrip(latest)
    afterPaint(() => {
      latest.drawnAt = Date.now()
      onTrip(latest)
    })
  }

  // -------------------------------------------------------------- the box office

  /**
   * Requests the seats and draws them. Returns the seats that others have bought since the last
   * time.
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
      part('notice').hidden = true
      return apply(house, answer, began)
    } catch (error) {
      if (house === shown) part('notice').hidden = false
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
   * Draws an answer of the box office. Returns the sales to others.
   *
   * @param {House} house
   * @param {Answer} answer
   * @param {number} began
   */
  function apply(house, answer, began) {
    const { sales, own, freed } = update(house, answer, began)
    part('film').textContent = answer.film
    part('starts').textContent = answer.starts
    map.build(house, answer.seats_per_row)
    draw(house)
    sales.forEach(({ seat }) => map.mark(seat, 'just'))
    own.forEach(({ seat }) => tell(`${seat} is yours: the sale had gone through`))
    if (freed > 0) tell(freed === 1 ? '1 seat is free again' : `${freed} seats are free again`)
    return sales
  }

  /** @param {House} house */
  function draw(house) {
    map.draw(house)
    for (const [state, count] of Object.entries(countSeats(house))) {
      part(state).textContent = String(count)
    }
  }

  /** @param {Seat[]} sales to others */
  function tellOfSales(sales) {
    const last = sales.at(-1)?.seat
    if (sales.length === 1) tell(`${last} was sold elsewhere`)
    else if (last) tell(`${sales.length} seats were sold elsewhere, ${last} last`)
  }

  /**
   * Buys a seat. It is pending until the box office has answered.
   *
   * @param {string} name
   */
  async function buy(name) {
    const house = shown
    house.pending.add(name)
    map.drawSeat(house, name)
    const result = await sell(house.id, name, house.by)
    house.pending.delete(name)
    if (house !== shown) return

    if (result?.ok) {
      const sale = { seat: name, sold: true, by: house.by, changed: tick() }
      house.seats.set(name, { ...result.answer, ...sale })
      tell(`You bought ${name}`)
    } else if (result?.status === 409) {
      house.seats.set(name, { ...house.seats.get(name), seat: name, sold: true, changed: tick() })
      map.mark(name, 'lost')
      map.showBubble(name, 'Somebody was faster')
      tell(`Somebody was faster: ${result.answer.detail ?? name}`, 'alarm')
    } else {
      map.showBubble(name, 'Not sold')
      if (result) tell(`${name} was not sold: the box office answered ${result.status}`, 'alarm')
      else tell(`No answer about ${name}: asking again`, 'alarm')
    }
    draw(house)
    if (!result?.ok) void loadUntilAnswered(house)
  }

  /** Buys any seat that is free, as a visitor would; returns whether there was one. */
  function sellAny() {
    const free = [...shown.seats.keys()].filter(name => seatState(shown, name) === 'free')
    if (session?.hasEnded() || free.length === 0) return false
    void buy(free[Math.floor(Math.random() * free.length)])
    return true
  }
}

/**
 * Calls back as soon as what is drawn now is on the screen; never, if the page is hidden before, as
 * a hidden page paints nothing.
 *
 * @param {() => void} callback
 */
function afterPaint(callback) {
  const hidden = new AbortController()
  const { signal } = hidden
  document.addEventListener('visibilitychange', () => hidden.abort(), { once: true, signal })
  // The callback of the second frame runs after the first is painted.
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      if (!signal.aborted) callback()
      hidden.abort()
    }),
  )
}
