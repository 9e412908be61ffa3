"""A Postgres client that hides nothing: it sends the bytes it is told to and
writes down each message it gets. Standard library only; protocol as in the
PostgreSQL manual, "Message Formats". Trust, cleartext and SCRAM-SHA-256 logins.
"""

import base64
import hashlib
import hmac
import os
import socket
import struct
from urllib.parse import unquote, urlsplit

WAIT_SECONDS = 10
SHOWN_MAX = 60


class Target:
    """Where and as whom to log in, from a postgres:// URL."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.host = parts.hostname
        self.port = parts.port or 5432
        self.user = unquote(parts.username or "")
        self.password = unquote(parts.password or "")
        self.database = unquote(parts.path.lstrip("/"))


class Closed(Exception):
    """The peer closed the connection."""


class Wire:
    """One connection. Every message received is appended to `log` in words."""

    def __init__(self, target, login=True, **params):
        self.target = target
        self.socket = socket.create_connection((target.host, target.port), WAIT_SECONDS)
        self.socket.settimeout(WAIT_SECONDS)
        self.buffer, self.at = b"", 0
        self.log = []
        self.parameters = {}
        self.key = None
        if login:
            self.send(startup(target, **params))
            self.login()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Drops the connection without a word."""
        self.socket.close()

    def send(self, *messages):
        """Writes the messages in one go."""
        self.socket.sendall(b"".join(messages))

    def raw(self, count):
        """The next bytes of the stream."""
        if len(self.buffer) - self.at < count:
            chunks, have = [self.buffer[self.at :]], len(self.buffer) - self.at
            while have < count:
                try:
                    got = self.socket.recv(1 << 18)
                except ConnectionResetError:
                    got = b""
                if not got:
                    raise Closed()
                chunks.append(got)
                have += len(got)
            self.buffer, self.at = b"".join(chunks), 0
        out = self.buffer[self.at : self.at + count]
        self.at += count
        return out

    def message(self):
        """The next message as (tag, body); it also goes to the log."""
        tag, length = struct.unpack("!cI", self.raw(5))
        body = self.raw(length - 4)
        tag = tag.decode("latin-1")
        if tag == "S":
            name, value = body[:-1].split(b"\0", 1)
            self.parameters[name.decode()] = value.decode()
        if tag == "K":
            self.key = (body[:4], body[4:])
        self.log.append(describe(tag, body))
        return tag, body

    def until(self, tags, count=1):
        """Reads up to and with the count-th message whose tag is in `tags`."""
        while count:
            tag, body = self.message()
            if tag in tags:
                count -= 1
        return tag, body

    def login(self):
        """Answers the server's questions until ReadyForQuery; else raises Closed."""
        scram = None
        while True:
            tag, body = self.message()
            if tag == "Z":
                break
            if tag != "R":
                continue
            kind = struct.unpack("!I", body[:4])[0]
            if kind == 3:
                self.send(msg("p", cstr(self.target.password)))
            elif kind == 10:
                scram = Scram(self.target.password)
                self.send(msg("p", cstr("SCRAM-SHA-256"), struct.pack("!I", len(scram.first)), scram.first))
            elif kind == 11:
                self.send(msg("p", scram.final(body[4:])))
        self.log.clear()

    def transcript(self):
        """What came since the last call, on one line; equal rows are counted."""
        out, self.log = squeeze(reports_in_order(self.log)), []
        return " ".join(out)

    def run(self, *messages, ready=1):
        """Sends, reads up to `ready` ReadyForQuery, returns the transcript."""
        self.send(*messages)
        self.until("Z", ready)
        return self.transcript()

    def query(self, text):
        """A simple query's transcript."""
        return self.run(query(text))

    def value(self, text):
        """The first column of the last row of a simple query."""
        self.send(query(text))
        value = None
        while True:
            tag, body = self.message()
            if tag == "D":
                value = row(body)[0]
            if tag == "E":
                self.until("Z")
                raise AssertionError(self.transcript())
            if tag == "Z":
                self.log.clear()
                return value

    def to_the_end(self):
        """Everything up to the peer's close; 'open' when it stays open."""
        try:
            while True:
                self.message()
        except Closed:
            return (self.transcript() + " closed").strip()
        except TimeoutError:
            return (self.transcript() + " open").strip()

    def cancel(self, key=None):
        """Sends a CancelRequest on its own connection and waits for its end."""
        pid, secret = key or self.key
        with Wire(self.target, login=False) as other:
            body = struct.pack("!I", 80877102) + pid + secret
            other.send(struct.pack("!I", len(body) + 4) + body)
            return other.to_the_end()


class Scram:
    """The client's half of SCRAM-SHA-256 (RFC 5802), without channel binding."""

    def __init__(self, password):
        self.password = password
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        self.bare = f"n=,r={self.nonce}"
        self.first = ("n,," + self.bare).encode()

    def final(self, server_first):
        server_first = server_first.decode()
        parts = dict(p.split("=", 1) for p in server_first.split(","))
        salt, rounds = base64.b64decode(parts["s"]), int(parts["i"])
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c=biws,r={parts['r']}"
        signed = ",".join((self.bare, server_first, without_proof)).encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


# Messages


def cstr(text):
    return (text if isinstance(text, bytes) else text.encode()) + b"\0"


def msg(tag, *parts):
    body = b"".join(parts)
    return tag.encode() + struct.pack("!I", len(body) + 4) + body


def startup(target, version=0x30000, **params):
    params = {"user": target.user, "database": target.database, **params}
    body = struct.pack("!I", version)
    for name, value in params.items():
        if value is not None:
            body += cstr(name) + cstr(value)
    body += b"\0"
    return struct.pack("!I", len(body) + 4) + body


def request(code):
    """SSLRequest (80877103) or GSSENCRequest (80877104)."""
    return struct.pack("!II", 8, code)


def query(text):
    return msg("Q", cstr(text))


def parse(text, name="", types=()):
    return msg("P", cstr(name), cstr(text), struct.pack(f"!H{len(types)}I", len(types), *types))


def bind(*values, name="", portal="", formats=(), results=()):
    body = cstr(portal) + cstr(name)
    body += struct.pack(f"!H{len(formats)}H", len(formats), *formats)
    body += struct.pack("!H", len(values))
    for value in values:
        if value is None:
            body += struct.pack("!i", -1)
        else:
            value = value.encode() if isinstance(value, str) else value
            body += struct.pack("!i", len(value)) + value
    body += struct.pack(f"!H{len(results)}H", len(results), *results)
    return msg("B", body)


def describe_statement(name=""):
    return msg("D", b"S", cstr(name))


def describe_portal(name=""):
    return msg("D", b"P", cstr(name))


def execute(portal="", rows=0):
    return msg("E", cstr(portal), struct.pack("!I", rows))


def close_statement(name):
    return msg("C", b"S", cstr(name))


def close_portal(name):
    return msg("C", b"P", cstr(name))


def copy_data(text):
    return msg("d", text if isinstance(text, bytes) else text.encode())


def whole(text, *values, **options):
    """Parse, Bind, Execute of the unnamed statement, without Sync."""
    return parse(text) + bind(*values, **options) + execute()


SYNC = msg("S")
FLUSH = msg("H")
COPY_DONE = msg("c")
TERMINATE = msg("X")


def copy_fail(text):
    return msg("f", cstr(text))


# Words for what came back


def row(body):
    """The columns of a DataRow."""
    count, at, out = struct.unpack("!H", body[:2])[0], 2, []
    for _ in range(count):
        length = struct.unpack("!i", body[at : at + 4])[0]
        at += 4
        out.append(None if length < 0 else body[at : at + length])
        at += max(length, 0)
    return out


def fields(body):
    """The fields of an ErrorResponse or NoticeResponse."""
    out = {}
    for part in body.split(b"\0"):
        if part:
            out[chr(part[0])] = part[1:].decode("utf-8", "replace")
    return out


def shown(value):
    if value is None:
        return "NULL"
    if any(b < 32 or b > 126 for b in value):
        value = b"x" + value[:SHOWN_MAX].hex().encode()
    text = value[:SHOWN_MAX].decode("ascii")
    return text if len(value) <= SHOWN_MAX else f"{text}..{len(value)}"


def describe(tag, body):
    """One message in words, without what differs from run to run."""
    if tag == "R":
        return f"R({struct.unpack('!I', body[:4])[0]})"
    if tag == "Z":
        return f"Z({body.decode()})"
    if tag == "C":
        return f"C({body[:-1].decode()})"
    if tag == "D":
        return "D[" + "|".join(shown(v) for v in row(body)) + "]"
    if tag in "EN":
        f = fields(body)
        words = [f.get("V", "?"), f.get("C", "?"), f.get("M", "")]
        words += [f"{k}:{f[k]}" for k in "DHPpqWst" if k in f]
        return tag + "{" + " ".join(words) + "}"
    if tag == "T":
        return "T[" + "|".join(columns(body)) + "]"
    if tag == "t":
        count = struct.unpack("!H", body[:2])[0]
        return f"t{list(struct.unpack(f'!{count}I', body[2:]))}"
    if tag == "S":
        return f"S({body[:-1].replace(bytes(1), b'=').decode()})"
    if tag == "A":
        return f"A({body[4:-1].replace(bytes(1), b'=').decode()})"
    if tag in "GHW":
        count = struct.unpack("!H", body[1:3])[0]
        return f"{tag}({body[0]} {list(struct.unpack(f'!{count}H', body[3:]))})"
    if tag in "dV":
        return f"{tag}[{shown(body)}]"
    if tag == "v":
        return "v" + body.hex()
    return tag


def columns(body):
    count, at = struct.unpack("!H", body[:2])[0], 2
    for _ in range(count):
        end = body.index(b"\0", at)
        name = body[at:end].decode()
        _, _, oid, length, modifier, form = struct.unpack("!IHIhiH", body[end + 1 : end + 19])
        at = end + 19
        yield f"{name}:{oid}:{length}:{modifier}:{form}"


def reports_in_order(log):
    """Neighbouring ParameterStatus messages sorted: a RESET that takes back
    several settings reports them in the order of a hash table."""
    out, reports = [], []
    for word in log:
        if word.startswith("S("):
            reports.append(word)
            continue
        out += sorted(reports) + [word]
        reports = []
    return out + sorted(reports)


def squeeze(log):
    """Equal neighbours become one with a count."""
    out = []
    for word in log:
        if out and out[-1][0] == word:
            out[-1][1] += 1
        else:
            out.append([word, 1])
    return [w if n == 1 else f"{w}*{n}" for w, n in out]
