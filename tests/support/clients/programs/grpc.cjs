// @grpc/grpc-js: TARGET; one call with one answer, one with many; prints what came, with trailers, as JSON
const grpc = require('@grpc/grpc-js')

const same = (message) => message
const call = (path, streams) => ({ path, requestStream: false, responseStream: streams, requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same })
const Client = grpc.makeGenericClientConstructor({ hello: call('/demo.Service/Hello', false), count: call('/demo.Service/Count', true) }, 'demo')
const client = new Client(process.argv[2], grpc.credentials.createSsl())
const metadata = new grpc.Metadata()
metadata.set('authorization', 'Bearer placeholder')

const trail = (status) => status.metadata.getMap()['x-trail']
const told = {}
const unary = client.hello(Buffer.from('world'), metadata, (error, answer) => { told.hello = error ? String(error) : String(answer) })
unary.on('status', (status) => {
  told.helloTrail = trail(status)
  const many = client.count(Buffer.from('500'), metadata)
  told.count = 0
  many.on('data', () => { told.count += 1 })
  many.on('error', (error) => { told.error = String(error) })
  many.on('status', (status) => { told.countTrail = trail(status); console.log(JSON.stringify(told)); client.close() })
})
