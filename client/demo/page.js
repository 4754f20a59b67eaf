// What all modules of the page share: its elements, its clock, and how a time is written.

/** @param {string} id */
export const $ = id => /** @type {HTMLElement} */ (document.getElementById(id))

/**
 * A new random name. A name per browser would not do: a duplicated tab would take the other tab's
 * refreshes for its own.
 *
 * @param {string} label
 */
export const newName = label =>
  `${label}-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`

/** @param {number} ms */
export const inWords = ms => (ms < 10_000 ? `${ms} ms` : `${Math.round(ms / 1_000)} s`)
