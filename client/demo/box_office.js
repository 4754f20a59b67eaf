// The requests to the cinema's own backend. Knows its URLs and answers, and nothing of the page.

/** @import { Answer } from './house.js' */

const TIMEOUT_MS = 8_000

/**
 * What is told of this demo: whether the service expects tokens, the size of the crowd, and the
 * time there.
 *
 * @returns {Promise<{ tokens: boolean, crowd: number, now_ms: number }>}
 */
export const getAbout = async () => (await get('/about')).json()

/** @param {string} merchantId @param {string} session */
export async function getToken(merchantId, session) {
  const response = await request('/token', { merchant_id: merchantId, session })
  if (response.status === 401) return null // the session has ended
  if (!response.ok) throw new Error(`GET /token answered ${response.status}`)
  return response.text()
}

/** @param {string} merchantId @returns {Promise<Answer>} */
export const getSeats = async merchantId =>
  (await get('/seats', { merchant_id: merchantId })).json()

/** @param {string} path @param {Record<string, string>} [query] */
async function get(path, query = {}) {
  const response = await request(path, query)
  if (!response.ok) throw new Error(`GET ${path} answered ${response.status}`)
  return response
}

/** @param {string} path @param {Record<string, string>} query */
const request = (path, query) =>
  fetch(`${path}?${new URLSearchParams(query)}`, {
    cache: 'no-store',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  })

/** @param {string} merchantId @param {string} seat @param {string} by */
export const sell = (merchantId, seat, by) =>
  post(`/seats/${encodeURIComponent(seat)}/sell`, merchantId, by)

/** @param {string} merchantId @param {string} by */
export const reset = (merchantId, by) => post('/seats/reset', merchantId, by)

/** @param {string} merchantId @param {string} session */
export const logOut = (merchantId, session) => post('/logout', merchantId, session)

/** Makes the proxy before the event streams mute, or not. @param {boolean} mute */
export const turnProxy = mute =>
  fetch('/proxy', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ mute }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  })

/**
 * Posts JSON. Returns the status and the answer, which is {} if it is not JSON; or null if no
 * answer arrived.
 *
 * @param {string} url
 * @param {string} merchantId
 * @param {string} by
 */
async function post(url, merchantId, by) {
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ merchant_id: merchantId, by }),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
    const answer = await response.json().catch(() => ({}))
    return { ok: response.ok, status: response.status, answer }
  } catch {
    return null
  }
}
