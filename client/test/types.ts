// Compiled by tsc, never run: correct use compiles, and each wrong use is an expected error.
import {
  onRefresh,
  type EventSourceLike,
  type Options,
  type Refresh,
  type State,
} from '../index.js'

export function rightUse() {
  const stop: () => void = onRefresh('/events?merchant_id=42', () => {})
  stop()
  onRefresh(new URL('https://example.org/events'), async () => fetch('/seats'))
  onRefresh('/events', ({ id, topics, data, reason }) => {
    if (id !== undefined) console.log(id.length)
    if (!topics || topics.includes('seats')) console.log(data?.row, reason === 'resync')
  })
  onRefresh('/events', refresh => refresh satisfies Refresh, {})
  const options: Options = {
    by: 'tab-7',
    onState: state => console.log(state satisfies State),
    waitBaseMs: 500,
    waitCapMs: 10_000,
    firstCallMs: 0,
    minIntervalMs: 2_000,
    whileHidden: 'defer',
    hiddenCloseMs: Infinity,
    withCredentials: true,
    share: 'user-7',
    token: async () => (await fetch('/push-token')).text(),
    EventSource,
    fetch,
  }
  onRefresh('/events', () => {}, options)
  onRefresh('/events', () => {}, { by: undefined, token: undefined })
  onRefresh('/events', () => {}, {
    onState: state => state === 'refused' && location.reload(),
    fetch: async (url: string) => ({ status: url.length }),
  })

  class Polyfill implements EventSourceLike {
    readyState = 0
    constructor(url: string | URL, init?: { withCredentials?: boolean; fetch?: unknown }) {}
    addEventListener(type: string, listener: (event: MessageEvent) => void) {}
    close() {}
  }
  onRefresh('/events', () => {}, { EventSource: Polyfill })
}

export function wrongUse() {
  // @ts-expect-error: a callback is needed
  onRefresh('/events')
  // @ts-expect-error: a URL is text or a URL
  onRefresh(42, () => {})
  // @ts-expect-error: topics may be undefined
  onRefresh('/events', ({ topics }) => topics.includes('seats'))
  // @ts-expect-error: several topics, as refreshes merge
  onRefresh('/events', ({ topic }) => topic)
  // @ts-expect-error: topics are read-only
  onRefresh('/events', ({ topics }) => topics?.push('seats'))
  // @ts-expect-error: no ID before the first event
  onRefresh('/events', ({ id }) => id.length)
  // @ts-expect-error: not one of the reasons
  onRefresh('/events', ({ reason }) => reason === 'lost')
  // @ts-expect-error: no such state
  onRefresh('/events', () => {}, { onState: state => state === 'CONNECTING' })
  // @ts-expect-error: a number of milliseconds
  onRefresh('/events', () => {}, { waitBaseMs: '1s' })
  // @ts-expect-error: call or defer
  onRefresh('/events', () => {}, { whileHidden: true })
  // @ts-expect-error: share is a name
  onRefresh('/events', () => {}, { share: true })
  // @ts-expect-error: by is a name
  onRefresh('/events', () => {}, { by: 7 })
  // @ts-expect-error: token is a function, called before each opening
  onRefresh('/events', () => {}, { token: 'eyJ' })
  // @ts-expect-error: a token is text
  onRefresh('/events', () => {}, { token: async () => fetch('/push-token') })
  // @ts-expect-error: a token may not be undefined
  onRefresh('/events', () => {}, { token: async () => new Map([['token', 'eyJ']]).get('token') })
  // @ts-expect-error: fetch resolves to an object with a status
  onRefresh('/events', () => {}, { fetch: async () => 200 })
  // @ts-expect-error: no such option
  onRefresh('/events', () => {}, { heartbeatMs: 15_000 })
  // @ts-expect-error: the class, not an instance
  onRefresh('/events', () => {}, { EventSource: new EventSource('/events') })
  // @ts-expect-error: the undo is a function, nothing to close
  onRefresh('/events', () => {}).close()
}
