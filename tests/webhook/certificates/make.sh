#!/usr/bin/env bash
# Makes the certificates of the tests with openssl: an authority, and what receivers show.
# `valid` is right in every way; the others are named after what is wrong with them. One key serves them all.
set -euo pipefail
cd "$(dirname "$0")"
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out authority.key
openssl req -x509 -new -key authority.key -subj "/CN=Lutine tests" -days 36500 -out authority.pem \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out receiver.key
openssl req -new -key receiver.key -subj "/CN=receiver" -out receiver.csr
sign() { # name, subject alternative names, not before, not after
    printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=%s\n' "$2" >extensions
    mkdir -p database && : >database/index && echo 01 >database/serial
    printf '[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=database\ndatabase=database/index\nserial=database/serial\ndefault_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n' >ca.conf
    openssl ca -batch -notext -config ca.conf -cert authority.pem -keyfile authority.key -in receiver.csr \
        -startdate "$3" -enddate "$4" -extfile extensions -out "$1.pem"
}
sign valid "DNS:receiver.test,IP:127.0.0.1" 20200101000000Z 21200101000000Z
sign expired "DNS:receiver.test,IP:127.0.0.1" 20200101000000Z 20210101000000Z
sign early "DNS:receiver.test,IP:127.0.0.1" 21000101000000Z 21200101000000Z
sign other-host "DNS:other.test,IP:192.0.2.1" 20200101000000Z 21200101000000Z
openssl req -x509 -new -key receiver.key -subj "/CN=receiver" -days 36500 -out self-signed.pem \
    -addext "basicConstraints=critical,CA:FALSE" -addext "subjectAltName=DNS:receiver.test,IP:127.0.0.1"
openssl req -x509 -new -key receiver.key -subj "/CN=receiver" -days 36500 -out self-made-authority.pem \
    -addext "subjectAltName=DNS:receiver.test,IP:127.0.0.1"
rm -rf authority.key receiver.csr extensions ca.conf database
