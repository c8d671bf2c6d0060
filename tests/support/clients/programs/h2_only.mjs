// Node's http2: ORIGIN GET_PATH POST_PATH [PROXY]; a GET, and bodies in zstd and gzip as streams; prints what came (the service unpacks)
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import { text } from 'node:stream/consumers'
import tls from 'node:tls'
import zlib from 'node:zlib'

const [origin, getPath, postPath, proxy] = process.argv.slice(2)
const { hostname } = new URL(origin)
const options = {}
if (proxy) {
  const tunnel = http.request(`http://${proxy}`, { method: 'CONNECT', path: `${hostname}:443` }).end()
  const [, socket] = await once(tunnel, 'connect')
  options.createConnection = () => tls.connect({ socket, servername: hostname, ALPNProtocols: ['h2'] })
}
const session = http2.connect(origin, options)

async function ask (headers, body) {
  const stream = session.request(headers, { endStream: !body })
  for (let at = 0; body && at < body.length; at += 50_000) stream.write(body.subarray(at, at + 50_000))
  if (body) stream.end()
  const [answer] = await once(stream, 'response')
  return { status: answer[':status'], body: await text(stream) }
}

const plain = Buffer.from(JSON.stringify({ input: randomBytes(200_000).toString('hex') }))
const told = { version: 'h2', get: await ask({ ':path': getPath }) }
for (const [coding, pack] of [['zstd', zlib.zstdCompressSync], ['gzip', zlib.gzipSync]]) {
  const body = pack(plain)
  const headers = { ':method': 'POST', ':path': postPath, 'content-type': 'application/json', 'content-encoding': coding }
  told[coding] = { ...await ask(headers, body), sent: createHash('sha256').update(plain).digest('hex') }
}
told.version = session.alpnProtocol
console.log(JSON.stringify(told))
session.close()
