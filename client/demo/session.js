// The session of one browser: its token, how long that lasts, and what follows when it is revoked.
// A real page has a cookie in place of the name of the session, and goes to its login at the end.

import { getToken, logOut } from './box_office.js'
import { newName } from './page.js'

/**
 * @param {(name: string) => HTMLElement} part finds an element of the browser
 * @param {{ start: () => void, stop: () => void }} stream opens the event stream, and ends it
 */
export function createSession(part, stream) {
  let name = newName('session')
  let merchantId = ''
  let expiresAt = 0
  let revokedAt = 0
  let isEnded = false

  part('session').hidden = false
  setInterval(showExpiry, 1_000)
  part('renew').addEventListener('click', () => stream.start()) // with a token of its own
  part('revoke').addEventListener('click', () => {
    revokedAt = Date.now()
    void logOut(merchantId, name)
  })
  part('login').addEventListener('click', () => {
    name = newName('session')
    show(false)
    stream.start()
  })

  return { token, handleGoodbye, hasEnded: () => isEnded }

  /** @param {string} house */
  async function token(house) {
    merchantId = house
    const text = await getToken(house, name)
    if (text === null) end('The backend gives this session no more tokens.')
    else expiresAt = expiryOf(text)
    showExpiry()
    return text ?? ''
  }

  /** @param {{ reason?: string }} goodbye */
  function handleGoodbye({ reason }) {
    if (reason !== 'revoked') return
    end(`sse-push ended this stream ${Date.now() - revokedAt} ms after the POST /revoke.`)
  }

  /** @param {string} why */
  function end(why) {
    stream.stop()
    part('state').textContent = 'Logged out'
    part('why').textContent = why
    show(true)
  }

  /** @param {boolean} ended */
  function show(ended) {
    const hadFocus = document.activeElement === part(ended ? 'revoke' : 'login')
    isEnded = ended
    part('login-form').hidden = !ended
    part('map').inert = ended
    part('session').inert = ended
    showExpiry()
    if (hadFocus) part(ended ? 'login' : 'revoke').focus({ preventScroll: true })
  }

  function showExpiry() {
    const seconds = Math.max(0, Math.round((expiresAt - Date.now()) / 1_000))
    const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`
    part('expires').textContent = isEnded ? 'revoked' : `expires in ${time}`
  }
}

/** @param {string} token a JWT */
function expiryOf(token) {
  const claims = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')
  return 1_000 * JSON.parse(atob(claims)).exp
}
