// The crowd, counted: how many simulated browsers the newest sale has reached, and how fast.

import { $, inWords } from './page.js'

const MAX_DOTS = 240
const WAVE_MS = 500

/** @typedef {{ seat: string, refreshed: number, listening: number, last_ms: number, median_ms: number }} Count */

/** @param {number} value */
const written = value => value.toLocaleString('en')

/** @param {number} buyers in all cinemas */
export function createCrowd(buyers) {
  const dots = $('dots')
  $('crowd').hidden = buyers === 0
  $('history').hidden = buyers > 0
  $('reached').textContent = `${written(buyers)} simulated browsers of both cinemas connect.`
  if (buyers > 0) {
    // A screen reader would read nothing else any more.
    for (const news of document.querySelectorAll('.news')) news.setAttribute('aria-live', 'off')
  }

  return { show }

  /** @param {Count} count of the cinema on screen */
  function show({ refreshed, listening, last_ms, median_ms }) {
    $('refreshed').textContent = `${written(refreshed)} of ${written(listening)}`
    $('reached').textContent =
      `Median ${inWords(median_ms)}, the last after ${inWords(last_ms)}. The crowd’s other ` +
      `${written(buyers - listening)} received nothing.`
    const perDot = Math.ceil(listening / MAX_DOTS)
    const count = Math.ceil(listening / perDot)
    while (dots.children.length > count) dots.lastElementChild?.remove()
    while (dots.children.length < count) dots.append(document.createElement('i'))
    for (const [index, dot] of [
      .../** @type {NodeListOf<HTMLElement>} */ (dots.querySelectorAll('i')),
    ].entries()) {
      dot.classList.toggle('refreshed', index * perDot < refreshed)
      dot.style.animationDelay = `${Math.round(Math.random() * WAVE_MS)}ms`
    }
    dots.classList.remove('wave')
    void dots.offsetWidth // restarts the animation
    dots.classList.add('wave')
  }
}
