"""The HTTP libraries of Python that do not come with it: LIBRARY GET POST BODY."""

import importlib
import sys

name, get, post, body = sys.argv[1:]
library = importlib.import_module(name)
if name == "urllib3":
    pool = library.PoolManager()
    answers = [pool.request("GET", get).data.decode(), pool.request("POST", post, body=body).data.decode()]
else:
    answers = [library.get(get).text, library.post(post, content=body).text]
sys.stdout.write("\n".join(answers))
