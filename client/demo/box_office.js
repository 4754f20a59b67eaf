// The requests to the cinema's own backend. Knows its URLs and answers, and nothing of the page.

import { pageName } from './page.js'

/** @import { Answer } from './house.js' */

const TIMEOUT_MS = 8_000

/** @param {string} path @param {string} merchantId */
const get = (path, merchantId) =>
  fetch(`${path}?merchant_id=${encodeURIComponent(merchantId)}`, {
    cache: 'no-store',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  })

/**
 * Whether the service expects a token (`sse-push demo --tokens`). The backend answers 204 if not.
 *
 * @param {string} merchantId
 */
export async function needsToken(merchantId) {
  try {
    return (await get('/token', merchantId)).status === 200
  } catch {
    return false
  }
}

/** @param {string} merchantId */
export async function getToken(merchantId) {
  const response = await get('/token', merchantId)
  if (!response.ok) throw new Error(`GET /token answered ${response.status}`)
  return response.text()
}

/** @param {string} merchantId @returns {Promise<Answer>} */
export async function getSeats(merchantId) {
  const response = await get('/seats', merchantId)
  if (!response.ok) throw new Error(`GET /seats answered ${response.status}`)
  return response.json()
}

/** @param {string} merchantId @param {string} seat */
export const sell = (merchantId, seat) =>
  post(`/seats/${encodeURIComponent(seat)}/sell`, merchantId)

/** @param {string} merchantId */
export const reset = merchantId => post('/seats/reset', merchantId)

/**
 * Posts JSON. Returns the status and the answer, which is {} if it is not JSON; or null if no
 * answer arrived.
 *
 * @param {string} url
 * @param {string} merchantId
 */
async function post(url, merchantId) {
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ merchant_id: merchantId, by: pageName }),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
    const answer = await response.json().catch(() => ({}))
    return { ok: response.ok, status: response.status, answer }
  } catch {
    return null
  }
}
