/**
 * Tabs of Firefox, for tests in another language: reads commands as lines of JSON, and writes a line
 * with the answer of each. Commands, the latter three of a tab: { create: null },
 * { tab, open: url }, { tab, evaluate: expression }, { tab, close: null }. And { process: url }: the
 * ID of the process that runs the tab at this URL, which Firefox tells only its own pages.
 *
 * WebDriver BiDi: https://w3c.github.io/webdriver-bidi/
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { WebSocket } from 'ws'

const [program, profile] = process.argv.slice(2)

const firefox = spawn(
  program,
  [
    ...['--headless', '--no-remote', '--profile', profile],
    ...['--remote-debugging-port', '0', '--remote-allow-system-access'],
  ],
  { stdio: ['ignore', 'ignore', 'pipe'] },
)
// Neither outlives the other, nor the test: whatever is awaited here then, and whatever fails here.
const input = createInterface({ input: process.stdin })
input.on('close', () => process.exit())
firefox.on('exit', () => process.exit(1))
process.on('exit', () => firefox.kill('SIGKILL'))
const lines = input[Symbol.asyncIterator]() // keeps the lines that arrive from now on

/** The address that Firefox listens at, from its standard error. */
async function listening() {
  for await (const line of createInterface({ input: firefox.stderr })) {
    const [, address] = /WebDriver BiDi listening on (\S+)/.exec(line) ?? []
    if (address) return address
  }
}

const socket = new WebSocket(`${await listening()}/session`)
firefox.stderr.resume()
await once(socket, 'open')

/** @type {Map<number, (answer: any) => void>} */
const waiting = new Map()
let sent = 0
socket.on('message', text => {
  const answer = JSON.parse(String(text))
  waiting.get(answer.id)?.(answer)
})

/** Sends a command to Firefox, and returns its result. */
async function send(method, params) {
  const id = ++sent
  socket.send(JSON.stringify({ id, method, params }))
  const answer = await new Promise(resolve => waiting.set(id, resolve))
  waiting.delete(id)
  if (answer.type === 'error') throw new Error(`${method}: ${answer.message}`)
  return answer.result
}

/** @param {string} context @param {string} expression whose value, or promise, has a form in JSON */
async function evaluate(context, expression) {
  const { result, exceptionDetails } = await send('script.evaluate', {
    expression: `Promise.resolve(${expression}).then(JSON.stringify)`,
    target: { context },
    awaitPromise: true,
  })
  if (exceptionDetails) throw new Error(exceptionDetails.text)
  return JSON.parse(result.value ?? 'null')
}

await send('session.new', { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } })

const commands = {
  create: async () => (await send('browsingContext.create', { type: 'tab' })).context,
  open: (url, context) => send('browsingContext.navigate', { context, url, wait: 'complete' }),
  evaluate: (expression, context) => evaluate(context, expression),
  close: (_, context) => send('browsingContext.close', { context }),
  async process(url) {
    const { contexts } = await send('browsingContext.getTree', { 'moz:scope': 'chrome' })
    const tab = `gBrowser.browsers.find(tab => tab.currentURI.spec === ${JSON.stringify(url)})`
    return evaluate(contexts[0].context, `${tab}.browsingContext.currentWindowGlobal.osPid`)
  },
}

for await (const line of lines) {
  const { tab, ...command } = JSON.parse(line)
  const [[name, argument]] = Object.entries(command)
  console.log(JSON.stringify((await commands[name](argument, tab)) ?? null))
}
