package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"
)

// TestCases runs the cases of a JSON file through the Go of the receiver kit; writes the name of each that was taken.
func TestCases(t *testing.T) {
	text, err := os.ReadFile(os.Getenv("CASES"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Kind, Secret, PEM string
		Headers                 map[string]string
		Now                     int64
		Body                    []byte
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	taken := ""
	for _, one := range cases {
		header := http.Header{}
		for name, value := range one.Headers {
			header.Set(name, value)
		}
		key, err := KeyOf(one.Secret)
		if err != nil {
			t.Fatal(err)
		}
		switch one.Kind {
		case "standard":
			err = VerifyStandard(key, header, one.Body, time.Unix(one.Now, 0))
		case "header-hmac":
			err = VerifyHeaderHMAC(key, header.Get("x-signature"), one.Body)
		case "body-hmac-sha256":
			_, err = VerifySignedEnvelope(key, one.Body)
		default:
			_, err = VerifySignedEnvelopeRSA([]byte(one.PEM), one.Body)
		}
		if err == nil {
			taken += fmt.Sprintln(one.Name)
		}
	}
	if err := os.WriteFile(os.Getenv("TAKEN"), []byte(taken), 0o644); err != nil {
		t.Fatal(err)
	}
}
