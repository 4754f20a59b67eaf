// Both cinemas on one stream: a visitor who looks at both has one EventSource, in all windows of this
// browser together. Shows which window has it, and what each call was for.

import { onRefresh } from '/client/index.js'
import { $, newName } from './page.js'

/** @import { Refresh, State } from '/client/index.js' */
/** @import { createPane } from './pane.js' */

const MAX_LINES = 7

/** @param {Map<string, { title: string, pane: ReturnType<typeof createPane> }>} halls by merchant ID */
export function createJoint(halls) {
  const by = newName('visitor')
  /** @type {EventSource | undefined} the newest one of this window */
  let source
  let stop = () => {}

  return { by, enter, leave }

  function enter() {
    for (const [id, { title, pane }] of halls) pane.enterAs(by, id, title)
    $('calls').replaceChildren()
    const url = `/events?${[...halls.keys()].map(id => `merchant_id=${id}`).join('&')}`
    stop = onRefresh(url, call, {
      by,
      // Who is logged in: nobody, in this demo, so that all windows of the browser are one visitor.
      share: 'anybody',
      firstCallMs: 0, // the seats are loaded at once, whether push answers or not
      onState: showState,
      EventSource: /** @type {any} */ (openSource), // a function can be called with new
    })
  }

  function leave() {
    stop()
  }

  /** If a request fails, so does this callback, and onRefresh repeats the call. @param {Refresh} refresh */
  async function call(refresh) {
    const hall = halls.get(refresh.merchantId ?? '')
    if (!hall) return
    note(hall.title, refresh)
    showRole()
    await hall.pane.refresh(refresh)
  }

  /** @param {State} state */
  function showState(state) {
    for (const { pane } of halls.values()) pane.showState(state)
    showRole()
  }

  function showRole() {
    const isOwn = source && source.readyState !== EventSource.CLOSED
    $('role').textContent = isOwn
      ? 'This window has the stream; other windows hear from it.'
      : 'Another window has the stream, and tells this one.'
  }

  /**
   * @param {string} url
   * @param {EventSourceInit} [init]
   */
  function openSource(url, init) {
    source = new EventSource(url, init)
    return source
  }

  /** Writes a line for a call, the newest first. @param {string} title @param {Refresh} refresh */
  function note(title, { topics, reason, id }) {
    const line = document.createElement('li')
    const what = document.createElement('b')
    what.textContent = title
    const why = document.createElement('p')
    why.textContent = reason ?? topics?.join(', ') ?? 'everything'
    const position = document.createElement('code')
    position.textContent = id === undefined ? 'no ID yet' : `id: ${id}`
    line.append(what, why, position)
    $('calls').prepend(line)
    while ($('calls').children.length > MAX_LINES) $('calls').lastElementChild?.remove()
  }
}
