"""A real PostgreSQL server for tests, on a loopback port."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

PASSWORD = "a-secret-word"


@dataclass
class Server:
    """A PostgreSQL server of this test session, run as a user of its own: it refuses to run as root."""

    programs: Path
    folder: Path
    port: int
    user: str | None
    databases: int = 0

    def pg(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs; a server that it starts outlives it, so its output goes to a file."""
        with (self.folder / "said").open("w+") as said:
            command = [str(self.programs / program), "-D", str(self.folder / "data"), *words]
            done = subprocess.run(command, user=self.user, cwd=self.folder, stdout=said, stderr=said, timeout=60)
            said.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, said.read())

    def make(self) -> None:
        """Make the data folder; names are sorted as people sort them, not by bytes."""
        (self.folder / "password").write_text(PASSWORD)
        words = ["-U", "owner", "-A", "scram-sha-256", "--pwfile", str(self.folder / "password"), "-E", "UTF8"]
        words += ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US", "--no-sync"]
        made = self.pg("initdb", *words)
        assert made.returncode == 0, made.stdout

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories= -c fsync=off"
        started = self.pg("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")
        assert started.returncode == 0, started.stdout + (self.folder / "log").read_text()

    def stop_command(self) -> list[str]:
        return [str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop"]

    def stop(self) -> None:
        self.pg("pg_ctl", *self.stop_command()[3:])

    def url(self, database: str = "postgres", user: str = "owner", password: str = PASSWORD) -> str:
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> None:
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def fresh(self) -> str:
        """Return the URL of a new database."""
        self.databases += 1
        self.sql(f"CREATE DATABASE store{self.databases}")
        return self.url(f"store{self.databases}")


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL of Debian's packages, else the one on PATH."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if found:
        return max(found, key=lambda path: int(path.parent.name.partition(".")[0]))
    where = shutil.which("initdb")
    return Path(where).resolve().parent if where else None


def running_server() -> Iterator[Server]:
    """Yield a running server on a loopback port, in a folder of its own; stopped and removed at the end."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = None if os.geteuid() else "postgres" if "postgres" in names else "nobody"
    folder = Path(tempfile.mkdtemp(prefix="flfed-postgres-"))
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Server(found, folder, port, user)
    try:
        made.make()
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
