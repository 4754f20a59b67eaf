// The demo's page: two browsers of one cinema side by side, and what passes between them; or both
// cinemas on one stream.

import { getAbout, reset } from './box_office.js'
import { createCrowd } from './crowd.js'
import { createJoint } from './joint.js'
import { $ } from './page.js'
import { createPane } from './pane.js'
import { createShow } from './show.js'
import { drawBars, showTrip } from './trace.js'

/** @import { Trip } from './pane.js' */

const BOTH = 'both'

const links = /** @type {HTMLAnchorElement[]} */ ([...document.querySelectorAll('#cinemas a')])
const askedAt = Date.now()
const about = await getAbout()
const answeredAt = Date.now()
const aheadMs = clockAheadMs(about.now_ms)

// Here a token is for one cinema, so that each browser can be logged out of it.
if (about.tokens) links.splice(links.findIndex(isBoth), 1)[0].hidden = true

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

const titles = new Map(links.map(link => [link.dataset.cinema ?? '', link.textContent ?? '']))
const joint = createJoint(
  new Map([
    ['roxy', { title: titles.get('roxy') ?? '', pane: left }],
    ['lumiere', { title: titles.get('lumiere') ?? '', pane: right }],
  ]),
)

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

/** @param {HTMLElement} link */
function isBoth(link) {
  return link.dataset.cinema === BOTH
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
  const isJoint = id === BOTH
  document.body.dataset.shows = isJoint ? 'both' : 'one'
  $('curl').textContent =
    `curl ${location.origin}/notify -H 'Content-Type: application/json' \\\n` +
    `  -d '{"merchant_id": "${isJoint ? 'lumiere' : id}"}'`
  $('listen').textContent = isJoint
    ? "'/events?merchant_id=roxy&merchant_id=lumiere'"
    : `'/events?merchant_id=${id}'`
  joint.leave()
  if (isJoint) return joint.enter()
  left.enter(id)
  right.enter(id)
}

function leave() {
  if (cinemaOf(location) === BOTH) return // windows share: no connection is saved
  left.leave()
  right.leave()
}

for (const link of links) {
  link.addEventListener('click', event => {
    const { button, ctrlKey, metaKey, shiftKey, altKey } = event
    if (button !== 0 || ctrlKey || metaKey || shiftKey || altKey) return // opens a tab or window
    event.preventDefault()
    if (cinemaOf(new URL(link.href)) === cinemaOf(location)) return
    show.stop()
    history.pushState(null, '', link.href)
    enter()
  })
}

addEventListener('popstate', enter)
// Over HTTP/1.1 all tabs of a browser have six connections to this origin, and each page takes two.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) leave()
  else if (cinemaOf(location) !== BOTH) enter()
})
$('left').addEventListener('click', () => show.stop())
$('right').addEventListener('click', () => show.stop())
$('reset').addEventListener('click', () => {
  const id = cinemaOf(location)
  for (const house of id === BOTH ? ['roxy', 'lumiere'] : [id]) void reset(house, 'the page')
})

drawBars()
if (about.crowd > 0) {
  $('show').hidden = true // the crowd sells
  // A screen reader would read nothing else any more.
  for (const news of document.querySelectorAll('.news')) news.setAttribute('aria-live', 'off')
}
enter()
const isStill = matchMedia('(prefers-reduced-motion: reduce)').matches
if (about.crowd === 0 && !isStill) show.start()
