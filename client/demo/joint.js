// Both cinemas on one stream: a visitor who looks at both has one EventSource, in all windows of this
// browser together. Shows which window has it, and what each call was for. The stream comes through
// a proxy, which can be made mute.

import { onRefresh } from '/client/index.js'
import { turnProxy } from './box_office.js'
import { $, newName } from './page.js'

/** @import { Refresh, State } from '/client/index.js' */
/** @import { createPane } from './pane.js' */

const MAX_LINES = 6
const TEXTS = {
  own: 'This window has the stream; other windows hear from it.',
  other: 'Another window has the stream, and tells this one.',
  mute: 'The proxy is mute. After 45 s without any event, and 15 s of a second try, the page polls.',
  polling: 'No event comes through. One window polls for all: a change arrives within 15 s.',
}

/** @param {Map<string, { title: string, pane: ReturnType<typeof createPane> }>} halls by merchant ID */
export function createJoint(halls) {
  const by = newName('visitor')
  /** @type {EventSource | undefined} the newest one of this window */
  let source
  let stop = () => {}
  let isMute = false
  /** @type {State} */
  let state = 'connecting'
  $('mute').addEventListener('click', () => void turn())

  return { by, enter, leave }

  function enter() {
    for (const [id, { title, pane }] of halls) pane.enterAs(by, id, title)
    $('calls').replaceChildren()
    const url = `/proxy/events?${[...halls.keys()].map(id => `merchant_id=${id}`).join('&')}`
    show()
    stop = onRefresh(url, call, {
      by,
      // Who is logged in: nobody, in this demo, so that all windows of the browser are one visitor.
      share: 'anybody',
      firstCallMs: 0, // the seats are loaded at once, whether push answers or not
      onState: showState,
      EventSource: /** @type {any} */ (openSource), // a function can be called with new
      fetch: (url, init) => fetch(url, init), // of a page with an EventSource of its own, for polls
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
    show()
    await hall.pane.refresh(refresh)
  }

  // A stream that stands would be silent for three heartbeats first: a new one shows it sooner.
  async function turn() {
    const answer = await turnProxy(!isMute).catch(() => undefined)
    if (!answer?.ok) return
    isMute = !isMute
    $('mute').textContent = isMute ? 'Let the proxy speak' : 'Make the proxy mute'
    $('mute').setAttribute('aria-pressed', String(isMute))
    leave()
    enter()
  }

  /** @param {State} next */
  function showState(next) {
    state = next
    for (const { pane } of halls.values()) pane.showState(state)
    show()
  }

  function show() {
    const isOwn = source && source.readyState !== EventSource.CLOSED
    if (state === 'polling') $('role').textContent = TEXTS.polling
    else if (isMute && state === 'connecting') $('role').textContent = TEXTS.mute
    else $('role').textContent = isOwn ? TEXTS.own : TEXTS.other
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
