"""A station's keys for tests: a folder, and clients with theirs."""

from collections.abc import Iterable
from pathlib import Path

from edge_runtime.credentials import Credentials, Role, read_key_file
from edge_runtime.security.keys import Keyring, new_pair, write_client


class Keys:
    """A keyring in `folder`, and key files beside it."""

    def __init__(self, folder: Path) -> None:
        self.ring = Keyring(folder)
        self.station = self.ring.make_server()

    def file(self, name: str, *roles: Role) -> Path:
        """The key file of a client that may come in."""
        public, secret = new_pair()
        path = self.ring.folder.with_name(f"{name}.key")
        write_client(path, self.ring.add(name, roles, public), secret, self.station)
        return path

    def client(self, name: str, *roles: Role) -> Credentials:
        """As `file`, read."""
        return read_key_file(self.file(name, *roles))

    def strangers(self, known: Iterable[Credentials] = ()) -> dict[str, Credentials | None]:
        """Who may not come in: without a key, with one that nobody allowed, with another station's."""
        public, secret = new_pair()
        unknown = Credentials("unknown", public, secret, self.station)
        lost = {f"{key.name} at another station": Credentials(key.name, key.public, key.secret, new_pair()[0]) for key in known}
        return {"plain": None, "unknown": unknown, **lost}
