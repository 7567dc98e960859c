#!/bin/sh
# Make the secrets of a cluster, each once: what is there already stays, but for files with a secret that is
# newer than they are. docs/cluster.md says who reads which, and how one is changed.
#
#   sh cluster/make-secrets.sh
#
# They lie outside the repository, so that no commit, image or uploaded job can hold one. The folder is
# open to its owner alone. The files that compose mounts can be read by all who get as far as the
# container, since its users are not you; libpq refuses a pgpass that others could read.
set -eu
umask 077

folder=${UNSHIFT_SECRETS:-$HOME/.config/unshift}
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

# keep NAME MODE: write standard input to a file that is not there yet, whole or not at all.
keep() {
    [ -e "$1" ] && return
    cat >"$1.new"
    chmod "$2" "$1.new"
    mv "$1.new" "$1"
}

random | keep ray_token 444
random | keep postgres_password 444
random | keep mlflow_password 444
random | keep mlflow_flask_key 444
random | keep s3_secret 444

# follow NAME SECRET: delete a file that holds an older secret than there is now.
follow() {
    if [ "$2" -nt "$1" ]; then rm -f "$1"; fi
}
follow pgpass postgres_password
follow mlflow_credentials mlflow_password
follow aws_credentials s3_secret
follow s3.json s3_secret

# What clients read, in their own formats. The host is any: the name of the server differs by place.
printf '*:5432:*:unshift:%s\n' "$(cat postgres_password)" | keep pgpass 600
keep mlflow_credentials 444 <<END
[mlflow]
mlflow_tracking_username = admin
mlflow_tracking_password = $(cat mlflow_password)
END
keep aws_credentials 444 <<END
[default]
aws_access_key_id = unshift
aws_secret_access_key = $(cat s3_secret)
END
# What the object store of compose.yaml reads: one identity, and none for who brings no key.
keep s3.json 444 <<END
{"identities": [{"name": "unshift", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "unshift", "secretKey": "$(cat s3_secret)"}]}]}
END
printf '%s\n' "secrets in $folder: $(find . -type f -name '[a-z]*' | wc -l | tr -d ' ') files"
