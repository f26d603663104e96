#!/usr/bin/env node
// Runs the suite http-cache-tests, which lies in a folder of its own, for `cargo xtask cache-tests`.
//
//   run.mjs --suite DIR --port N [--json FILE] [--browser] [--only A,B] [--chunk N]
//
// Starts the suite's own origin server on the port, says `ready` on stdout, waits for a line on stdin, which is the base
// URL where a proxy answers by then, runs, and prints a line for each test: its suite, its id, its kind, what the suite
// makes of its result, and why, with tabs between. Knows both layouts of the suite, that of the package and that of its
// repository. What a result means is the suite's own code: nothing of it is repeated here.
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

// What one request may take. A test of the suite holds its origin back by 6 s at most.
const PATIENCE_MS = 15_000

const { values: asked } = parseArgs({
  options: {
    suite: { type: 'string' },
    port: { type: 'string' },
    json: { type: 'string' },
    browser: { type: 'boolean', default: false },
    only: { type: 'string' },
    chunk: { type: 'string', default: '25' }
  }
})
const suite = path.resolve(asked.suite)
const isRepository = fs.existsSync(path.join(suite, 'test-engine'))
const engine = isRepository ? 'test-engine/' : ''
const from = file => import(pathToFileURL(path.join(suite, file)))

const said = console.log
// The suite's server and its runner tell what they do.
console.log = () => {}
console.error = () => {}

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'larder-cache-tests-'))
process.on('exit', () => fs.rmSync(scratch, { recursive: true, force: true }))
process.env.npm_config_protocol = 'http'
process.env.npm_config_port = asked.port
process.env.npm_config_pidfile = path.join(scratch, 'pid')
await from(`${engine}server/server.mjs`)
said('ready')
const base = await new Promise(resolve => {
  createInterface({ input: process.stdin }).once('line', resolve).once('close', () => resolve(''))
})
// Whoever started this is gone.
if (!base) process.exit(1)

const suites = (await from('tests/index.mjs')).default
if (!isRepository) suites.push((await from('tests/surrogate-control.mjs')).default)
const chosen = asked.only ? withDependencies(suites, new Set(asked.only.split(','))) : suites

const { runTests, getResults } = await from(`${engine}client/runner.mjs`)
if (isRepository) {
  await runTests(chosen, asked.browser, base, Number(asked.chunk))
} else {
  // The package's runner waits for ever for an answer that does not come.
  const plain = createRequire(path.join(suite, 'cli.mjs'))('node-fetch')
  const bounded = (url, init) => plain(url, { timeout: PATIENCE_MS, ...init })
  await runTests(chosen, bounded, asked.browser, base, Number(asked.chunk))
}
const results = getResults()
if (asked.json) fs.writeFileSync(asked.json, JSON.stringify(results, null, 2) + '\n')

const { determineTestResult } = await from(isRepository ? 'test-engine/lib/results.mjs' : 'lib/display.mjs')
const names = outcomeNames(determineTestResult)
for (const group of suites) {
  for (const test of group.tests) {
    if (!(test.id in results)) continue
    const outcome = names(determineTestResult(suites, test.id, results))
    const why = Array.isArray(results[test.id]) ? results[test.id].join(': ') : ''
    said([group.id, test.id, test.kind || 'required', outcome, why.replace(/\s+/g, ' ')].join('\t'))
  }
}
process.exit(0)

// These tests or suites of tests, and whatever they depend on.
function withDependencies (suites, wanted) {
  const all = suites.flatMap(group => group.tests)
  for (const group of suites) if (wanted.has(group.id)) group.tests.forEach(test => wanted.add(test.id))
  let before
  do {
    before = wanted.size
    for (const test of all) if (wanted.has(test.id)) (test.depends_on || []).forEach(other => wanted.add(other))
  } while (wanted.size > before)
  return suites.map(group => ({ ...group, tests: group.tests.filter(test => wanted.has(test.id)) }))
}

// Names for the suite's classes of results, which are rows of symbols: found by asking about results that are made up.
function outcomeNames (determine) {
  const ask = (kind, result) => determine([{ tests: [{ id: 'x', kind }] }], 'x', { x: result })
  const wrong = ['Assertion', '']
  const gated = [{ tests: [{ id: 'x', depends_on: ['y'] }, { id: 'y' }] }]
  const classes = new Map([
    [ask('required', true), 'pass'],
    [ask('required', wrong), 'fail'],
    [ask('optimal', wrong), 'optional_fail'],
    [ask('check', true), 'yes'],
    [ask('check', wrong), 'no'],
    [ask('required', ['Setup', '']), 'setup_fail'],
    [ask('required', ['Setup', 'retry']), 'retry'],
    [determine(gated, 'x', { x: true, y: wrong }), 'dependency_fail']
  ])
  return kind => classes.get(kind) || 'harness_fail'
}
