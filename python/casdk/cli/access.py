"""The connection options that all commands with a server share, and the client that they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from casdk import TLS, Client, Pool, Retry, Timeouts
from casdk.errors import ConfigError

__all__ = ["Access"]


@Parameter(name="*", group="Connection")
@dataclass(frozen=True, kw_only=True)
class Access:
    """How to reach the server; no secret can be given on the command line, which others can read."""

    credential_file: Path | None = None
    """File that holds the token to send; CLIP_AUTH_TOKEN where none is given."""
    ca: Path | None = None
    """PEM file of the authorities to trust instead of the system's."""
    cert: Path | None = None
    """PEM file of the client's certificate (mTLS)."""
    key: Path | None = None
    """PEM file of its key."""
    server_name: str | None = None
    """Name to ask for and to verify instead of the address's host."""
    insecure: Annotated[bool, Parameter(negative="")] = False
    """Accept any certificate; for experiments."""
    timeout: float | None = None
    """Seconds for the whole call; no limit by default."""
    connect_timeout: float = 5.0
    """Seconds for a connection."""
    read_timeout: float = 60.0
    """Seconds for one request."""
    patience: float | None = None
    """Seconds that a server may be away in the middle of a run, which waits for it; 60 by default."""

    expect_space: str | None = None
    """What `casdk space` has printed; a server of another vector space is an error, before anything is written."""

    def client(self, url: str, retry: Retry | None = None, index_on: str | None = None) -> Client:
        """Return a client of the server, or of several.

        Args:
            url: Its address, or theirs with commas between them.
            retry: As for `Client`.
            index_on: Address of the server that has the index, if the command line names one.

        Raises:
            ConfigError: The address or an option cannot work.
        """
        self.token()  # so that a file that cannot be read is reported before anything is sent
        # The client reads the file again when the server refuses the token, since tokens in files are replaced.
        credential = None if self.credential_file is None else self.token
        return Client(
            url.split(",") if "," in url else url,
            credential,
            tls=self.tls(),
            timeouts=self.timeouts(),
            retry=retry or self.retry(),
            expect_space=self.expect_space,
            pool=None if index_on is None else Pool(index_on=index_on),
        )

    def token(self) -> str:
        """Return the token in the file, ``""`` if no file is named.

        Raises:
            ConfigError: The file cannot be read.
        """
        if self.credential_file is None:
            return ""
        try:
            return self.credential_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(f"--credential-file {self.credential_file}: {reason}") from None

    def tls(self) -> TLS | None:
        """Return the TLS settings; ``None`` if the command line has no option for TLS.

        Raises:
            ConfigError: The options contradict each other.
        """
        if not any((self.ca, self.cert, self.key, self.server_name, self.insecure)):
            return None
        try:
            return TLS(ca=self.ca, cert=self.cert, key=self.key, server_name=self.server_name, verify=not self.insecure)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def timeouts(self) -> Timeouts:
        """Return the timeouts.

        Raises:
            ConfigError: One of them is not a positive number.
        """
        try:
            return Timeouts(connect=self.connect_timeout, read=self.read_timeout, total=self.timeout)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def retry(self) -> Retry | None:
        """Return the retry policy; ``None`` if the command line has no option for it.

        Raises:
            ConfigError: The patience is negative.
        """
        try:
            return None if self.patience is None else Retry(patience=self.patience)
        except ValueError as error:
            raise ConfigError(str(error)) from None
