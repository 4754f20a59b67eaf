// The demonstration: sells a seat now and then, until somebody does something else.

const FIRST_MS = 1_200
const INTERVAL_MS = 3_500
/** At most this many: a page that is open, but that nobody looks at, must not sell for ever. */
const MAX_SALES = 30

/**
 * @param {HTMLElement} button starts and stops the demonstration
 * @param {() => boolean} sellNext returns whether it could
 */
export function createShow(button, sellNext) {
  let timer = 0
  let sales = 0

  button.addEventListener('click', () => (timer ? stop() : start()))

  return { start, stop }

  function start() {
    sales = 0
    timer = setTimeout(run, FIRST_MS)
    button.textContent = 'Pause'
  }

  function stop() {
    clearTimeout(timer)
    timer = 0
    button.textContent = 'Play'
  }

  function run() {
    const isSeen = !document.hidden
    if (isSeen && (++sales > MAX_SALES || !sellNext())) return stop()
    timer = setTimeout(run, INTERVAL_MS)
  }
}
