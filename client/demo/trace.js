// Between the two browsers: the POST and the refresh of the newest notification, and how long each
// took. Does not know where a trip comes from.

import { $, inWords } from './page.js'

/** @import { Trip } from './pane.js' */

const MAX_MEASURES = 24
const BAR_HEIGHT = 36

/** @type {number[]} in milliseconds, the newest last */
const measures = []
/** @type {Trip | undefined} the one on screen */
let shown

/**
 * Shows how far a trip has come.
 *
 * @param {Trip} trip
 * @param {{ from: string, to: string }} browsers how they are called
 * @param {number} aheadMs how far the backend's clock is ahead of this one
 */
export function showTrip(trip, { from, to }, aheadMs) {
  if (trip !== shown) begin(trip, from, to)
  const start = trip.soldAt === undefined ? trip.arrivedAt : trip.soldAt - aheadMs
  const posted = trip.postedAt === undefined ? undefined : trip.postedAt - aheadMs
  showTime('sold', trip.soldAt === undefined ? undefined : start, start)
  showTime('post', posted, start)
  showTime('refresh', trip.arrivedAt, start)
  showTime('fetch', trip.fetchedAt, start)
  showTime('drawn', trip.drawnAt, start)
  // A sale without a time, and clocks that differ, are not measured.
  if (trip.drawnAt === undefined || trip.soldAt === undefined || start > trip.arrivedAt) return
  measures.push(trip.drawnAt - start)
  if (measures.length > MAX_MEASURES) measures.shift()
  showMeasures()
}

/** @param {Trip} trip @param {string} from @param {string} to */
function begin(trip, from, to) {
  shown = trip
  $('what').textContent = trip.seat === undefined ? 'A change' : `${trip.seat} sold`
  $('from').textContent = from
  for (const element of document.querySelectorAll('.to')) element.textContent = to
  $('body').textContent = withoutTimes(trip.text)
  $('event').textContent = `id: ${trip.id}`
  $('trace').classList.remove('passing')
  void $('trace').offsetWidth // restarts the animation
  $('trace').classList.add('passing')
}

/** @param {string} text JSON, whose times stand beside the steps */
function withoutTimes(text) {
  const hide = (/** @type {string} */ key, /** @type {unknown} */ value) =>
    key.endsWith('_at_ms') ? undefined : value
  return JSON.stringify(JSON.parse(text), hide, 1).replace(/\s+/g, ' ')
}

/** @param {string} step @param {number | undefined} at @param {number} start */
function showTime(step, at, start) {
  const row = $(`step-${step}`)
  row.classList.toggle('done', at !== undefined)
  const time = /** @type {HTMLElement} */ (row.querySelector('.time'))
  time.textContent = at === undefined ? '' : at === start ? '0 ms' : `+${inWords(at - start)}`
}

function showMeasures() {
  const [newest] = measures.slice(-1)
  const sorted = [...measures].sort((a, b) => a - b)
  const half = sorted.length / 2
  const middle = Math.round((sorted[Math.floor(half - 0.5)] + sorted[Math.floor(half)]) / 2)
  $('latency').textContent = String(newest)
  $('median').textContent =
    measures.length === 1 ? 'the first one' : `median of ${measures.length}: ${inWords(middle)}`
  const highest = Math.max(20, ...measures)
  for (const [index, bar] of [...$('spark').children].entries()) {
    const value = measures[index - (MAX_MEASURES - measures.length)] ?? 0
    const height = Math.max(2, (value / highest) * BAR_HEIGHT)
    bar.setAttribute('height', String(height))
    bar.setAttribute('y', String(BAR_HEIGHT - height))
    bar.classList.toggle('value', value > 0)
  }
}

/** Draws one flat bar for each measure that is still to come. */
export function drawBars() {
  for (let index = 0; index < MAX_MEASURES; index++) {
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect')
    const attributes = { x: index * 10 + 1.5, y: BAR_HEIGHT - 2, width: 7, height: 2 }
    for (const [name, value] of Object.entries(attributes)) bar.setAttribute(name, String(value))
    $('spark').append(bar)
  }
}
