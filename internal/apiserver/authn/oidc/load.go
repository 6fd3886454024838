package oidc

import (
	"fmt"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"

	"lanyard.dev/internal/apiserver/configfile"
)

// loader reads AuthenticationConfigurations, of every version that the library knows.
type loader struct {
	compiler authenticationcel.Compiler
	// own are the issuers of this server, which no other may pretend to be.
	own []string
}

func newLoader(own []string) *loader {
	return &loader{compiler: authenticationcel.NewDefaultCompiler(), own: own}
}

func read(file string) ([]byte, error) {
	data, err := configfile.Read(file)
	if err != nil {
		return nil, fmt.Errorf("read the authentication configuration: %w", err)
	}
	return data, nil
}

// load returns the configuration in data, or every fault at once. An unknown field is a fault.
func (l *loader) load(data []byte) (*apiserver.AuthenticationConfiguration, error) {
	config, err := configfile.Decode[*apiserver.AuthenticationConfiguration](data)
	if err != nil {
		return nil, err
	}
	if err := validation.ValidateAuthenticationConfiguration(l.compiler, config, l.own).ToAggregate(); err != nil {
		return nil, err
	}
	return config, nil
}
