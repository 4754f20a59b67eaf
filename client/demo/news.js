// The list of news: one line for each thing that happened, the newest on top.

import { $ } from './page.js'

const MAX_LINES = 6

/**
 * Adds a line of news, and returns it for `addTime`.
 *
 * @param {string} text
 * @param {'other' | 'mine' | 'alarm' | 'plain'} kind
 */
export function addNews(text, kind = 'other') {
  const line = document.createElement('li')
  const words = document.createElement('span')
  line.dataset.kind = kind
  words.textContent = text
  line.append(words)
  $('news').prepend(line)
  while ($('news').children.length > MAX_LINES) $('news').lastElementChild?.remove()
  $('hint').hidden = true
  return line
}

/**
 * Shows a time at the right edge of a line. A screen reader reads `link` before it.
 *
 * @param {HTMLElement} line
 * @param {string} link
 * @param {string} time
 */
export function addTime(line, link, time) {
  const read = document.createElement('span')
  const seen = document.createElement('span')
  read.className = 'unseen'
  read.textContent = link
  seen.className = 'time'
  seen.textContent = time
  line.firstElementChild?.append(read)
  line.append(seen)
}
