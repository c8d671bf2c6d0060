// fetch as Node, deno and bun have it: GET POST BODY
const [get, post, body] = (globalThis.Deno?.args ?? process.argv.slice(2))
console.log(await (await fetch(get)).text())
console.log(await (await fetch(post, { method: 'POST', body })).text())
