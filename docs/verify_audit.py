"""Verifies what `moat audit export` wrote, with nothing of moat's: python verify_audit.py BUNDLE PUBLIC_KEY

Needs `pip install cryptography`. PUBLIC_KEY is what `moat audit key` prints where the run was, told to you another way
than with the bundle. Exit code 0: whole. 1: not, and the first bad entry is named.
"""

import hashlib
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def canonical(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def first_fault(bundle, public_key):
    """Return the number of the first bad entry and what is wrong with it, None when the bundle is whole."""
    head = bundle["head"]
    try:
        signed = b"moat audit head\n" + head["statement"].encode()
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(head["signature"]), signed)
    except InvalidSignature:
        return 0, "the head was not signed with this key"
    said = json.loads(head["statement"])
    if said["chain"] != bundle["chain"]:
        return 0, "the head is that of another run"
    last, entries = "0" * 64, bundle["entries"]
    for number, entry in enumerate(entries, 1):
        if entry["seq"] != number or entry["chain"] != bundle["chain"]:
            return number, "it is missing, or out of order"
        whole = {"v": 1, **{name: entry[name] for name in ("chain", "seq", "at", "kind", "facts", "prev")}}
        if hashlib.sha256(canonical(whole)).hexdigest() != entry["hash"]:
            return number, "it was changed"
        if entry["prev"] != last:
            return number, "it does not follow the one before it"
        last = entry["hash"]
    if len(entries) != said["seq"]:
        return min(len(entries), said["seq"]) + 1, f"the head was signed over {said['seq']} entries"
    return None if last == said["hash"] else (len(entries), "it is not the one that was signed")


def main(path, public_key):
    try:
        with open(path, encoding="utf-8") as file:
            bundle = json.load(file)
        fault = first_fault(bundle, public_key)
    except (ValueError, KeyError, TypeError):
        return print("not whole: it is no bundle, or is broken") or 1
    if fault:
        return print(f"not whole: {bundle['chain']}, entry {fault[0]}: {fault[1]}") or 1
    is_over = bundle["entries"][-1]["kind"] == "ended"
    print(f"whole: {len(bundle['entries'])} entries of {bundle['chain']}" + ("" if is_over else "; it was not over"))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 3 else __doc__)
