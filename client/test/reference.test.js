/** The examples of the reference, compiled as a page would compile them. */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const FOLDER = fileURLToPath(new URL('..', import.meta.url))

/** The names that the examples use and do not define. */
const PAGE = `
declare const onRefresh: typeof import('sse-push-client').onRefresh
declare const url: string
declare const userId: string
declare function load(): Promise<void>
declare function loadShop(merchantId: string | undefined): Promise<void>
declare function loadSeats(): Promise<void>
declare function show(seats: unknown): void
declare function showSeat(seat: unknown): void
declare function token(): Promise<string>
declare module 'eventsource' { const EventSource: typeof globalThis.EventSource }
`

/** Compiles files that exist only here, and returns the errors. */
function compile(files) {
  const options = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    target: ts.ScriptTarget.ES2022,
    lib: ['lib.es2022.d.ts', 'lib.dom.d.ts'],
    module: ts.ModuleKind.ES2022,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    paths: { 'sse-push-client': [`${FOLDER}index.d.ts`] },
    types: [],
  }
  const host = ts.createCompilerHost(options)
  const { readFile, fileExists } = host
  host.readFile = path => files[path] ?? readFile(path)
  host.fileExists = path => path in files || fileExists(path)
  const program = ts.createProgram(Object.keys(files), options, host)
  return ts
    .getPreEmitDiagnostics(program)
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))
}

test('each example of the reference compiles, and an unknown option does not', async () => {
  const text = await readFile(`${FOLDER}index.d.ts`, 'utf8')
  const examples = [...text.matchAll(/```js\n([^]*?)```/g)].map(([, code]) =>
    code.replace(/^\s*\* ?/gm, ''),
  )
  assert.equal(examples.length, 17)
  const wrong = 'onRefresh(url, load, { nothing: 1 })'
  const files = [...examples, wrong].map((code, index) => [
    `${FOLDER}example-${index}.ts`,
    `${code}\nexport {}\n`,
  ])

  const [error, ...others] = compile({ [`${FOLDER}page.d.ts`]: PAGE, ...Object.fromEntries(files) })
  assert.match(error, /'nothing' does not exist in type 'Options'/)
  assert.deepEqual(others, [])
})
