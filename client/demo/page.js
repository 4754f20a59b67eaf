// What all modules of the page share: its elements, and the name under which it buys seats.

/**
 * The name of this page load, sent as `by` with each purchase. A name per browser would not do: a
 * duplicated tab would take the other tab's refreshes for its own.
 */
export const pageName =
  'tab-' + (crypto.randomUUID?.() ?? Math.random().toString(36).slice(2) + Date.now().toString(36))

/** @param {string} id */
export const $ = id => /** @type {HTMLElement} */ (document.getElementById(id))
