// The ticket: how long sales in other windows take to this screen.

import { addNews, addTime } from './news.js'
import { $ } from './page.js'

/** @import { Seat } from './house.js' */

const MAX_MEASURES = 20
const BAR_HEIGHT = 40

/** @type {number[]} in milliseconds, the newest last */
const measures = []

/**
 * Adds the sales of others to the news, and measures the newest one from the box office to this
 * screen.
 *
 * The server's clock times the sale and the browser's clock the screen: only on one machine they
 * are the same clock. A hidden page paints nothing, so nothing is measured there.
 *
 * @param {Seat[]} sales
 * @param {{ seat?: string, sold_at_ms?: number } | undefined} data of the refresh about the sales
 * @param {() => boolean} isShown whether the page still shows the cinema of these sales
 */
export function measure(sales, data, isShown) {
  if (sales.length === 0) return
  const newest =
    sales.find(sale => sale.seat === data?.seat) ??
    sales.reduce((a, b) => ((b.sold_at_ms ?? 0) > (a.sold_at_ms ?? 0) ? b : a))
  const soldAt = (newest.seat === data?.seat && data?.sold_at_ms) || newest.sold_at_ms
  const line = addNews(
    sales.length === 1
      ? `${newest.seat} sold in another window`
      : `${sales.length} seats sold in other windows, ${newest.seat} last`,
  )
  if (soldAt === undefined || document.hidden) return

  const hidden = new AbortController()
  const { signal } = hidden
  document.addEventListener('visibilitychange', () => hidden.abort(), { once: true, signal })
  // The callback of the second frame runs after the first, with the redrawn seat, is painted.
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      const ms = Date.now() - soldAt
      if (signal.aborted || !isShown() || ms < 0) return
      hidden.abort()
      addTime(line, ', on this screen ', `${ms} ms later`)
      measures.push(ms)
      if (measures.length > MAX_MEASURES) measures.shift()
      showMeasures()
    }),
  )
}

function showMeasures() {
  const count = measures.length
  $('latency').textContent = String(measures.at(-1))
  $('latency').parentElement?.removeAttribute('data-none')
  $('median').textContent =
    count === 1
      ? 'First measurement. Sell another seat.'
      : `Median of the last ${count}: ${median(measures)} ms`
  const highest = Math.max(20, ...measures)
  for (const [index, bar] of [...$('spark').children].entries()) {
    const at = index - (MAX_MEASURES - count)
    const height = at < 0 ? 1.5 : Math.max(3, (measures[at] / highest) * BAR_HEIGHT)
    bar.setAttribute('height', String(height))
    bar.setAttribute('y', String(BAR_HEIGHT - height))
    bar.setAttribute('class', at < 0 ? '' : at === count - 1 ? 'newest' : 'value')
  }
}

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : Math.round((sorted[middle - 1] + sorted[middle]) / 2)
}

/** Draws one flat bar for each measure that is still to come. */
export function drawBars() {
  for (let index = 0; index < MAX_MEASURES; index++) {
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect')
    const attributes = { x: index * 10 + 1.5, y: BAR_HEIGHT - 1.5, width: 7, height: 1.5 }
    for (const [name, value] of Object.entries(attributes)) bar.setAttribute(name, String(value))
    $('spark').append(bar)
  }
}
