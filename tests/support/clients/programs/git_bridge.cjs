// git offers HTTP/1.1 as well as HTTP/2 and is served the former; this passes its requests on over HTTP/2 alone.
//   HOST COMMAND   listens on loopback, runs COMMAND with BRIDGE=http://127.0.0.1:PORT
const http = require('http')
const http2 = require('http2')
const { spawn } = require('child_process')
const [host, command] = process.argv.slice(2)

const session = http2.connect(`https://${host}`)
const kept = ['accept', 'content-type', 'content-encoding', 'git-protocol', 'user-agent']
const server = http.createServer((request, response) => {
  const headers = { ':method': request.method, ':path': request.url }
  for (const name of kept) if (request.headers[name]) headers[name] = request.headers[name]
  const stream = session.request(headers)
  request.pipe(stream)
  stream.on('response', ({ ':status': status, ...fields }) => {
    const plain = Object.entries(fields).filter(([name]) => !name.startsWith(':') && name !== 'content-length')
    response.writeHead(status, Object.fromEntries(plain))
    stream.pipe(response)
  })
})
server.listen(0, '127.0.0.1', () => {
  const BRIDGE = `http://127.0.0.1:${server.address().port}`
  const child = spawn('sh', ['-ec', command], { stdio: 'inherit', env: { ...process.env, BRIDGE } })
  child.on('exit', (code) => process.exit(code === null ? 1 : code))
})
