# Makes the database at the first start, then runs it; as the user postgres, who owns the volume's content.
set -eu
data=/var/lib/postgresql/data
as_postgres() { exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"; }

if [ ! -s "$data/PG_VERSION" ]; then
    mkdir -p "$data"
    chown -R postgres:postgres /var/lib/postgresql
    chmod 700 "$data"
    install -o postgres -m 400 /run/secrets/db_password /tmp/password
    (as_postgres /usr/local/bin/initdb --pgdata="$data" --username=postgres --pwfile=/tmp/password \
        --auth-local=peer --auth-host=scram-sha-256 --encoding=UTF8 --locale=C)
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
fi
as_postgres /usr/local/bin/postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp
