package main

import (
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfig is `kubeconfig FILE TOKENFILE`: it writes a kubeconfig with which kubectl has this token and nothing else.
// kubectl's --token does not do: with the administrator's kubeconfig it sends the certificate too, which counts.
func kubeconfig(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: kubeconfig FILE TOKENFILE")
	}
	const name = "robot"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: ts.Getenv("URL"), CertificateAuthority: ts.Getenv("CA")}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: strings.TrimSpace(ts.ReadFile(args[1]))}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	ts.Check(clientcmd.WriteToFile(*config, ts.MkAbs(args[0])))
}
