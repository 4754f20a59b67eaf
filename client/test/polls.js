/** A service whose polls a test answers, in the place of `fetch`, for a proxy that lets no event through. */

import { clock, heads, set } from './fakes.js'

/** Each poll that was sent. */
export let polls

/** `fetch` answers HEAD requests as before, and polls with what `answer` returns. */
export function answerPolls(answer) {
  const { fetch } = globalThis
  polls = []
  set('fetch', (url, init) => {
    if (init.method === 'HEAD') return fetch(url, init)
    const poll = { url, init, at: clock.now() }
    polls.push(poll)
    return new Promise((resolve, reject) => {
      init.signal.addEventListener('abort', () => reject(init.signal.reason))
      Promise.resolve(answer(poll)).then(told => told && resolve(told), reject)
    })
  })
}

/** An answer of the service: what is owed, and the pace. */
export function told(merchants = {}, { status = 200, paceS = 10 } = {}) {
  const headers = new Headers(paceS ? { 'Retry-After': paceS } : {})
  return { status, headers, json: async () => ({ merchants, grant: 'ann' }) }
}

export const refused = status => told({}, { status, paceS: 0 })
export const busy = (paceS = 10) => told({}, { status: 503, paceS })
/** The connection never answers. */
export const SILENCE = undefined

export const pollUrls = () => polls.map(({ url }) => url)
export const headCount = () => heads.length
