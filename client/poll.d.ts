/**
 * What `onRefresh` loads, by `import('./poll.js')`, when an event stream has been silent from its
 * beginning for 45 s, or for more than 20 s before it ended. A page calls nothing of it; `import 'sse-push-client/poll'` loads it early.
 */

import type { EventSourceLike, Options } from './index.js'

/**
 * Returns a function that opens what stands for an EventSource: it polls, and tries a stream every
 * 5 min.
 *
 * @param options of the page
 * @param types The types of the events of a stream.
 * @param waitMs The wait after so many failures in a row.
 */
export function pollInstead(
  options: Options,
  types: readonly string[],
  waitMs: (failed: number) => number,
  isHidden: () => boolean,
): (url: string) => EventSourceLike
