#!/usr/bin/env bash
# Makes the keys and certificates of the tests of the authorization server anew; private keys are PKCS #8 in DER. It never
# has to be done: keys are pinned, and no certificate is believed or doubted.
set -euo pipefail
cd "$(dirname "$0")"
pair() { # name, options of genpkey
    openssl genpkey "${@:2}" | openssl pkcs8 -topk8 -nocrypt -outform DER -out "$1.pkcs8"
    openssl pkey -in "$1.pkcs8" -inform DER -pubout -out "$1.pub.pem"
}
certificate() { # name
    openssl req -x509 -new -key "$1.pkcs8" -keyform DER -subj "/CN=$1" -days 3650 -out "$1.cert.pem"
}
pair rsa -algorithm RSA -pkeyopt rsa_keygen_bits:2048
pair rsa-other -algorithm RSA -pkeyopt rsa_keygen_bits:2048
pair rsa-weak -algorithm RSA -pkeyopt rsa_keygen_bits:1024
pair p256 -algorithm EC -pkeyopt ec_paramgen_curve:P-256
pair p384 -algorithm EC -pkeyopt ec_paramgen_curve:P-384
pair ed25519 -algorithm ED25519
pair ed448 -algorithm ED448
certificate rsa
certificate p256
# Of those that are refused, the public half is enough.
rm p384.pkcs8 ed448.pkcs8 rsa-weak.pkcs8
