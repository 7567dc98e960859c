#!/bin/sh
# Make a certificate for each machine of a cluster, by an authority of its own, for Ray's TLS.
#
#   sh cluster/make-certificates.sh 192.0.2.10 192.0.2.11 head.example.org
#
# What is there already stays. They lie beside the secrets, in tls/ (docs/cluster.md). Each machine gets
# authority.crt and its own .crt and .key, and nobody but you authority.key: whoever has it can make a
# machine of this cluster.
set -eu
umask 077

folder=${UNSHIFT_SECRETS:-$HOME/.config/unshift}/tls
days=825
mkdir -p "$folder"
cd "$folder"

new_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

if [ ! -e authority.crt ]; then
    new_key authority.key
    openssl req -x509 -new -key authority.key -days "$days" -subj "/CN=unshift" -out authority.crt \
        -addext "keyUsage=critical,keyCertSign,cRLSign"
fi
for machine in "$@"; do
    [ -e "$machine.crt" ] && continue
    case $machine in
    *[!0-9.]*) name="DNS:$machine" ;;
    *) name="IP:$machine" ;;
    esac
    new_key "$machine.key"
    # Processes of one machine reach each other on loopback; each is client and server.
    printf 'subjectAltName = %s, DNS:localhost, IP:127.0.0.1\nextendedKeyUsage = serverAuth, clientAuth\n' \
        "$name" >"$machine.extensions"
    openssl req -new -key "$machine.key" -subj "/CN=$machine" -out "$machine.request"
    openssl x509 -req -in "$machine.request" -CA authority.crt -CAkey authority.key -CAcreateserial \
        -days "$days" -extfile "$machine.extensions" -out "$machine.new" 2>/dev/null
    mv "$machine.new" "$machine.crt"
    rm "$machine.request" "$machine.extensions"
done
printf '%s\n' "certificates in $folder"
