"""TLS: from certificate files to a context, with errors an operator can act on.

Knows certificate files and `ssl`. Reads those files only; the event loop does the handshake.
"""

from __future__ import annotations

import ssl
from pathlib import Path


class TlsError(Exception):
    """The files cannot be used; the message is one sentence for the operator."""


def context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """A server context: TLS 1.2 or newer, the ciphers of Python's default context, HTTP/1.1 by ALPN.

    Args:
        cert: the certificate, followed by its chain, PEM.
        key: its private key, PEM, without a passphrase.
        client_ca: if given, clients must show a certificate that one of these CAs has signed.

    Raises:
        TlsError: a file is missing, unreadable or not what it should be, or key and certificate differ.
    """
    for flag, path in (("--tls-cert", cert), ("--tls-key", key), ("--tls-client-ca", client_ca)):
        if path is not None:
            _check_readable(flag, path)
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996 withdrew what is older
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(cert, key, password=_no_passphrase)
    except ssl.SSLError as error:
        raise TlsError(f"--tls-cert {cert} and --tls-key {key}: {_reason(error)}") from error
    except OSError as error:  # removed since it was checked; SSLError is an OSError, too, and so comes first
        raise TlsError(f"--tls-cert {cert} and --tls-key {key}: {error.strerror}") from error
    if client_ca is not None:
        try:
            made.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise TlsError(f"--tls-client-ca {client_ca} holds no PEM certificate") from error
        except OSError as error:
            raise TlsError(f"--tls-client-ca {client_ca}: {error.strerror}") from error
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def _check_readable(flag: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise TlsError(f"{flag} {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a null byte
        raise TlsError(f"{flag} {str(path)!r} cannot be read: {error}") from error


def _no_passphrase() -> str:
    # Otherwise OpenSSL asks for it on the terminal, and the service never starts.
    raise TlsError("--tls-key has a passphrase; give a key without one, readable by the service alone")


def _reason(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key does not belong to the certificate"
    if error.reason in {"PEM", "NO_START_LINE", None} or "PEM" in str(error):
        return "not a PEM certificate and its PEM key"
    return str(error.reason).replace("_", " ").lower()
