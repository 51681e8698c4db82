// Package webhook verifies what Lutine sends. Go 1.18 or later, nothing to install.
//
// Every function takes the body as the bytes that arrived. Verify first, parse afterwards: a body that was parsed and
// written again is another body.
package webhook

import (
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const tolerance = 300 * time.Second

var errSignature = errors.New("no signature matches")

// KeyOf returns the 32 bytes behind "whsec_", which every signature with a shared secret is made with.
func KeyOf(secret string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
}

func mac(key []byte, pieces ...[]byte) []byte {
	hash := hmac.New(sha256.New, key)
	for _, piece := range pieces {
		hash.Write(piece)
	}
	return hash.Sum(nil)
}

// VerifyStandard checks the headers of Standard Webhooks.
func VerifyStandard(key []byte, header http.Header, body []byte, now time.Time) error {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return err
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return errors.New("the webhook is too old, or its clock is ahead")
	}
	expected := mac(key, []byte(id+"."+timestamp+"."), body)
	// During a rotation there are two signatures; one that matches is enough.
	for _, signature := range strings.Split(header.Get("webhook-signature"), " ") {
		given, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signature, "v1,"))
		if err == nil && strings.HasPrefix(signature, "v1,") && hmac.Equal(given, expected) {
			return nil
		}
	}
	return errSignature
}

// VerifyHeaderHMAC checks the header X-Signature of the profile envelope: sha256={hex} over the body.
func VerifyHeaderHMAC(key []byte, signature string, body []byte) error {
	given, err := hex.DecodeString(strings.TrimPrefix(signature, "sha256="))
	if err != nil || !hmac.Equal(given, mac(key, body)) {
		return errSignature
	}
	return nil
}

type envelope struct {
	PayloadAsString string `json:"payloadAsString"`
	Signature       []byte `json:"signature"`
}

// VerifySignedEnvelope returns the payload that was signed with a shared secret (profile signed-envelope).
func VerifySignedEnvelope(key, body []byte) (json.RawMessage, error) {
	var message envelope
	if err := json.Unmarshal(body, &message); err != nil {
		return nil, err
	}
	if !hmac.Equal(message.Signature, mac(key, []byte(message.PayloadAsString))) {
		return nil, errSignature
	}
	// The text is what was signed; "payload" beside it is for people.
	return json.RawMessage(message.PayloadAsString), nil
}

// VerifySignedEnvelopeRSA is the same with RSA; the key is what GET /api/v1/webhooks/public-key answers.
func VerifySignedEnvelopeRSA(publicKeyPEM, body []byte) (json.RawMessage, error) {
	block, _ := pem.Decode(publicKeyPEM)
	if block == nil {
		return nil, errors.New("the public key is not PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, isRSA := parsed.(*rsa.PublicKey)
	if !isRSA {
		return nil, errors.New("the public key is not of RSA")
	}
	var message envelope
	if err := json.Unmarshal(body, &message); err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte(message.PayloadAsString))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], message.Signature); err != nil {
		return nil, err
	}
	return json.RawMessage(message.PayloadAsString), nil
}
