package main

import (
	"flag"
	"fmt"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

// forge is `forge [-key FILE] [-issuer URL] [-age D] [-lifetime D] NAMESPACE NAME UID`: it prints the token that an
// authority with this key, a new one if none is given, would have issued -age ago for itself.
func forge(ts *testscript.TestScript, neg bool, args []string) {
	flags := flag.NewFlagSet("forge", flag.ContinueOnError)
	file := flags.String("key", "", "")
	issuer := flags.String("issuer", ts.Getenv("URL"), "")
	age := flags.Duration("age", 0, "")
	lifetime := flags.Duration("lifetime", time.Hour, "")
	if err := flags.Parse(args); err != nil || flags.NArg() != 3 || neg {
		ts.Fatalf("usage: forge [-key FILE] [-issuer URL] [-age D] [-lifetime D] NAMESPACE NAME UID")
	}
	key, err := keyFrom(ts, *file)
	ts.Check(err)
	keys, err := signingkey.NewSet(key)
	ts.Check(err)
	forger, err := token.NewIssuer(*issuer, keys, clocktesting.NewFakePassiveClock(time.Now().Add(-*age)))
	ts.Check(err)
	text, _, err := forger.Issue(token.Request{
		Namespace: flags.Arg(0), ServiceAccount: token.Ref{Name: flags.Arg(1), UID: flags.Arg(2)},
		Audiences: []string{*issuer}, Lifetime: *lifetime,
	})
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), text)
}

func keyFrom(ts *testscript.TestScript, file string) (*signingkey.PrivateKey, error) {
	if file == "" {
		return signingkey.Generate(signingkey.DefaultAlgorithm)
	}
	return signingkey.LoadPrivate(ts.MkAbs(file))
}
