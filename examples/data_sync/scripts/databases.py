"""CSV out of and into a database: SQLite with Python's own module, PostgreSQL and MariaDB with their command-line clients.

Only the standard library. Passwords go to the clients by environment variable, so that no process list shows them.
"""

import csv
import os
import sqlite3
import subprocess
from urllib.parse import unquote, urlsplit


def export_csv(variable, default, query, path):
    """Writes the rows of a query to a file, with a header."""
    url = _url(variable, default)
    if url.scheme == "sqlite":
        with sqlite3.connect(_sqlite_file(url)) as database, open(path, "w", newline="") as target:
            rows = database.execute(query)
            out = csv.writer(target, lineterminator="\n")
            out.writerow([column[0] for column in rows.description])
            out.writerows(rows)
    elif url.scheme in ("postgres", "postgresql"):
        _psql(url, [f"\\copy ({query}) TO '{path}' WITH (FORMAT csv, HEADER)"])
    else:
        with open(path, "w", newline="") as target:
            client = _mariadb(url, [f"--execute={query}"], stdout=subprocess.PIPE)
            out = csv.writer(target, lineterminator="\n")
            for line in client.stdout.splitlines():
                out.writerow(line.split("\t"))


def replace_from_csv(variable, default, table, columns, path):
    """Empties a table and fills it from a file with a header, in one transaction."""
    url = _url(variable, default)
    names = ", ".join(columns)
    if url.scheme == "sqlite":
        places = ", ".join("?" for _ in columns)
        with sqlite3.connect(_sqlite_file(url), timeout=30) as database, open(path, newline="") as source:
            lines = csv.reader(source)
            next(lines)
            database.execute(f"DELETE FROM {table}")
            database.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", lines)
    elif url.scheme in ("postgres", "postgresql"):
        _psql(url, [f"DELETE FROM {table}", f"\\copy {table} ({names}) FROM '{path}' WITH (FORMAT csv, HEADER)"])
    else:
        load = (
            f"START TRANSACTION; DELETE FROM {table}; LOAD DATA LOCAL INFILE '{path}' INTO TABLE {table} "
            f"FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' LINES TERMINATED BY '\\n' IGNORE 1 LINES ({names}); COMMIT;"
        )
        _mariadb(url, ["--local-infile=1", f"--execute={load}"])


def _url(variable, default):
    return urlsplit(os.environ.get(variable) or default)


def _sqlite_file(url):
    return unquote(url.path.removeprefix("/"))


def _psql(url, commands):
    """Runs the commands in one transaction."""
    arguments = ["psql", "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]
    arguments += [f"--host={url.hostname}", f"--port={url.port or 5432}", f"--username={unquote(url.username or 'postgres')}"]
    arguments += [f"--dbname={unquote(url.path.lstrip('/'))}"]
    arguments += [f"--command={command}" for command in commands]
    _run(arguments, "PGPASSWORD", url)


def _mariadb(url, arguments, **options):
    connection = [f"--host={url.hostname}", f"--port={url.port or 3306}", f"--user={unquote(url.username or 'root')}"]
    connection += ["--protocol=tcp", "--batch", f"--database={unquote(url.path.lstrip('/'))}"]
    return _run(["mariadb", "--no-defaults", *connection, *arguments], "MYSQL_PWD", url, **options)


def _run(arguments, password_variable, url, **options):
    environment = dict(os.environ)
    if url.password:
        environment[password_variable] = unquote(url.password)
    return subprocess.run(arguments, env=environment, check=True, text=True, **options)
