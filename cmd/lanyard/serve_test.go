package main

import (
	"github.com/rogpeppe/go-internal/testscript"
)

// serveBadly is `! serve FLAG...`: `lanyard serve` with the files of $WORK/data where the flags name no others. As
// nothing is there to serve, it must fail before it asks its etcd.
func serveBadly(ts *testscript.TestScript, neg bool, args []string) {
	if !neg {
		ts.Fatalf("serve is to be negated")
	}
	flags := []string{
		"serve", "--secure-port", "0", "--bind-address", "127.0.0.1", "--etcd-servers", "unix:///nowhere",
		"--tls-cert-file", "data/serving.crt", "--tls-private-key-file", "data/serving.key", "--client-ca-file", "data/ca.crt",
		"--service-account-issuer", "https://issuer.example", "--service-account-signing-key-file", "data/sa.key",
	}
	if err := ts.Exec("lanyard", append(flags, args...)...); err == nil {
		ts.Fatalf("lanyard serve ended well")
	}
}
