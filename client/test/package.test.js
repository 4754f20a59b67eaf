/** The package as npm packs it. */

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

test('the package has the module, what it loads, their types, README and LICENSE, and nothing else', async () => {
  const cwd = fileURLToPath(new URL('..', import.meta.url))
  const command = ['pack', '--dry-run', '--json', '--silent']
  const { stdout } = await promisify(execFile)('npm', command, { cwd })

  const [{ files }] = JSON.parse(stdout)
  assert.deepEqual(files.map(({ path }) => path).sort(), [
    'LICENSE',
    'README.md',
    'index.d.ts',
    'index.js',
    'package.json',
    'poll.d.ts',
    'poll.js',
  ])
})
