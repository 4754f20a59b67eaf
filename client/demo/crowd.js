// The crowd, counted: how many simulated browsers the newest sale has reached, and how fast.

import { $, inWords } from './page.js'

const MAX_DOTS = 240
const WAVE_MS = 500

/**
 * The count of one sale, as the crowd measured it.
 *
 * @typedef {object} Count
 * @property {number} refreshed browsers of this cinema
 * @property {number} listening browsers of this cinema
 * @property {number} elsewhere browsers of the other cinemas
 * @property {number} median_ms
 * @property {number} last_ms
 */

/** @param {number} value */
const written = value => value.toLocaleString('en')

/** @param {number} buyers in all cinemas */
export function createCrowd(buyers) {
  const dots = $('dots')
  $('crowd').hidden = buyers === 0
  $('history').hidden = buyers > 0
  $('reached').textContent = `${written(buyers)} simulated browsers of both cinemas connect.`

  return { show }

  /** @param {Count} count of the cinema on screen */
  function show({ refreshed, listening, elsewhere, last_ms, median_ms }) {
    $('refreshed').textContent = `${written(refreshed)} of ${written(listening)}`
    $('reached').textContent =
      `Median ${inWords(median_ms)}, the last after ${inWords(last_ms)}. ${written(elsewhere)} ` +
      'at the other cinema received nothing.'
    const perDot = Math.max(1, Math.ceil(listening / MAX_DOTS))
    const count = Math.ceil(listening / perDot)
    while (dots.children.length > count) dots.lastElementChild?.remove()
    while (dots.children.length < count) dots.append(document.createElement('i'))
    for (let index = 0; index < count; index++) {
      const dot = /** @type {HTMLElement} */ (dots.children[index])
      dot.classList.toggle('refreshed', index * perDot < refreshed)
      dot.style.animationDelay = `${Math.round(Math.random() * WAVE_MS)}ms`
    }
    dots.classList.remove('wave')
    void dots.offsetWidth // restarts the animation
    dots.classList.add('wave')
  }
}
