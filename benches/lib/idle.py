"""Many clients that do nothing: what they cost a process in resident memory."""
import resource
import socket
import struct

from . import counters


def raise_files():
    """Lets this process, or one about to start, open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def clients_possible(wanted):
    """So many clients that both ends' descriptors suffice."""
    return min(wanted, raise_files() - 200)


def measure(server, user, wanted):
    """Resident KiB at the start, with idle clients, and after one query of each."""
    count = clients_possible(wanted)
    figures = {"clients": count, "start_kib": counters.resident_kib(server.pid)}
    clients = []
    try:
        for _ in range(count):
            clients.append(log_in(server.port, user))
        figures["connected_kib"] = counters.resident_kib(server.pid)
        for client in clients:
            client.sendall(QUERY)
            until_ready(client)
        figures["queried_kib"] = counters.resident_kib(server.pid)
    finally:
        for client in clients:
            client.close()
    return figures


def log_in(port, user):
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(30)
    body = struct.pack("!I", 3 << 16)
    body += b"".join(word.encode() + b"\0" for word in ("user", user, "database", "app")) + b"\0"
    client.sendall(struct.pack("!I", len(body) + 4) + body)
    until_ready(client)
    return client


def until_ready(client):
    """Reads up to a ReadyForQuery, which is the last thing that is said."""
    data = b""
    while data[-6:-1] != b"Z\0\0\0\5":
        more = client.recv(65536)
        if not more:
            raise counters.Failed("the server closed the connection")
        data += more


QUERY_TEXT = b"SELECT 1\0"
QUERY = b"Q" + struct.pack("!I", len(QUERY_TEXT) + 4) + QUERY_TEXT
