"""Programs and libraries that fetch and send inside of runs, with nothing set for them but what every run has.

The ones of test_clients.py only fetch; these do a GET and a POST each. docs/reference/clients.md is their table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from support.inside import PLACE as INSIDE

PLACE = "/clients"  # where support.inside.BROUGHT is inside
PROGRAMS = f"{INSIDE}/programs"
API = "https://api.github.com"
BODY = '{"from": "a client"}'
LIBRARIES = {"PYTHONPATH": f"{PLACE}/python"}
MODULES = {"NODE_PATH": f"{PLACE}/node_modules"}
PROXY, ADDRESS = "proxy", "address"
NODE = f"{PLACE}/node/bin/node"


@dataclass(frozen=True, slots=True)
class Client:
    """One client. command: a shell line in which $GET, $POST and $BODY stand for two URLs and what is sent.

    needs: the program; a path below PLACE for what scripts/clients.sh brings. env: where its libraries are, no more.
    way: PROXY for one that uses the proxy, ADDRESS for one that connects to the address it is told.
    """

    name: str
    needs: str
    command: str
    env: Mapping[str, str] = field(default_factory=dict)
    way: str = PROXY

    @property
    def is_brought(self) -> bool:
        return self.needs.startswith(PLACE)

    def script(self, get: str, post: str, number: int) -> str:
        """Return shell lines that leave what the client says in files of that number."""
        words = {"GET": API + get, "POST": API + post, "GET_PATH": get, "POST_PATH": post, "BODY": BODY, **self.env}
        exports = "; ".join(f"export {name}='{value}'" for name, value in words.items())
        return f"( {exports}; timeout 60 sh -c '{self.command}' ) > {number}.out 2> {number}.err"


MATRIX = (
    Client("httpx", f"{PLACE}/python", f'python3 {PROGRAMS}/libraries.py httpx "$GET" "$POST" "$BODY"', LIBRARIES),
    Client(
        "urllib3",
        f"{PLACE}/python",
        f'python3 {PROGRAMS}/libraries.py urllib3 "$GET" "$POST" "$BODY"',
        LIBRARIES,
        ADDRESS,
    ),
    Client("Node fetch", NODE, f'{NODE} {PROGRAMS}/fetch.mjs "$GET" "$POST" "$BODY"'),
    Client("undici", NODE, f'{NODE} {PROGRAMS}/libraries.cjs undici "$GET" "$POST" "$BODY"', MODULES),
    Client("got", NODE, f'{NODE} {PROGRAMS}/libraries.cjs got "$GET" "$POST" "$BODY"', MODULES),
    Client("axios", NODE, f'{NODE} {PROGRAMS}/libraries.cjs axios "$GET" "$POST" "$BODY"', MODULES),
    Client("deno", f"{PLACE}/deno", f'{PLACE}/deno run --quiet -A {PROGRAMS}/fetch.mjs "$GET" "$POST" "$BODY"'),
    Client("bun", f"{PLACE}/bun", f'{PLACE}/bun {PROGRAMS}/fetch.mjs "$GET" "$POST" "$BODY"'),
    Client("Java HttpClient", "java", f'java {PROGRAMS}/Client.java client "$GET" "$POST" "$BODY"'),
    Client("Java URLConnection", "java", f'java {PROGRAMS}/Client.java connection "$GET" "$POST" "$BODY"'),
    Client("gh", "gh", 'gh api "$GET_PATH"; printf %s "$BODY" | gh api -X POST "$POST_PATH" --input -'),
    Client(
        "kubectl",
        "kubectl",
        f'kubectl --server {API} --token placeholder get --raw "$GET_PATH"; printf %s "$BODY" | '
        f'kubectl --server {API} --token placeholder create --raw "$POST_PATH" -f -',
    ),
    Client("Ruby Net::HTTP", "ruby", f'ruby {PROGRAMS}/client.rb "$GET" "$POST" "$BODY"', way=ADDRESS),
    Client("PHP curl", "php", f'php {PROGRAMS}/curl.php "$GET" "$POST" "$BODY"'),
    Client("PHP streams", "php", f'php {PROGRAMS}/streams.php "$GET" "$POST" "$BODY"', way=ADDRESS),
    Client("Perl LWP", "perl", f'perl {PROGRAMS}/lwp.pl "$GET" "$POST" "$BODY"'),
    Client("Perl HTTP::Tiny", "perl", f'perl {PROGRAMS}/tiny.pl "$GET" "$POST" "$BODY"'),
)
