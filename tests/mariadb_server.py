"""MariaDB as Debian and others install it (`mariadb-server`), for the tests alone."""

import contextlib
import datetime
import ipaddress
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pymysql
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from watchdog import PATIENCE_SECONDS, free_port

UNSAFE_BUT_FAST = (
    "innodb-flush-method=nosync",
    "innodb-flush-log-at-trx-commit=0",
    "innodb-doublewrite=0",
    "innodb-log-file-size=8M",
    "innodb-buffer-pool-size=64M",
    "skip-log-bin",
    "skip-name-resolve",
)
MODES = ("STRICT_ALL_TABLES", "NO_AUTO_VALUE_ON_ZERO", "PIPES_AS_CONCAT", "IGNORE_SPACE")
ODD = (
    "default-time-zone=-03:30",
    f"sql-mode={','.join(MODES)}",
    "character-set-server=latin1",
)
"""Whatever a server has set, an export is the same."""


def program(name: str) -> str | None:
    """Where a program of the package is; servers are not always on the path of users."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def is_installed() -> bool:
    """Whether a server can be started here."""
    return bool(program("mariadbd") and program("mariadb-install-db"))


@contextlib.contextmanager
def serving(data: Path) -> Iterator[str]:
    """The URL of its superuser, who needs no password, on a free port of 127.0.0.1; its socket is `data`/socket.

    Its certificate is `data`/certificate.pem.
    """
    tables, log, port = data / "tables", data / "log", free_port()
    shared = ["--no-defaults", f"--datadir={tables}", *(f"--{option}" for option in UNSAFE_BUT_FAST)]
    if os.geteuid() == 0:
        shared.append("--user=root")
    with log.open("w") as output:
        install = [str(program("mariadb-install-db")), *shared, "--auth-root-authentication-method=normal"]
        subprocess.run([*install, "--skip-test-db"], stdout=output, stderr=output, check=True)
        _write_certificate(data)
        options = (
            f"port={port}",
            "bind-address=127.0.0.1",
            f"socket={data}/socket",
            f"pid-file={data}/pid",
            f"ssl-cert={data}/certificate.pem",
            f"ssl-key={data}/key.pem",
            "lock-wait-timeout=60",
            *ODD,
        )
        command = [str(program("mariadbd")), *shared, *(f"--{option}" for option in options)]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=data)
    try:
        _wait_for(server, port, log)
        yield f"mysql+pymysql://root@127.0.0.1:{port}/mysql"
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


def _wait_for(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(pymysql.OperationalError):
            pymysql.connect(host="127.0.0.1", port=port, user="root").close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"MariaDB did not start:\n{log.read_text()}")


def _write_certificate(data: Path) -> None:
    """A certificate that is its own authority, of 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    today = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (data / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (data / "key.pem").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
