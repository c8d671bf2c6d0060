// The HTTP libraries of Node: LIBRARY GET POST BODY
const [library, get, post, body] = process.argv.slice(2)

const text = { responseType: 'text', transformResponse: (data) => data }
const libraries = {
  axios: (axios) => [() => axios.get(get, text), () => axios.post(post, body, text)].map((ask) => async () => (await ask()).data),
  got: ({ default: got }) => [() => got(get).text(), () => got.post(post, { body }).text()],
  undici: ({ request }) => [() => request(get), () => request(post, { method: 'POST', body })]
    .map((ask) => async () => (await ask()).body.text())
}

async function main () {
  for (const ask of libraries[library](require(library))) console.log(await ask())
}
main()
