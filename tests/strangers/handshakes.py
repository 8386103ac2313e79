"""Unusual and hostile TLS 1.3 clients of an NTS-KE server, by tlslite-ng.

    handshakes.py HOST PORT     prints a line for each: its name, and what became of it

What became of it is "served COOKIES", "refused ERROR" (an NTS-KE error), "alert DESCRIPTION" of the
server's, or "closed".
"""

import socket
import struct
import sys

from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.constants import AlertDescription, ContentType, HandshakeType
from tlslite.errors import TLSAbruptCloseError, TLSError, TLSRemoteAlert
from tlslite.messages import Alert, ApplicationData, ClientHello, Finished

SECONDS = 20
# RFC 8915 section 4: NTPv4, AES-SIV-CMAC-256, End of Message.
REQUEST = bytes.fromhex("80010002" "0000" "80040002" "000f" "80000000")
NTSKE = bytearray(b"ntske/1")


class Client:
    """A connection, before its handshake."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, SECONDS)
        self.tls = TLSConnection(self.socket)
        self.tls.ignoreAbruptClose = True

    def shake(self, alpn=(NTSKE,), **wanted):
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = (3, 4)
        for name, value in wanted.items():
            assert hasattr(settings, name), name
            setattr(settings, name, value)
        self.tls.handshakeClientCert(settings=settings, serverName="localhost", alpn=list(alpn))

    def send(self, message):
        """A message as it is, at any time."""
        for _ in self.tls._sendMsg(message, randomizeFirstBlock=False):
            pass

    def ask(self, request=REQUEST):
        self.tls.write(request)
        answer = b""
        while True:
            piece = self.tls.read(max=65536, min=1)
            if not piece:
                return judged(answer)
            answer += piece


def judged(answer):
    """What an NTS-KE answer says, record by record."""
    cookies, end = 0, None
    while answer:
        kind, length = struct.unpack(">HH", answer[:4])
        body, answer = answer[4 : 4 + length], answer[4 + length :]
        assert end is None, "a record behind End of Message"
        match kind & 0x7FFF:
            case 0:
                end = True
            case 2:
                return f"refused {struct.unpack('>H', body)[0]}"
            case 5:
                cookies += 1
    return f"served {cookies}" if end else "closed"


def usual(client):
    client.shake()
    return client.ask()


def no_key_share(client):
    """The server has to ask for one (HelloRetryRequest, RFC 8446 section 4.1.4)."""
    client.shake(keyShares=[])
    return client.ask()


def every_suite(client):
    client.shake(cipherNames=["chacha20-poly1305", "aes256gcm", "aes128gcm"])
    return client.ask()


def small_records(client):
    client.shake(record_size_limit=64)
    return client.ask()


def protocols_around_ntske(client):
    client.shake(alpn=[bytearray(b"h2"), NTSKE, bytearray(b"x" * 255)])
    return client.ask()


def other_protocols(client):
    client.shake(alpn=[bytearray(b"h2"), bytearray(b"http/1.1")])
    return client.ask()


def only_old_versions(client):
    client.shake(minVersion=(3, 1), maxVersion=(3, 3))
    return client.ask()


def only_finite_fields(client):
    client.shake(eccCurves=[], keyShares=["ffdhe2048"])
    return client.ask()


def unknown_ticket(client):
    """A pre-shared key that the server never gave: it goes on with its certificate."""
    client.shake(pskConfigs=[(b"nobody", b"\x05" * 32)], psk_modes=["psk_dhe_ke"])
    return client.ask()


def a_byte_a_record(client):
    client.shake()
    for byte in REQUEST[:-1]:
        client.send(ApplicationData().create(bytearray([byte])))
    return client.ask(REQUEST[-1:])


def empty_records(client, number=8):
    client.shake()
    for _ in range(number):
        client.send(ApplicationData().create(bytearray()))
    return client.ask()


def many_empty_records(client):
    return empty_records(client, 1000)


def new_keys_first(client):
    client.shake()
    for _ in client.tls.send_keyupdate_request(1):
        pass
    return client.ask()


def hello_again(client):
    """TLS 1.3 knows no renegotiation: unexpected_message."""
    client.shake()
    hello = ClientHello().create((3, 3), bytearray(32), bytearray(32), [0x1301], extensions=[])
    client.send(hello)
    return client.ask()


def finished_again(client):
    client.shake()
    client.send(Finished((3, 4), 32).create(bytearray(32)))
    return client.ask()


def warning_alerts(client):
    """Other than close_notify and user_canceled they are errors (RFC 8446 section 6)."""
    client.shake()
    client.send(Alert().create(AlertDescription.no_renegotiation, 1))
    return client.ask()


def unknown_content(client):
    client.shake()
    client.send(Raw(ContentType.heartbeat, bytearray(b"\x01\x40\x00")))
    return client.ask()


def handshake_of_no_type(client):
    client.shake()
    client.send(Raw(ContentType.handshake, bytearray([HandshakeType.certificate_status, 0, 0, 0])))
    return client.ask()


class Raw:
    """A record's content."""

    def __init__(self, content_type, content):
        self.contentType, self.content = content_type, content

    def write(self):
        return self.content


CASES = [
    usual,
    no_key_share,
    every_suite,
    small_records,
    protocols_around_ntske,
    other_protocols,
    only_old_versions,
    only_finite_fields,
    unknown_ticket,
    a_byte_a_record,
    empty_records,
    many_empty_records,
    new_keys_first,
    hello_again,
    finished_again,
    warning_alerts,
    unknown_content,
    handshake_of_no_type,
]


def main():
    address = (sys.argv[1], int(sys.argv[2]))
    for case in CASES:
        client = Client(address)
        try:
            result = case(client)
        except TLSRemoteAlert as alert:
            result = f"alert {AlertDescription.toStr(alert.description)}"
        except (TLSAbruptCloseError, ConnectionError):
            result = "closed"
        except TLSError as error:
            result = f"{type(error).__name__}: {error}"
        finally:
            client.socket.close()
        print(case.__name__, result, flush=True)


main()
