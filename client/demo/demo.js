// The demo's page: two browsers of one cinema side by side, and what passes between them.

import { getAbout, reset } from './box_office.js'
import { createCrowd } from './crowd.js'
import { $ } from './page.js'
import { createPane } from './pane.js'
import { createShow } from './show.js'
import { drawBars, showTrip } from './trace.js'

/** @import { Trip } from './pane.js' */

const links = /** @type {HTMLAnchorElement[]} */ ([...document.querySelectorAll('#cinemas a')])
const askedAt = Date.now()
const about = await getAbout()
const answeredAt = Date.now()
const aheadMs = clockAheadMs(about.now_ms)

const crowd = createCrowd(about.crowd)
const left = createPane($('left'), {
  label: 'Browser 1',
  hasTokens: about.tokens,
  onCount: crowd.show,
  // The trace follows one of the two: this one, if the other has sold.
  onTrip: trip => trip.by === right.by && showTrip(trip, namesOf(trip), aheadMs),
})
const right = createPane($('right'), {
  label: 'Browser 2',
  hasTokens: about.tokens,
  onCount() {}, // the same for both
  onTrip(trip) {
    showTrip(trip, namesOf(trip), aheadMs)
    if (trip.by !== left.by) show.stop() // somebody else sells: in another window, or the crowd
  },
})

let isRightsTurn = false
const show = createShow($('show'), () => {
  isRightsTurn = !isRightsTurn
  return (isRightsTurn ? left : right).sellAny()
})

/** @param {number} now by the backend's clock; 0 if a clock between request and answer agrees */
function clockAheadMs(now) {
  if (askedAt <= now && now <= answeredAt) return 0
  return Math.round(now - (askedAt + answeredAt) / 2)
}

/** @param {Trip} trip */
function namesOf({ by }) {
  if (by === left.by) return { from: 'Browser 1', to: 'Browser 2' }
  if (by === right.by) return { from: 'Browser 2', to: 'Browser 1' }
  return { from: 'Another browser', to: 'Both browsers' }
}

/** @param {Location | URL} address */
function cinemaOf({ search }) {
  const id = new URLSearchParams(search).get('cinema') ?? ''
  return links.some(link => link.dataset.cinema === id) ? id : 'roxy'
}

function enter() {
  const id = cinemaOf(location)
  for (const link of links) {
    if (link.dataset.cinema === id) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  $('curl').textContent =
    `curl ${location.origin}/notify -H 'Content-Type: application/json' \\\n` +
    `  -d '{"merchant_id": "${id}"}'`
  left.enter(id)
  right.enter(id)
}

function leave() {
  left.leave()
  right.leave()
}

for (const link of links) {
  link.addEventListener('click', event => {
    const { button, ctrlKey, metaKey, shiftKey, altKey } = event
    if (button !== 0 || ctrlKey || metaKey || shiftKey || altKey) return // opens a tab or window
    event.preventDefault()
    if (cinemaOf(new URL(link.href)) === cinemaOf(location)) return
    history.pushState(null, '', link.href)
    enter()
  })
}

addEventListener('popstate', enter)
// Over HTTP/1.1 all tabs of a browser have six connections to this origin, and each page takes two.
document.addEventListener('visibilitychange', () => (document.hidden ? leave() : enter()))
$('left').addEventListener('click', () => show.stop())
$('right').addEventListener('click', () => show.stop())
$('reset').addEventListener('click', () => void reset(cinemaOf(location), 'the page'))

drawBars()
if (about.crowd > 0) {
  $('show').hidden = true // the crowd sells
  // A screen reader would read nothing else any more.
  for (const news of document.querySelectorAll('.news')) news.setAttribute('aria-live', 'off')
}
enter()
const isStill = matchMedia('(prefers-reduced-motion: reduce)').matches
if (about.crowd === 0 && !isStill) show.start()
